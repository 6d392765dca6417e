package labels

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proto/inference/tensor"
	labelsv1 "sluice/proto/sluice/labels/v1"
	"sluice/telemetry/drift/change"
)

// Key names a version of a model.
type Key struct{ Model, Version string }

func (k Key) shelfKey() string { return k.Model + " " + k.Version }

// keyOf is the key that shelfKey was called on. Names have no spaces.
func keyOf(text string) Key {
	model, version, _ := strings.Cut(text, " ")
	return Key{model, version}
}

// Settings say what a version predicts and what is done with labels. All have to be set but those that may be empty.
type Settings struct {
	// Predicts is what answers predict; None looks into none.
	Predicts Kind
	// Output is the tensor with the prediction; empty is the first one.
	Output string
	// Classes are the classes of a Class, at least two.
	Classes []string
	// Tolerance is by how much a number may be off before it is an error; 0 means that numbers are no errors.
	Tolerance float64
	// GoodFrom is the smallest reward that is no error.
	GoodFrom float64
	// MaxAge is how old a prediction may be when its label comes.
	MaxAge time.Duration
	// Window is the time whose labels are counted together.
	Window time.Duration
	// Detector is esr, adwin or page_hinkley.
	Detector string
	// ExpectedRun is the mean number of labels between two false alarms of esr.
	ExpectedRun int
	// ReferenceError is the share of errors that is usual; 0 if it is learnt from Learn labels.
	ReferenceError float64
	Learn          int
}

// layout is a fingerprint of what counts have to agree in to be added.
func (s *Settings) layout() uint64 {
	h := fnv.New64a()
	put := func(v uint64) {
		for i := range 8 {
			_, _ = h.Write([]byte{byte(v >> (8 * i))}) // it never fails
		}
	}
	put(uint64(s.Predicts)<<32 | uint64(Fingerprint(s.Classes)))
	put(math.Float64bits(s.Tolerance))
	put(math.Float64bits(s.GoodFrom))
	put(uint64(s.MaxAge))
	put(uint64(s.Window))
	return h.Sum64()
}

// cohortParts is into how many parts max_age is cut, to say of which predictions the labels have come.
const cohortParts = 8

func (s *Settings) cohort(at time.Time) int64 { return at.UnixNano() / int64(s.MaxAge/cohortParts) }

func (s *Settings) window(at time.Time) int64 { return at.UnixNano() / int64(s.Window) }

// cohort counts by the time of predictions.
type cohort struct {
	predictions, labels uint64
	seen                filter
}

// Version is one version that takes labels. It outlives routing tables.
type Version struct {
	key       Key
	reader    atomic.Pointer[Reader] // nil: answers are not looked into
	predicted atomic.Uint64          // predictions given ids, not yet in a cohort
	unread    atomic.Uint64

	mu       sync.Mutex
	settings Settings
	layout   uint64
	current  int64 // number of the window under way
	windows  [2]*window
	cohorts  map[int64]*cohort
	total    totals
	changed  time.Time
	changes  uint64                     // how often anything was counted
	others   map[string]*labelsv1.Tally // by gateway, of the same layout
	change   watch
}

type totals struct{ labels, errors uint64 }

// configure takes over settings. Counts are kept unless they would mean something else now.
func (v *Version) configure(s Settings, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fresh := v.cohorts == nil
	if fresh || v.settings.Predicts != s.Predicts || v.settings.Output != s.Output || !slices.Equal(v.settings.Classes, s.Classes) {
		var r *Reader
		if s.Predicts != None {
			r = NewReader(s.Output, s.Classes)
		}
		v.reader.Store(r)
	}
	recount := fresh || s.layout() != v.layout
	redetect := recount || s.Detector != v.settings.Detector || s.ExpectedRun != v.settings.ExpectedRun ||
		s.ReferenceError != v.settings.ReferenceError || s.Learn != v.settings.Learn
	v.settings, v.layout = s, s.layout()
	if recount {
		v.current = s.window(now)
		v.windows = [2]*window{newWindow(&v.settings), newWindow(&v.settings)}
		v.cohorts, v.total, v.others = make(map[int64]*cohort), totals{}, nil
	}
	if redetect {
		v.change = newWatch(&v.settings)
	}
}

// Predicted notes that an id was given, of so many predictions. It never blocks.
func (v *Version) Predicted(n int) { v.predicted.Add(uint64(n)) }

// Reads reports whether the prediction stands in answers, so that [Version.Read] is of use.
func (v *Version) Reads() bool { return v.reader.Load() != nil }

// Read puts the predictions of an answer into p; those of one that cannot be understood are None, and counted.
func (v *Version) Read(outputs []tensor.Tensor, err error, p *Prediction) {
	p.Clear()
	r := v.reader.Load()
	if r == nil {
		return
	}
	if err == nil {
		err = r.Read(outputs, p)
	}
	if err != nil {
		p.Clear()
		v.unread.Add(1)
	}
}

