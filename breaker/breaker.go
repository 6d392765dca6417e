package breaker

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// The reasons for which a breaker refuses. The last two are ErrOpen as well, for errors.Is.
var (
	// ErrOpen: the breaker is open, or half-open with its probe under way.
	ErrOpen = errors.New("breaker: open")
	// ErrProbing: the breaker is half-open and its one probe is under way.
	ErrProbing = fmt.Errorf("%w: half-open, the probe is under way", ErrOpen)
	// ErrForced: an operator has opened the breaker.
	ErrForced = fmt.Errorf("%w: forced open by an operator", ErrOpen)
)

// Breaker cuts one version, or one of its endpoints, off while it fails.
//
// The state machine is gobreaker's. What surrounds it is what it leaves open: a rolling window, open
// times that grow, orders of operators, and a way through the closed state that allocates nothing and
// takes one lock. gobreaker's own way costs a closure per call and two locks under which it reads the
// clock; in the closed state, however, a success cannot change its state, so only results that may open
// the breaker are handed to it, at completion, and it asks the window in ReadyToTrip. Half-open, its
// own closure decides: one probe at a time is worth an allocation.
type Breaker struct {
	name   Name
	start  time.Time // times are kept as durations since then
	events *Events
	// stretch returns a random share of an open time that is added to it, from 0 to 1/5, so that
	// gateways that opened together do not probe together.
	stretch func() float64

	// condition and notBefore are what Allow reads without a lock. Before notBefore, no call is let
	// through unless the state is closed.
	condition atomic.Uint64
	notBefore atomic.Int64
	refused   atomic.Uint64
	repeated  atomic.Uint64

	mu       sync.Mutex // a leaf but for Events.mu
	settings Settings
	machine  *gobreaker.TwoStepCircuitBreaker[struct{}]
	openTime time.Duration // of machine
	reached  State         // of machine, by its callback
	limit    Cause         // the limit that made machine open, by its ReadyToTrip
	probing  func(error)   // settles the probe that is out; nil if none is
	openings int           // open periods since the breaker was last closed
	unjudged int           // probes in a row that told nothing
	window   window
	row      uint32    // failures in a row
	badSince time.Time // the first result that was not good, of those in window and row
	cause    Cause
	since    time.Time
	until    time.Time     // end of the open time
	left     time.Time     // when it left the closed state; zero while it is closed
	away     time.Duration // out of the closed state, as of its last return
	sample   string        // request ID of the last result that was not good
	stale    uint64
}

// Name says whose breaker it is.
type Name struct {
	// Version is the version's key.
	Version string
	// Endpoint is its endpoint's address, empty for the breaker of the version itself.
	Endpoint string
}

// String joins the parts by a space.
func (n Name) String() string {
	if n.Endpoint == "" {
		return n.Version
	}
	return n.Version + " " + n.Endpoint
}

func newBreaker(name Name, s Settings, now time.Time, events *Events) *Breaker {
	b := &Breaker{
		name: name, start: now, events: events,
		stretch:  func() float64 { return rand.Float64() / 5 },
		settings: s.withDefaults(), since: now,
	}
	b.machine = b.newMachine()
	b.publish(Closed, false)
	return b
}

// Allow asks to make an attempt. Errors are [ErrOpen], [ErrProbing] or [ErrForced] as they stand.
func (b *Breaker) Allow(now time.Time) (Permit, error) {
	if c := condition(b.condition.Load()); c.state() == Closed {
		return Permit{breaker: b, generation: c.generation()}, nil
	}
	if p, ok := b.allowUnlessOpen(now); ok {
		return p, nil
	}
	err := b.refuse()
	if c := condition(b.condition.Load()); c.dryRun() && !c.forced() {
		return Permit{breaker: b, role: unjudged}, nil
	}
	return Permit{}, err
}

// refuse counts a refusal and says why.
func (b *Breaker) refuse() error {
	b.refused.Add(1)
	switch c := condition(b.condition.Load()); {
	case c.forced():
		return ErrForced
	case c.state() == HalfOpen:
		return ErrProbing
	}
	return ErrOpen
}

