package drift

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/proto/inference/tensor"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
	"sluice/telemetry/payload"
)

// slots is the number of slots of a window.
const slots = 12

// Settings say how a version is watched.
type Settings struct {
	// PerSecond is how many calls a second are looked at, at most, by each gateway.
	PerSecond float64
	Policy    Policy
	// Learn is the number of samples from which features are learnt that the reference does not have; 0 learns
	// nothing.
	Learn int
	// Columns names the columns of input tensors.
	Columns map[string][]string
	// Payloads says what of which samples is written down; nil means nothing.
	Payloads *payload.Settings
}

// Key names a version of a model.
type Key struct{ Model, Version string }

// Version is one version that is watched. It outlives routing tables.
type Version struct {
	key  Key
	gate gate
	mon  *Monitor

	sampled, unreadable atomic.Uint64

	mu       sync.Mutex
	settings Settings
	data     string // version of its training data, as the route says it
	observer *observer
	learner  *learner
	ref      *reference // nil: there is none yet
	stored   uint64     // hash of what the store held of it
	number   int64      // of the open slot
	open     *tally     // this gateway's
	closed   []closedSlot
	window   *tally // slots of the window under way that are over, of all gateways
	current  int64  // number of that window
	done     *tally // of the last whole window
	began    int64  // slot from which on was counted
	recent   []recent
	present  []bool    // scratch: features that a call has
	waves    []float64 // scratch: what a wide row is embedded to
	digits   [20]byte  // scratch: a class
	rates    watch
	seen     []bool    // features that any call has had, at any gateway
	findings []Finding // of the last whole window
	last     Span
	rateAt   map[rateKey]int64 // slot of the last alarm

	nextWrite time.Time // when a call may be written down again
}

type rateKey struct {
	feature int
	kind    RateKind
}

// Span is a stretch of time whose samples were counted together.
type Span struct {
	From, To time.Time
	Samples  uint64
}

func newVersion(m *Monitor, key Key) *Version {
	v := &Version{key: key, mon: m, waves: make([]float64, stat.FourierFeatures)}
	v.gate.threshold.Store(^uint64(0))
	return v
}

// configure takes over settings. Cells and counts are kept unless time is cut anew.
func (v *Version) configure(s Settings, data string, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fresh, renamed := v.observer == nil, false
	if fresh {
		v.gate.adjust(s.PerSecond, 1)
	}
	if fresh || !maps.EqualFunc(v.settings.Columns, s.Columns, slices.Equal[[]string]) {
		v.observer, renamed = newObserver(s.Columns), true
		clear(v.seen)
	}
	if renamed || v.settings.Learn != s.Learn {
		v.learner = newLearner(s.Learn)
	}
	recut := fresh || v.settings.Policy != s.Policy
	v.settings, v.data = s, data
	if recut {
		v.restart(now)
	}
}

// period is the length of a slot.
func (v *Version) period() time.Duration { return v.settings.Policy.Window / slots }

// slotAt is the number of the slot at a time.
func (v *Version) slotAt(t time.Time) int64 { return t.UnixNano() / int64(v.period()) }

// restart begins to count anew. v.mu is held.
func (v *Version) restart(now time.Time) {
	v.number = v.slotAt(now)
	v.began, v.current = v.number, v.number/slots
	v.closed = nil
	v.findings, v.last, v.rateAt = nil, Span{}, make(map[rateKey]int64)
	if v.ref == nil {
		v.open, v.window, v.done, v.recent, v.rates = nil, nil, nil, nil, nil
		return
	}
	v.open, v.window, v.done = newTally(v.ref), newTally(v.ref), newTally(v.ref)
	v.present = make([]bool, len(v.ref.features))
	v.recent = make([]recent, len(v.ref.features))
	v.seen = make([]bool, len(v.ref.features))
	v.rates = newWatch(v.ref, v.settings.Policy.ExpectedRun.Seconds()/v.period().Seconds())
}