// advance opens the window of a time, and forgets cohorts that take no labels any more. v.mu is held.
func (v *Version) advance(now time.Time) {
	switch n := v.settings.window(now); {
	case n == v.current+1:
		v.windows[0], v.windows[1], v.current = newWindow(&v.settings), v.windows[0], n
	case n > v.current:
		v.windows, v.current = [2]*window{newWindow(&v.settings), newWindow(&v.settings)}, n
	}
	if n := v.predicted.Swap(0); n > 0 {
		v.cohort(v.settings.cohort(now)).predictions += n
		v.note(now)
	}
	oldest := v.settings.cohort(now.Add(-v.settings.MaxAge))
	for n := range v.cohorts {
		if n < oldest {
			delete(v.cohorts, n)
		}
	}
}

func (v *Version) cohort(n int64) *cohort {
	c := v.cohorts[n]
	if c == nil {
		c = new(cohort)
		v.cohorts[n] = c
	}
	return c
}

// clockSkew is by how much clocks of gateways and applications may differ.
const clockSkew = 5 * time.Minute

// admit checks whether a label fits, and says which cohort its prediction is of.
func (v *Version) admit(id *Identity, l *Label, now time.Time) (cohort int64, refused *Refusal) {
	at := l.at(now)
	v.mu.Lock()
	defer v.mu.Unlock()
	s := &v.settings
	switch {
	case now.Sub(id.At) > s.MaxAge:
		return 0, refuse(Late, "the prediction is %s old, want at most %s (labels.max_age)", now.Sub(id.At).Round(time.Second), s.MaxAge)
	case id.At.Sub(now) > clockSkew || at.Sub(now) > clockSkew:
		return 0, refuse(WrongTime, "it is from the future: the prediction of %s, the label of %s", id.At.Format(time.RFC3339), at.Format(time.RFC3339))
	case id.At.Sub(at) > clockSkew:
		return 0, refuse(WrongTime, "the label's time, %s, is before the prediction's, %s", at.Format(time.RFC3339), id.At.Format(time.RFC3339))
	}
	if _, refused := s.check(id, l); refused != nil {
		return 0, refused
	}
	cohort = s.cohort(id.At)
	if v.labelled(cohort) >= maxLabelled {
		return 0, refuse(Full, "there are %d labels already for predictions of that eighth of labels.max_age", maxLabelled)
	}
	return cohort, nil
}

// maxLabelled is how many labels of a cohort can be told apart.
const maxLabelled = 1_000_000

// labelled is how many predictions of a cohort have a label, by all gateways. v.mu is held.
func (v *Version) labelled(number int64) (n uint64) {
	if c := v.cohorts[number]; c != nil {
		n = c.labels
	}
	for _, t := range v.others {
		for _, c := range t.GetCohorts() {
			if c.GetNumber() == number {
				n += c.GetLabels()
			}
		}
	}
	return n
}

// unseen returns those labels whose predictions have none by this gateway, the first of each.
func (v *Version) unseen(number int64, batch []candidate, out []Outcome) []candidate {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.cohorts[number]
	now := make(map[uint64]bool, len(batch))
	rest := batch[:0]
	for _, x := range batch {
		if now[x.mark()] || c != nil && c.seen.has(x.mark()) {
			out[x.index].Duplicate = true
			continue
		}
		now[x.mark()] = true
		rest = append(rest, x)
	}
	return rest
}

// markSet names the set of marks of a cohort, and says how long it is of use.
func (v *Version) markSet(number int64) (name string, keep time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("%s %d/%d", v.key.shelfKey(), number, v.settings.MaxAge/cohortParts/time.Second), v.settings.MaxAge + v.settings.MaxAge/cohortParts
}

// take counts a label that was checked, unless another request has been faster.
func (v *Version) take(x candidate, now time.Time) Outcome {
	v.mu.Lock()
	defer v.mu.Unlock()
	truth, refused := v.settings.check(x.id, x.label) // the settings may have changed since
	if refused != nil {
		return Outcome{Refused: refused}
	}
	v.advance(now)
	c := v.cohort(v.settings.cohort(x.id.At))
	if c.seen.has(x.mark()) {
		return Outcome{Duplicate: true}
	}
	if c.seen.full() {
		return Outcome{Refused: refuse(Full, "this gateway can tell no more labels apart for predictions of that time")}
	}
	c.seen.add(x.mark())
	c.labels++
	v.count(x.id, x.label, truth, x.label.at(now).Sub(x.id.At))
	v.note(now)
	return Outcome{}
}

// note says that something was counted. v.mu is held.
func (v *Version) note(now time.Time) {
	v.changed = now
	v.changes++
}