// Bypass is Allow for a caller who has no better choice than to try: the breaker counts and probes as
// usual, but refuses nothing. It is what a version's only endpoint needs, where the version's breaker
// decides, and what is left when too many endpoints are cut off.
func (b *Breaker) Bypass(now time.Time) Permit {
	if p, ok := b.allowUnlessOpen(now); ok {
		return p
	}
	return Permit{breaker: b, role: unjudged}
}

// Ready reports whether Allow would let a call through, without using up a probe: what somebody needs
// to know who chooses among endpoints. Another call may take the probe in between.
func (b *Breaker) Ready(now time.Time) bool {
	c := condition(b.condition.Load())
	return c.state() == Closed || (c.dryRun() && !c.forced()) || b.at(now) >= b.notBefore.Load()
}

// ProbeDue reports whether the breaker is cut off and waits for a call to be its probe.
func (b *Breaker) ProbeDue(now time.Time) bool {
	c := condition(b.condition.Load())
	return c.state() != Closed && !c.dryRun() && b.at(now) >= b.notBefore.Load()
}

// CutsOff reports whether the breaker keeps calls away, but for a probe: it is not closed, and does not only report. It
// costs one load.
func (b *Breaker) CutsOff() bool {
	c := condition(b.condition.Load())
	return c.state() != Closed && (!c.dryRun() || c.forced())
}

// at is a time on the breaker's own scale, in nanoseconds.
func (b *Breaker) at(now time.Time) int64 { return int64(now.Sub(b.start)) }

// allowUnlessOpen gives a permit if the breaker is closed or wants a probe.
func (b *Breaker) allowUnlessOpen(now time.Time) (Permit, bool) {
	c := condition(b.condition.Load())
	if c.state() != Closed && b.at(now) >= b.notBefore.Load() {
		if p, ok := b.takeProbe(now); ok {
			return p, true
		}
		c = condition(b.condition.Load())
	}
	if c.state() == Closed {
		return Permit{breaker: b, generation: c.generation()}, true
	}
	return Permit{}, false
}

// takeProbe asks the machine whether the open time is over, and for the probe.
func (b *Breaker) takeProbe(now time.Time) (Permit, bool) {
	b.mu.Lock()
	p, ok := b.probeIfDue(now)
	b.mu.Unlock()
	b.events.deliver()
	return p, ok
}

// probeIfDue is takeProbe with b.mu held.
func (b *Breaker) probeIfDue(now time.Time) (Permit, bool) {
	c := condition(b.condition.Load())
	if c.state() == Closed || b.at(now) < b.notBefore.Load() {
		return Permit{}, false // somebody was faster
	}
	b.dropProbe() // its lease has run out
	done, err := b.machine.Allow()
	if err != nil {
		return Permit{}, false
	}
	b.probing = done
	if c.state() == Open {
		b.unjudged = 0
		b.enter(HalfOpen, CauseProbeDue, now, "")
	} else {
		b.publish(HalfOpen, false) // a probe of its own generation
	}
	// A call whose result never comes would keep the breaker half-open for good. It is given as long
	// as the version may be cut off without a trial anyway.
	b.notBefore.Store(b.at(now) + int64(b.settings.MaxOpenFor))
	return Permit{breaker: b, generation: b.generation(), role: probe}, true
}

// settle takes the result of an attempt.
func (b *Breaker) settle(p *Permit, r Result) {
	if p.role == unjudged || (p.role == counted && r.Outcome == Excluded) {
		return
	}
	b.mu.Lock()
	moved := false
	switch {
	case p.generation != b.generation():
		b.stale++
	case p.role == probe:
		moved = b.settleProbe(r)
	default:
		moved = b.count(r)
	}
	b.mu.Unlock()
	if moved {
		b.events.deliver()
	}
}

// count adds a result to the closed breaker's window, and reports whether it opened the breaker. b.mu
// is held, as for everything below.
func (b *Breaker) count(r Result) bool {
	b.window.add(r.At.Sub(b.start), r.Outcome)
	if r.Outcome != Success && b.window.total.bad() == 1 && b.row == 0 {
		b.badSince = r.At
	}
	switch r.Outcome {
	case Success:
		b.row = 0
		return false
	case Slow:
		b.row = 0
	case Failure:
		b.row++
	case Overloaded, Excluded:
	}
	b.sample = r.RequestID
	if !b.report() {
		return false
	}
	b.enter(Open, b.limit, r.At, r.RequestID)
	return true
}

