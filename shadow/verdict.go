package shadow

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/shadow/compare"
)

// maxOutputs bounds how many outputs a verdict tells apart: their names come from
// model servers.
const maxOutputs = 256

// otherOutputs stands for the outputs beyond maxOutputs. No protocol knows an output
// of that name.
const otherOutputs = "_OTHER"

// verdict gathers what comparisons of one shadow have brought. Safe for concurrent
// use; it is not on any caller's path.
type verdict struct {
	mu      sync.Mutex
	created time.Time
	findings
}

// findings are what there is since the rules and the server are what they are.
type findings struct {
	since       time.Time
	compared    uint64
	mismatched  uint64
	differences map[compare.Difference]uint64
	outputs     map[string]*OutputVerdict
	caller      spread
	shadow      spread
	slower      spread // shadow - caller
	worst       worst
}

func newVerdict(now time.Time) *verdict {
	v := &verdict{created: now}
	v.restart(now)
	return v
}

// restart begins anew.
func (v *verdict) restart(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.findings = findings{since: now, differences: make(map[compare.Difference]uint64), outputs: make(map[string]*OutputVerdict)}
}

// add takes in one comparison. remember is asked what may be shown of the call, if it is
// among the worst.
func (v *verdict) add(c *Copy, a Attempt, r *compare.Result, remember func() *Remembered) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.compared++
	if r.Difference != compare.None {
		v.mismatched++
		v.differences[r.Difference]++
		v.worst.add(c, a, r, remember)
	}
	for i := range r.Outputs {
		v.output(r.Outputs[i].Name).add(&r.Outputs[i])
	}
	if c.Code == 0 && a.Code == 0 && c.Latency > 0 {
		v.caller.add(c.Latency)
		v.shadow.add(a.Latency)
		v.slower.add(a.Latency - c.Latency)
	}
}

func (v *verdict) output(name string) *OutputVerdict {
	o := v.outputs[name]
	if o == nil {
		if len(v.outputs) >= maxOutputs {
			name = otherOutputs
			if o = v.outputs[name]; o != nil {
				return o
			}
		}
		o = &OutputVerdict{Name: strings.Clone(name)}
		v.outputs[o.Name] = o
	}
	return o
}

// OutputVerdict is what comparisons of one output have brought. The request is the
// unit: the elements of one are not independent of each other.
type OutputVerdict struct {
	Name                 string
	Compared, Mismatched uint64
	// Rate is the interval of the share of mismatches, Upper its bound for decisions; both
	// are for one look at a number of calls that was chosen beforehand. Always holds
	// however often it is looked at.
	Rate, Always Interval
	Upper        float64
	// The largest errors of all requests.
	MaxAbs, MaxRel, Excess float64
	MaxULP                 uint64
	// MeanRMSE and MeanCosine are over the requests that have one.
	MeanRMSE, MeanCosine float64
	// Rows of a classifier, and how many of them changed their largest element.
	Rows, Flips, CloseFlips uint64
	// MeanTopK is over the requests that have one.
	MeanTopK float64

	// Cosines and TopKs are how many requests have one; without any the mean is 0.
	Cosines, TopKs uint64
}

func (o *OutputVerdict) add(r *compare.Output) {
	o.Compared++
	if r.Difference != compare.None {
		o.Mismatched++
	}
	o.MaxAbs, o.MaxRel = max(o.MaxAbs, r.MaxAbs), max(o.MaxRel, r.MaxRel)
	o.Excess, o.MaxULP = max(o.Excess, r.Excess), max(o.MaxULP, r.MaxULP)
	o.Rows += uint64(r.Rows)
	o.Flips += uint64(r.Flips)
	o.CloseFlips += uint64(r.CloseFlips)
	running(&o.MeanRMSE, r.RMSE, o.Compared)
	if r.Cosine == r.Cosine {
		o.Cosines++
		running(&o.MeanCosine, r.Cosine, o.Cosines)
	}
	if r.TopK == r.TopK {
		o.TopKs++
		running(&o.MeanTopK, r.TopK, o.TopKs)
	}
}

// running takes the n-th value into a mean, which stays infinite once one was.
func running(mean *float64, v float64, n uint64) {
	switch {
	case math.IsInf(*mean, 0):
	case math.IsInf(v, 0):
		*mean = v
	default:
		*mean += (v - *mean) / float64(n)
	}
}

// Status is what is known of a shadow at one moment.
type Status struct {
	Since time.Time // when counting began
	Counts
	Queued, Bytes int // copies that wait, and the memory of these and those under way

	// ComparedSince is when comparing began: with counting, with other rules, or with another
	// server. What follows is of the copies since.
	ComparedSince        time.Time
	Compared, Mismatched uint64
	// Rate is the interval of the share of mismatches, Upper its bound for decisions; both
	// are for one look at a number of calls that was chosen beforehand. Always holds
	// however often it is looked at.
	Rate, Always Interval
	Upper        float64
	Differences  map[compare.Difference]uint64 // what the mismatches are
	Outputs      []OutputVerdict               // by name

	// Latencies of the calls that both answered well, until the answer began.
	Caller, Shadow, Slower Spread
	Worst                  []Example // the worst first
}

// Status returns what is known now.
func (m *Mirror) Status() Status {
	s := m.verdict.read()
	m.count(&s)
	return s
}

// Totals returns the plain counts of [Mirror.Status], which cost little.
func (m *Mirror) Totals() Status {
	m.verdict.mu.Lock()
	s := Status{
		Since: m.verdict.created, ComparedSince: m.verdict.since, Compared: m.verdict.compared, Mismatched: m.verdict.mismatched,
		Differences: maps.Clone(m.verdict.differences),
	}
	m.verdict.mu.Unlock()
	m.count(&s)
	return s
}

// count says what became of the copies.
func (m *Mirror) count(s *Status) {
	s.Counts = m.counts.read()
	m.mu.Lock()
	s.Queued, s.Bytes = m.n, m.bytes
	m.mu.Unlock()
}

func (v *verdict) read() Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := Status{
		Since: v.created, ComparedSince: v.since, Compared: v.compared, Mismatched: v.mismatched,
		Rate: Wilson(v.mismatched, v.compared), Always: AtAnyTime(v.mismatched, v.compared), Upper: ClopperPearsonUpper(v.mismatched, v.compared),
		Differences: maps.Clone(v.differences),
		Caller:      v.caller.read(), Shadow: v.shadow.read(), Slower: v.slower.read(),
		Worst: v.worst.read(),
	}
	for _, name := range slices.Sorted(maps.Keys(v.outputs)) {
		o := *v.outputs[name]
		o.Rate, o.Upper = Wilson(o.Mismatched, o.Compared), ClopperPearsonUpper(o.Mismatched, o.Compared)
		o.Always = AtAnyTime(o.Mismatched, o.Compared)
		s.Outputs = append(s.Outputs, o)
	}
	return s
}