// check wants a label to be of what was predicted. Of a class, it returns the index.
func (s *Settings) check(id *Identity, l *Label) (class int, refused *Refusal) {
	p := &id.Prediction
	rows := max(1, p.Rows())
	switch {
	case l.Truth == NoTruth:
		return 0, refuse(WrongKind, "there is no truth in it, want a class, a number or a reward")
	case l.Row == NoRow && rows > 1:
		return 0, refuse(WrongRow, "no row is said, want one of the answer's %d, from 0", rows)
	case l.Row >= rows:
		return 0, refuse(WrongRow, "got row %d, want less than %d, as many as predictions were found in the answer", l.Row, rows)
	case l.Truth != TrueClass && !usable(l.Number):
		return 0, refuse(WrongKind, "got %g, want a finite number, at most %g from 0", l.Number, most)
	case l.Truth == Reward:
		return 0, nil
	case l.Truth == TrueClass && s.Predicts != Class, l.Truth == TrueNumber && s.Predicts != Number:
		return 0, refuse(WrongKind, "the route's labels.predicts is %v, want a label of that, or a reward", s.Predicts)
	case p.Kind != s.Predicts:
		return 0, refuse(NoPrediction, "no %v was found in the answer, so that there is nothing to compare with", s.Predicts)
	case l.Truth == TrueNumber:
		return 0, nil
	}
	class = slices.Index(s.Classes, l.Class)
	switch {
	case class < 0:
		return 0, refuse(UnknownClass, "got class %.80q, want one of the route's labels.classes", l.Class)
	case p.Classes != Fingerprint(s.Classes) || int(p.Indexes[max(0, l.Row)]) >= len(s.Classes):
		return 0, refuse(UnknownClass, "the route's labels.classes have changed since the prediction")
	}
	return class, nil
}

// count adds a label that has been checked. v.mu is held.
func (v *Version) count(id *Identity, l *Label, class int, delay time.Duration) {
	w, s, p, row := v.windows[0], &v.settings, &id.Prediction, max(0, l.Row)
	w.labels++
	w.delay(delay)
	loss := 0.0
	switch l.Truth {
	case TrueClass:
		said := int(p.Indexes[row])
		w.classes.Add(said, class)
		if all := p.Probabilities(row); len(all) == len(s.Classes) {
			w.classes.AddProbabilities(all, class)
		}
		loss = indicator(said != class)
	case TrueNumber:
		w.numbers.Add(p.Numbers[row], l.Number)
		if loss = math.Abs(p.Numbers[row] - l.Number); s.Tolerance > 0 {
			loss = indicator(loss > s.Tolerance)
		}
	case Reward:
		w.reward.Add(l.Number)
		loss = indicator(l.Number < s.GoodFrom)
	}
	if id.Arm == id.Version {
		w.arm.Add(loss)
	}
	v.total.labels++
	if s.countsErrors() && loss == 1 {
		w.errors++
		v.total.errors++
	}
}

// countsErrors reports whether labels are right or wrong, and not only more or less far off.
func (s *Settings) countsErrors() bool { return s.Predicts != Number || s.Tolerance > 0 }

func indicator(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// watch looks for a growing share of errors, in what all gateways count.
type watch struct {
	detector change.Detector // nil while what is usual is not known, or nothing is watched
	baseline float64         // NaN: not known, or not needed
	learning totals
	learn    uint64            // labels to learn from; 0: nothing is learnt
	seen     map[string]totals // by gateway; nil before the first look
	alarmed  int64             // number of the window of the last alarm
}

func newWatch(s *Settings) watch {
	w := watch{baseline: math.NaN()}
	switch {
	case !s.countsErrors():
	case s.Detector == "adwin":
		w.detector = change.NewADWIN(adwinDelta)
	case s.Detector == "page_hinkley":
		w.detector = change.NewPageHinkley(hinkleyTolerance, hinkleyThreshold)
	case s.ReferenceError > 0:
		w.begin(s.ReferenceError, s)
	default:
		w.learn = uint64(s.Learn)
	}
	return w
}

// What is customary.
const (
	adwinDelta       = 0.002
	hinkleyTolerance = 0.005
	hinkleyThreshold = 50
)

// begin watches for more errors than a share.
func (w *watch) begin(baseline float64, s *Settings) {
	d, err := change.NewESR(baseline, float64(s.ExpectedRun), change.ErrorFactors)
	if err != nil {
		return // a share that is 0.95 or more cannot grow to a multiple
	}
	w.baseline, w.detector, w.learn = baseline, d, 0
}

// look takes what all gateways have counted so far and reports whether to raise an alarm.
func (w *watch) look(now map[string]totals) bool {
	first := w.seen == nil
	var grown totals
	for gateway, t := range now {
		if was := w.seen[gateway]; !first && t.labels >= was.labels && t.errors >= was.errors {
			grown.labels += t.labels - was.labels
			grown.errors += t.errors - was.errors
		}
	}
	w.seen = now
	switch {
	case grown.labels == 0:
		return false
	case w.detector != nil:
		return w.detector.Add(min(grown.errors, grown.labels), grown.labels)
	}
	w.learning.labels += grown.labels
	w.learning.errors += grown.errors
	return false
}

// learnt reports whether what is usual has just become known to this gateway.
func (w *watch) learnt() bool { return w.learn > 0 && w.learning.labels >= w.learn }
