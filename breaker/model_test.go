package breaker

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// model is a breaker written for nothing but to be obviously right: it keeps every result.
type model struct {
	s       Settings
	start   time.Time
	state   State
	forced  bool
	results []modelResult // since it was last closed
	until   time.Time     // end of the open time, or of the probe's time
	open    time.Duration // the last open time
	probe   int           // the permit that is the probe, 0 for none
	epoch   int           // counts changes of the state
	told    int           // probes in a row that told nothing
}

type modelResult struct {
	at time.Time
	o  Outcome
}

// allow returns whether a permit is given, and whether it is a probe.
func (m *model) allow(now time.Time, id int) (admitted, isProbe bool) {
	switch {
	case m.state == Closed:
		return true, false
	case m.forced || now.Before(m.until):
		return false, false
	}
	if m.state == Open {
		m.epoch++
		m.told = 0
	}
	m.state, m.probe, m.until = HalfOpen, id, now.Add(m.s.MaxOpenFor)
	return true, true
}

func (m *model) done(now time.Time, id, epoch int, isProbe bool, o Outcome) {
	switch {
	case epoch != m.epoch || o == Excluded && !isProbe || isProbe && id != m.probe:
	case !isProbe:
		m.results = append(m.results, modelResult{now, o})
		if o != Success && m.limitReached(now) {
			m.reopen(now, m.s.OpenFor)
		}
	case o == Excluded:
		m.probe, m.until = 0, now
		if m.told++; m.told == 3 {
			m.told, m.until = 0, now.Add(m.open)
		}
	case o == Success:
		m.close()
	default:
		m.reopen(now, min(2*m.open, m.s.MaxOpenFor))
	}
}

func (m *model) close() {
	m.state, m.forced, m.results, m.probe = Closed, false, nil, 0
	m.epoch++
}

func (m *model) reopen(now time.Time, d time.Duration) {
	m.state, m.open, m.until, m.probe = Open, d, now.Add(d), 0
	m.epoch++
}

func (m *model) force() {
	if !m.forced {
		m.state, m.forced, m.probe = Open, true, 0
		m.epoch++
	}
}

// counts counts the results anew.
func (m *model) counts(now time.Time) (c Counts) {
	newest := now.Sub(m.start) / bucketLength
	for _, r := range m.results {
		switch r.o {
		case Success, Slow:
			c.Consecutive = 0
		case Failure:
			c.Consecutive++
		case Overloaded, Excluded:
		}
		if r.at.Sub(m.start)/bucketLength <= newest-windowBuckets {
			continue
		}
		c.Calls++
		switch r.o {
		case Failure:
			c.Failures++
		case Overloaded:
			c.Overloaded++
		case Slow:
			c.Slow++
		case Success, Excluded:
		}
	}
	return c
}

func (m *model) limitReached(now time.Time) bool {
	c := m.counts(now)
	calls, bad, slow := float64(c.Calls), float64(c.Failures+c.Overloaded), float64(c.Slow)
	return c.Consecutive >= m.s.Consecutive || c.Calls >= m.s.MinCalls &&
		(bad >= m.s.FailureRatio*calls || m.s.SlowCall > 0 && slow >= m.s.SlowRatio*calls)
}

// untimed is a test without a deadline: rapid would ask for it, which is forbidden inside a bubble.
type untimed struct{ *testing.T }

type heldPermit struct {
	permit  Permit
	epoch   int
	isProbe bool
}

