package breaker

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newTestVersion(s VersionSettings) *Version {
	return NewGroup().Update("fraud v8", s, time.Now())
}

// fill takes places until there are no more and returns the permits and the refusal.
func fillUp(v *Version, p Priority) (held []Permit, err error) {
	for {
		permit, err := v.Allow(time.Now(), p)
		if err != nil {
			return held, err
		}
		held = append(held, permit)
	}
}

func settleAll(held []Permit, o Outcome) {
	for i := range held {
		held[i].Done(Result{Outcome: o, At: time.Now()})
	}
}

func TestLimitRefusesAtOnce(t *testing.T) {
	v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 3}})
	held, err := fillUp(v, Normal)
	if len(held) != 3 || err != ErrFull { //nolint:errorlint // errors come as they stand
		t.Fatalf("%d admitted, then %v; want 3, then ErrFull", len(held), err)
	}
	held[1].Done(Result{})
	held[1].Done(Result{}) // gives nothing back
	if again, _ := fillUp(v, Normal); len(again) != 1 {
		t.Errorf("%d admitted for one place given back", len(again))
	}
}

func TestLimitDefault(t *testing.T) {
	v := newTestVersion(VersionSettings{})
	if held, _ := fillUp(v, Normal); len(held) != 1024 {
		t.Errorf("%d admitted, want 1024", len(held))
	}
}

func TestPrioritiesShareALimit(t *testing.T) {
	v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 100, Reserve: 20}})
	for _, c := range []struct {
		p    Priority
		upTo int
		err  error
	}{{Sheddable, 60, ErrShed}, {Normal, 80, ErrShed}, {Critical, 100, ErrFull}} {
		_, err := fillUp(v, c.p)
		if v.InFlight() != c.upTo || !errors.Is(err, c.err) || !errors.Is(err, ErrFull) {
			t.Errorf("%v: up to %d, then %v; want %d, then %v", c.p, v.InFlight(), err, c.upTo, c.err)
		}
	}
	if s := v.Status(time.Now()); s.Full != 1 || s.Shed != 2 || s.Limit != 100 {
		t.Errorf("full %d, shed %d, limit %d; want 1, 2, 100", s.Full, s.Shed, s.Limit)
	}
}

func TestEveryPriorityFitsIntoASmallLimit(t *testing.T) {
	for _, p := range []Priority{Normal, Critical, Sheddable} {
		v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 1, Reserve: 5}})
		if held, _ := fillUp(v, p); len(held) != 1 {
			t.Errorf("%v: %d admitted, want 1", p, len(held))
		}
	}
}

func TestParsePriority(t *testing.T) {
	for i, name := range priorityNames {
		if p, err := ParsePriority(name); err != nil || p != Priority(i) || p.String() != name {
			t.Errorf("ParsePriority(%q) = %v, %v", name, p, err)
		}
	}
	if p, err := ParsePriority(""); err != nil || p != Normal {
		t.Errorf(`ParsePriority("") = %v, %v`, p, err)
	}
	const want = `priority: got "urgent", want one of normal, critical, sheddable`
	if _, err := ParsePriority("urgent"); err == nil || err.Error() != want {
		t.Errorf("ParsePriority: %v, want %s", err, want)
	}
}

func TestLimitChangesUnderCalls(t *testing.T) {
	g := NewGroup()
	v := g.Update("fraud v8", VersionSettings{Limits: Limits{InFlight: 10}}, time.Now())
	held, _ := fillUp(v, Normal)
	g.Update("fraud v8", VersionSettings{Limits: Limits{InFlight: 5}}, time.Now())
	settleAll(held[:5], Success)
	if again, _ := fillUp(v, Normal); len(again) != 0 {
		t.Errorf("%d admitted while the new limit is reached", len(again))
	}
	settleAll(held[5:], Success)
	if again, _ := fillUp(v, Normal); len(again) != 5 {
		t.Errorf("%d admitted, want 5", len(again))
	}
}

// A refusal by one part must not keep what another part has given.
func TestRefusalsHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 1}})
		for range 5 {
			p, err := v.Allow(time.Now(), Normal)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(Result{Outcome: Failure, At: time.Now()})
		}
		if _, err := v.Allow(time.Now(), Normal); !errors.Is(err, ErrOpen) || v.InFlight() != 0 {
			t.Fatalf("open: %v, %d in flight", err, v.InFlight())
		}
		time.Sleep(6 * time.Second) // whatever the stretch
		p, err := v.Allow(time.Now(), Normal)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Allow(time.Now(), Normal); !errors.Is(err, ErrProbing) || v.InFlight() != 1 {
			t.Fatalf("half-open: %v, %d in flight", err, v.InFlight())
		}
		p.Done(Result{Outcome: Excluded, At: time.Now()})
		// Full and half-open without a probe: the limit's refusal must not use the probe up.
		v.limit.inFlight.Add(1)
		if _, err := v.Allow(time.Now(), Normal); !errors.Is(err, ErrFull) {
			t.Fatalf("full: %v", err)
		}
		v.limit.inFlight.Add(-1)
		p, err = v.Allow(time.Now(), Normal)
		if err != nil {
			t.Fatalf("the limit's refusal has used the probe up: %v", err)
		}
		p.Done(Result{Outcome: Success, At: time.Now()})
		if s := v.Status(time.Now()); s.State != Closed || s.InFlight != 0 {
			t.Errorf("%v, %d in flight", s.State, s.InFlight)
		}
	})
}

