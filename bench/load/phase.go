package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Longest is the longest latency that is told from longer ones.
const Longest = 2 * time.Minute

// digits of the microseconds that the histograms hold.
const digits = 3

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, Longest.Microseconds(), digits)
}

// record adds a time to a histogram, [Longest] if it is longer still.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d, 0), Longest).Microseconds()) // cannot fail within the bounds
}

// phase counts the calls of one run. It is safe for concurrent use.
type phase struct {
	requests uint64        // 0: no bound
	start    time.Duration // since the client's epoch
	tokens   chan *conn

	mu       sync.Mutex
	begun    uint64
	open     int
	stopped  bool // no more calls begin
	ended    bool
	done     chan struct{} // closed with the last call after the last has begun
	lastEnd  time.Duration
	result   Result
	interval *hdrhistogram.Histogram
	since    Progress // totals when the interval began
}

func newPhase(requests uint64, start time.Duration) *phase {
	return &phase{
		requests: requests,
		start:    start,
		lastEnd:  start,
		done:     make(chan struct{}),
		result:   Result{Failures: make(map[string]uint64), Said: make(map[string]string), Latency: newHistogram(), Lag: newHistogram()},
		interval: newHistogram(),
	}
}

// begin reports whether another call may begin, which then has.
func (p *phase) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last() {
		return false
	}
	p.begun++
	p.open++
	return true
}

// end takes the result of a call on c. The outcome is "" for OK, else what went wrong.
// Unanswered says that the server still owed the answer: it then took at least until now.
func (p *phase) end(c *conn, k *call, now time.Duration, outcome string, unanswered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.lastEnd = max(p.lastEnd, now)
	p.result.Messages += uint64(k.answer.n)
	p.result.Bytes += uint64(k.bytes)
	if outcome == "" {
		p.result.OK++
	} else {
		p.result.fail(outcome, k.said)
	}
	if outcome == "" || unanswered {
		// An answer that never came must not be missing from the latencies: that
		// would make the slowest server look fast.
		p.took(now - k.due)
	}
	if p.tokens != nil {
		p.tokens <- c // has room for all there are
	}
	p.finish()
}

// neverBegun counts calls that were due and found no free stream until the end.
func (p *phase) neverBegun(due, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun++
	p.result.fail(outcomeNotBegun, "")
	p.took(now - due)
}

// took records a latency. p.mu is held.
func (p *phase) took(d time.Duration) {
	record(p.result.Latency, d)
	record(p.interval, d)
	if d > Longest {
		p.result.TooLong++
	}
}

// lagged notes how late the generator itself was with a call.
func (p *phase) lagged(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	record(p.result.Lag, by)
}

// waited counts a call that had to wait for a free stream.
func (p *phase) waited() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Waited++
}

// over reports whether no more calls may begin.
func (p *phase) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last()
}

// stop lets no more calls begin.
func (p *phase) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.finish()
}

// finish closes done when all is over. p.mu is held.
func (p *phase) finish() {
	if p.last() && p.open == 0 && !p.ended {
		p.ended = true
		close(p.done)
	}
}

// last reports whether the last call has begun. p.mu is held.
func (p *phase) last() bool { return p.stopped || p.requests > 0 && p.begun == p.requests }

// tick returns what happened since the last one.
func (p *phase) tick(now time.Duration) Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now -= p.start
	total := Progress{At: now, OK: p.result.OK, Failed: p.result.failed()}
	out := Progress{
		At: now, Interval: now - p.since.At,
		OK: total.OK - p.since.OK, Failed: total.Failed - p.since.Failed, Open: p.open,
		P50: quantile(p.interval, 50), P99: quantile(p.interval, 99), Max: micros(p.interval.Max()),
	}
	p.interval.Reset()
	p.since = total
	return out
}