// Random sequences of everything that can be done to a breaker agree with the model after each step.
func TestBreakerAgreesWithModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(untimed{t}, func(t *rapid.T) {
			s := Settings{
				FailureRatio: rapid.SampledFrom([]float64{0.2, 0.5, 1}).Draw(t, "failure_ratio"),
				MinCalls:     rapid.Uint32Range(1, 12).Draw(t, "min_calls"),
				Consecutive:  rapid.Uint32Range(1, 12).Draw(t, "consecutive"),
				OpenFor:      rapid.SampledFrom([]time.Duration{time.Millisecond, 3 * time.Second}).Draw(t, "open_for"),
				MaxOpenFor:   rapid.SampledFrom([]time.Duration{0, 5 * time.Second, time.Minute}).Draw(t, "max_open_for"),
				SlowCall:     rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "slow_call"),
			}
			b := newTestBreaker(s)
			m := &model{s: s.withDefaults(), start: b.start}
			held := make(map[int]*heldPermit)
			next := 0
			t.Repeat(map[string]func(*rapid.T){
				"wait": func(t *rapid.T) {
					d := rapid.SampledFrom([]time.Duration{1, time.Millisecond, 700 * time.Millisecond, 3 * time.Second,
						6 * time.Second, 11 * time.Second, time.Minute}).Draw(t, "d")
					time.Sleep(d)
				},
				"allow": func(t *rapid.T) {
					next++
					ready := b.Ready(time.Now())
					p, err := b.Allow(time.Now())
					admitted, isProbe := m.allow(time.Now(), next)
					if (err == nil) != admitted || ready != admitted {
						t.Fatalf("Ready: %v, Allow: %v, the model admits: %v", ready, err, admitted)
					}
					if admitted {
						held[next] = &heldPermit{p, m.epoch, isProbe}
					}
				},
				"done": func(t *rapid.T) {
					if len(held) == 0 {
						t.Skip("nothing held")
					}
					id := rapid.IntRange(1, next).Filter(func(id int) bool { return held[id] != nil }).Draw(t, "id")
					o := rapid.SampledFrom([]Outcome{Excluded, Success, Slow, Overloaded, Failure, Failure}).Draw(t, "outcome")
					h := held[id]
					delete(held, id)
					h.permit.Done(Result{Outcome: o, At: time.Now()})
					m.done(time.Now(), id, h.epoch, h.isProbe, o)
				},
				"call": func(t *rapid.T) {
					o := rapid.SampledFrom([]Outcome{Success, Slow, Overloaded, Failure}).Draw(t, "outcome")
					for range rapid.IntRange(1, 8).Draw(t, "n") {
						next++
						err := call(b, o)
						admitted, isProbe := m.allow(time.Now(), next)
						if (err == nil) != admitted {
							t.Fatalf("Allow: %v, the model admits: %v", err, admitted)
						}
						if admitted {
							m.done(time.Now(), next, m.epoch, isProbe, o)
						}
					}
				},
				"force": func(t *rapid.T) {
					if rapid.IntRange(0, 4).Draw(t, "luck") == 0 {
						b.ForceOpen(time.Now())
						m.force()
					}
				},
				"reset": func(t *rapid.T) {
					if rapid.IntRange(0, 4).Draw(t, "luck") == 0 {
						b.Reset(time.Now())
						m.close()
					}
				},
				"": func(t *rapid.T) {
					got := b.Status(time.Now())
					if got.State != m.state || got.Forced != m.forced {
						t.Fatalf("%v (%v, forced %v), the model is %v (forced %v)", got.State, got.Cause, got.Forced, m.state, m.forced)
					}
					if want := m.counts(time.Now()); got.State == Closed && got.Counts != want {
						t.Fatalf("it has counted %+v, the model %+v", got.Counts, want)
					}
				},
			})
			// Whatever happened: it heals.
			b.Reset(time.Now())
			if err := call(b, Success); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// However calls and probes end, and whether they end at all, a breaker whose server is well again is
// closed after the longest open time and the first good answer.
func TestBreakerAlwaysHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(untimed{t}, func(t *rapid.T) {
			b := newTestBreaker(Settings{Consecutive: 1}) // so that it is open most of the time
			for range rapid.IntRange(0, 30).Draw(t, "steps") {
				time.Sleep(rapid.SampledFrom([]time.Duration{0, time.Second, 5 * time.Second, time.Minute}).Draw(t, "wait"))
				p, err := b.Allow(time.Now())
				if err == nil && rapid.Bool().Draw(t, "settled") {
					p.Done(Result{Outcome: Outcome(rapid.IntRange(0, int(Failure)).Draw(t, "outcome")), At: time.Now()})
				}
				if err != nil && !errors.Is(err, ErrOpen) {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			if err := call(b, Success); err != nil {
				t.Fatalf("after the longest open time: %v", err)
			}
			if s := b.Status(time.Now()); s.State != Closed {
				t.Fatalf("%v (%v) after a good probe", s.State, s.Cause)
			}
		})
	})
}