// setReference compares with another reference from now on; nil with none.
func (v *Version) setReference(r *reference, stored []byte, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stored = xxhash.Sum64(stored)
	if r != nil && v.ref != nil && r.print == v.ref.print {
		v.ref = r // it may have been calibrated meanwhile
		return
	}
	if r == nil && v.ref == nil {
		return
	}
	v.ref = r
	v.learner = newLearner(v.settings.Learn)
	v.restart(now)
}

// Wants reports whether to offer a copy of a call. It never blocks. A nil version wants nothing.
func (v *Version) Wants(id uint64) bool { return v != nil && v.gate.wants(id) }

// Offer hands a call over to be looked at. It never blocks: if too many wait already, the call is released and
// counted as dropped.
func (v *Version) Offer(id uint64, s Sample) { v.mon.offer(job{v, id, s}) }

// count adds the values of one call. What it reads was written by strangers: if that leads to a mistake in here, the sample is lost
// and not the gateway.
func (v *Version) count(id uint64, s Sample) {
	defer func() {
		if wrong := recover(); wrong != nil {
			v.unreadable.Add(1)
			v.mon.failed.Do(func() {
				v.mon.cfg.Logger.Error("drift: a sample could not be counted; this is a mistake of Sluice, and is logged once",
					"model", v.key.Model, "version", v.key.Version, "error", wrong, "stack", string(debug.Stack()))
			})
		}
	}()
	inputs, outputs, err := s.Tensors()
	if err != nil {
		v.unreadable.Add(1)
		return
	}
	v.write(inputs, outputs)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance(time.Now())
	v.sampled.Add(1)
	values := v.observer.look(inputs, outputs, v.ref, mix(id))
	if v.learner.learn(values) {
		v.mon.learnt(v.key)
	}
	if v.ref == nil {
		return
	}
	v.tally(values)
}

// mix draws anew from an id: those of the calls that are sampled are the lowest, and no longer random.
func mix(id uint64) uint64 {
	hi, lo := bits.Mul64(id^0x9e3779b97f4a7c15, 0xd1342543de82ef95)
	return hi ^ lo
}

// write has a call written down if its version says so.
func (v *Version) write(inputs, outputs []tensor.Tensor) {
	v.mu.Lock()
	set, now := v.settings.Payloads, time.Now()
	due := set != nil && v.mon.cfg.Payloads != nil && !now.Before(v.nextWrite)
	if due {
		v.nextWrite = now.Add(time.Duration(float64(time.Second) / set.PerSecond))
	}
	v.mu.Unlock()
	if due {
		v.mon.cfg.Payloads.Offer(v.key.Model, v.key.Version, *set, inputs, outputs)
	}
}

// tally counts values in the open slot. v.mu is held.
func (v *Version) tally(values []value) {
	v.open.samples++
	clear(v.present)
	for _, val := range values {
		i := val.at
		if i < 0 || v.present[i] {
			continue
		}
		v.present[i] = true
		f, c := v.ref.features[i], &v.open.features[i]
		switch {
		case val.wide != nil && f.holds(val.wide):
			c.row(f, val.wide, v.waves)
		case val.wide == nil && val.text == nil && f.isNumber():
			c.number(f, val.number)
		case f.names != nil && len(val.text) > 0:
			c.cells[f.category(val.text)]++
		case f.names != nil && val.class && !math.IsNaN(val.number):
			c.cells[f.category(strconv.AppendInt(v.digits[:0], int64(val.number), 10))]++
		default:
			c.nan++ // no value, or a string where the reference has numbers, or the other way
		}
	}
	for i, there := range v.present {
		if !there {
			v.open.features[i].absent++
		}
	}
}

// roll returns the slots that are over and have not been returned before.
func (v *Version) roll(now time.Time) []closedSlot {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance(now)
	closed := v.closed
	v.closed = nil
	return closed
}