// maxUnjudged is how many probes in a row may tell nothing before the next one waits for
// another open time: callers with less patience than the version needs would else all be
// its probes, one after the other.
const maxUnjudged = 3

// settleProbe decides the half-open breaker, and reports whether that changed its state.
func (b *Breaker) settleProbe(r Result) bool {
	if r.Outcome == Excluded {
		b.dropProbe()
		if b.unjudged++; b.unjudged < maxUnjudged {
			b.notBefore.Store(math.MinInt64) // the next call is the probe
		} else {
			b.unjudged = 0
			b.notBefore.Store(deadline(b.at(r.At), b.openTime))
		}
		return false
	}
	done := b.probing
	b.probing = nil
	if r.Outcome == Success {
		done(nil)
	} else {
		b.sample = r.RequestID
		done(errBad)
	}
	if b.reached == Closed {
		b.openings = 0
		b.restart()
		b.enter(Closed, CauseProbeSucceeded, r.At, r.RequestID)
		return true
	}
	// The machine would stay open for the time it was made with. A new one, opened at once, has a
	// longer time.
	b.limit = CauseProbeFailed
	b.machine = b.newMachine()
	b.report()
	b.enter(Open, CauseProbeFailed, r.At, r.RequestID)
	return true
}

// dropProbe ends a probe without a result.
func (b *Breaker) dropProbe() {
	if b.probing != nil {
		b.probing(errExcluded)
		b.probing = nil
	}
}

// restart begins anew, as if nothing were known.
func (b *Breaker) restart() {
	b.window = window{}
	b.row = 0
	b.badSince = time.Time{}
	b.limit = CauseNew
	b.machine = b.newMachine()
}

// enter makes a new state known.
func (b *Breaker) enter(to State, cause Cause, now time.Time, requestID string) {
	from := condition(b.condition.Load())
	forced := cause == CauseForced
	b.cause, b.since = cause, now
	switch {
	case to == Closed:
		b.away, b.left = b.notClosedUntil(now), time.Time{}
	case b.left.IsZero():
		b.left = now
	}
	b.until = time.Time{}
	if to == Open {
		wait := time.Duration(math.MaxInt64)
		if !forced {
			wait = b.openTime
			b.openings++
			b.until = now.Add(wait)
		}
		b.notBefore.Store(deadline(b.at(now), wait))
	}
	b.publish(to, forced)
	b.events.note(Event{
		Name: b.name, At: now, From: from.state(), To: to, Cause: cause, Counts: b.counts(now),
		OpenUntil: b.until, BadSince: b.badSince, RequestID: requestID, DryRun: b.settings.DryRun && !forced,
	})
}

// notClosedUntil is how long it has been out of the closed state in all. b.mu is held.
func (b *Breaker) notClosedUntil(now time.Time) time.Duration {
	if b.left.IsZero() {
		return b.away
	}
	return b.away + max(0, now.Sub(b.left))
}

// deadline adds without overflowing.
func deadline(at int64, wait time.Duration) int64 {
	if int64(wait) > math.MaxInt64-max(at, 0) {
		return math.MaxInt64
	}
	return at + int64(wait)
}

// publish lets Allow see a state, in a new generation: results of permits given out before no longer
// count.
func (b *Breaker) publish(s State, forced bool) {
	b.store(s, forced, b.generation()+1)
}

func (b *Breaker) store(s State, forced bool, generation uint64) {
	c := condition(s) | condition(generation<<generationShift)
	if forced {
		c |= forcedFlag
	}
	if b.settings.DryRun {
		c |= dryRunFlag
	}
	b.condition.Store(uint64(c))
}

func (b *Breaker) generation() uint64 { return condition(b.condition.Load()).generation() }

func (b *Breaker) counts(now time.Time) Counts {
	b.window.advance(now.Sub(b.start))
	t := b.window.total
	return Counts{Calls: t.calls, Failures: t.failures, Overloaded: t.overloaded, Slow: t.slow, Consecutive: b.row}
}