// A call that takes its place and then finds that its breaker refuses after all gives the place back. A
// clock that runs ahead has that effect, as has a probe that somebody else was faster to take.
func TestRefusalAfterThePlaceWasTaken(t *testing.T) {
	v := newTestVersion(VersionSettings{Limits: Limits{Adaptive: true}})
	for range 5 {
		p, err := v.Allow(time.Now(), Normal)
		if err != nil {
			t.Fatal(err)
		}
		p.Done(Result{Outcome: Failure, At: time.Now()})
	}
	if _, err := v.Allow(time.Now().Add(time.Minute), Normal); !errors.Is(err, ErrOpen) {
		t.Fatalf("a minute ahead of the clock: %v, want ErrOpen", err)
	}
	if v.InFlight() != 0 || v.limit.adaptive.Load().limiter.Inflight() != 0 {
		t.Errorf("%d and %d in flight", v.InFlight(), v.limit.adaptive.Load().limiter.Inflight())
	}
}

func TestLimitHoldsUnderConcurrency(t *testing.T) {
	v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 4}})
	var wg sync.WaitGroup
	var most, now atomic.Int64
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				p, err := v.Allow(time.Now(), Normal)
				if err != nil {
					continue
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				now.Add(-1)
				p.Done(Result{Outcome: Success, At: time.Now()})
			}
		})
	}
	wg.Wait()
	if most.Load() > 4 || v.InFlight() != 0 {
		t.Errorf("%d at once, %d left; want at most 4, and 0", most.Load(), v.InFlight())
	}
}

// Latency that grows with the number of calls is queueing: the adaptive limit comes down. It goes up
// again when the server is fast.
func TestAdaptiveLimitFollowsLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 200, Adaptive: true}})
		// round keeps the limit full for ten seconds, with answers after the latency that the
		// number of calls under way leads to.
		round := func(capacity int) {
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
				held, _ := fillUp(v, Normal)
				time.Sleep(50 * time.Millisecond * time.Duration(max(1, len(held)/capacity)))
				settleAll(held, Success)
			}
		}
		round(1000)
		fast := v.Status(time.Now()).Limit
		if fast <= adaptiveStart {
			t.Fatalf("limit is %d after fast answers, want above %d", fast, adaptiveStart)
		}
		for range 10 {
			round(5)
		}
		if slow := v.Status(time.Now()).Limit; slow >= fast {
			t.Errorf("limit is %d after slow answers, was %d", slow, fast)
		}
		if v.InFlight() != 0 || v.limit.adaptive.Load().limiter.Inflight() != 0 {
			t.Errorf("%d and %d in flight at the end", v.InFlight(), v.limit.adaptive.Load().limiter.Inflight())
		}
	})
}

// Errors are often fast. They say nothing about how much the server can take.
func TestAdaptiveLimitLearnsNothingFromFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestVersion(VersionSettings{
			Settings: Settings{DryRun: true},
			Limits:   Limits{Adaptive: true},
		})
		for range 100 {
			held, _ := fillUp(v, Normal)
			time.Sleep(time.Second)
			settleAll(held, Failure)
		}
		if got := v.Status(time.Now()).Limit; got != adaptiveStart {
			t.Errorf("limit is %d after failures only, want %d as in the beginning", got, adaptiveStart)
		}
	})
}

func TestAdaptiveLimitByPriority(t *testing.T) {
	v := newTestVersion(VersionSettings{Limits: Limits{InFlight: 150, Adaptive: true}})
	var all []Permit
	for _, c := range []struct {
		p    Priority
		upTo int
		err  error
	}{{Sheddable, 75, ErrShed}, {Normal, 100, ErrFull}, {Critical, 150, ErrFull}} {
		held, err := fillUp(v, c.p)
		all = append(all, held...)
		if len(all) != c.upTo || !errors.Is(err, c.err) {
			t.Errorf("%v: up to %d, then %v; want %d, then %v", c.p, len(all), err, c.upTo, c.err)
		}
	}
	settleAll(all[:75], Failure)
	settleAll(all[75:], Success)
	if v.InFlight() != 0 || v.limit.adaptive.Load().limiter.Inflight() != 0 {
		t.Errorf("%d and %d in flight at the end", v.InFlight(), v.limit.adaptive.Load().limiter.Inflight())
	}
}

func TestAdaptiveLimitSwitchedUnderCalls(t *testing.T) {
	g := NewGroup()
	var all []Permit
	for _, s := range []Limits{{Adaptive: true}, {}, {Adaptive: true, InFlight: 300}, {Adaptive: true, InFlight: 400}} {
		v := g.Update("fraud v8", VersionSettings{Limits: s}, time.Now())
		held, _ := fillUp(v, Normal)
		all = append(all, held...)
	}
	settleAll(all, Success)
	v, _ := g.Version("fraud v8")
	if v.InFlight() != 0 || v.limit.adaptive.Load().limiter.Inflight() != 0 {
		t.Errorf("%d and %d in flight at the end", v.InFlight(), v.limit.adaptive.Load().limiter.Inflight())
	}
}