// advance closes the open slot if it is over. v.mu is held.
func (v *Version) advance(now time.Time) {
	at := v.slotAt(now)
	if at <= v.number {
		return
	}
	if v.ref != nil {
		v.closed = append(v.closed, closedSlot{version: v, ref: v.ref, number: v.number, period: v.period(), tally: v.open})
		v.open = newTally(v.ref)
	}
	v.number = at
}

// closedSlot is what one gateway has counted of a version in a slot that is over.
type closedSlot struct {
	version *Version
	ref     *reference
	number  int64
	period  time.Duration
	tally   *tally
}

// fold adds a slot that all gateways have told of, in the order of slots, and judges the window if that was its
// last. What is to be told to others is returned.
func (v *Version) fold(c closedSlot) (alarms []Alarm) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ref == nil || c.ref.print != v.ref.print || c.period != v.period() {
		return nil // counted anew since
	}
	if window := c.number / slots; window != v.current {
		alarms = v.judge() // its last slot has never come: this gateway was asleep
		v.current = window
	}
	v.window.add(c.tally)
	v.rates.next(v.ref, c.tally, v.seen, func(i int, r Rate) {
		key := rateKey{i, r.Kind}
		last, again := v.rateAt[key]
		v.rateAt[key] = c.number
		if again && c.number-last < slots {
			return // it goes on, and has been told
		}
		alarms = append(alarms, v.ofRate(i, r, v.span(c.number, c.number+1, c.tally.samples)))
	})
	if c.number%slots == slots-1 {
		alarms = append(alarms, v.judge()...)
		v.current++
	}
	return alarms
}

// judge ends the window under way. v.mu is held.
func (v *Version) judge() (alarms []Alarm) {
	if v.window.samples == 0 && v.findings == nil {
		return nil // it has never been called
	}
	v.last = v.span(max(v.began, v.current*slots), (v.current+1)*slots, v.window.samples)
	v.findings = judge(v.ref, v.window, v.settings.Policy)
	for i := range v.findings {
		f := &v.findings[i]
		was := v.recent[i].drifted
		if f.State = v.recent[i].next(f.State); f.State == Drift && !was {
			alarms = append(alarms, v.ofDrift(*f))
		}
	}
	v.window, v.done = v.done, v.window
	v.window.reset()
	return alarms
}

func (v *Version) span(from, to int64, samples uint64) Span {
	at := func(slot int64) time.Time { return time.Unix(0, slot*int64(v.period())) }
	return Span{From: at(from), To: at(to), Samples: samples}
}

// learnt returns the features that could be learnt and are not known, those that are known and of use, how it was learnt, and
// from which data; none while there are too few samples.
func (v *Version) learnt(known *driftv1.Reference) (features, keep []*driftv1.Feature, source, data string) {
	v.mu.Lock()
	l, data, enough := v.learner, v.data, v.learner.rows >= v.learner.want
	v.mu.Unlock()
	if !enough {
		return nil, nil, "", ""
	}
	keep = slices.DeleteFunc(slices.Clone(known.GetFeatures()), l.stale)
	return l.features(known), keep, fmt.Sprintf("first %d samples", l.want), data
}

// isFrom reports whether the version's reference is what a store holds.
func (v *Version) isFrom(stored []byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stored == xxhash.Sum64(stored)
}

// snapshot returns a copy of the open slot; false if nothing has been counted.
func (v *Version) snapshot() (closedSlot, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open == nil || v.open.samples == 0 {
		return closedSlot{}, false
	}
	t := newTally(v.ref)
	t.add(v.open)
	return closedSlot{version: v, ref: v.ref, number: v.number, period: v.period(), tally: t}, true
}

// adjust keeps the gate to the rate that is set.
func (v *Version) adjust(seconds float64) {
	v.mu.Lock()
	rate := v.settings.PerSecond
	v.mu.Unlock()
	v.gate.adjust(rate, seconds)
}
