package breaker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Everything at once: calls with random results at versions and endpoints, some begun long before they
// end; settings that change; operators; readers. At the end nothing is in flight and everything heals.
func TestStress(t *testing.T) {
	const workers, enough, rounds = 8, 3000, 20_000
	g := NewGroup()
	now := time.Now()
	settings := func(n int) VersionSettings {
		return VersionSettings{
			Settings: Settings{
				Consecutive: uint32(2 + n%4), MinCalls: uint32(4 + n%8), OpenFor: time.Duration(1+n%3) * time.Millisecond,
				MaxOpenFor: 5 * time.Millisecond, SlowCall: time.Second, DryRun: n%11 == 0,
			},
			Limits: Limits{InFlight: 4 + n%8, Reserve: n % 3, Adaptive: n%2 == 0},
		}
	}
	var versions [3]*Version
	for i := range versions {
		versions[i] = g.Update(fmt.Sprint("m v", i), settings(i), now)
	}
	budget := g.Budget("m", now)

	sub := g.Events().Subscribe(16) // nobody reads: most are dropped
	var admitted, refused atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			type both struct{ version, endpoint Permit }
			var open []both
			settle := func(i int) {
				b := &open[i]
				r := Result{Outcome: Success, At: time.Now(), Latency: time.Millisecond}
				if rand.IntN(3) == 0 {
					r.Outcome = Outcome(rand.IntN(int(Failure) + 1))
				}
				if rand.IntN(10) == 0 {
					b.version.Answering(time.Now())
				}
				b.endpoint.Done(r)
				b.version.Done(r)
				open[i] = open[len(open)-1]
				open = open[:len(open)-1]
			}
			for n := 0; n < rounds && admitted.Load() < enough; n++ {
				v := versions[rand.IntN(len(versions))]
				now := time.Now()
				switch rand.IntN(200) {
				case 0:
					v.Breaker().ForceOpen(now)
				case 1, 2, 3, 4:
					v.Reset(now)
				case 5, 6:
					g.Update(v.breaker.name.Version, settings(n), now)
				case 7, 8:
					g.Status(now)
				}
				if len(open) > 3 {
					settle(rand.IntN(len(open)))
				}
				budget.Call(now)
				p, err := v.Allow(now, Priority(rand.IntN(3)))
				if err != nil {
					refused.Add(1)
					time.Sleep(10 * time.Microsecond) // let open times pass
					continue
				}
				q, err := v.Endpoint(fmt.Sprint("e", rand.IntN(2)), now).Allow(now)
				if err != nil || (rand.IntN(3) == 0 && !budget.Take(now)) {
					q.Done(Result{Outcome: Excluded, At: now})
					p.Done(Result{Outcome: Excluded, At: now})
					continue
				}
				admitted.Add(1)
				open = append(open, both{p, q})
			}
			for len(open) > 0 {
				settle(0)
			}
		})
	}
	wg.Wait()
	sub.Close()
	if admitted.Load() < enough || refused.Load() == 0 || sub.Dropped() == 0 {
		t.Errorf("%d admitted, %d refused, %d events dropped: too little was tried", admitted.Load(), refused.Load(), sub.Dropped())
	}

	for _, s := range g.Status(time.Now()) {
		if s.InFlight != 0 || s.Repeated != 0 {
			t.Errorf("%v: %d in flight, %d settled twice", s.Name, s.InFlight, s.Repeated)
		}
	}
	for i, v := range versions {
		if a := v.limit.adaptive.Load(); a != nil && a.limiter.Inflight() != 0 {
			t.Errorf("%d in the adaptive limit of version %d", a.limiter.Inflight(), i)
		}
		if condition(v.Breaker().condition.Load()).forced() {
			v.Reset(time.Now())
		}
		heal(t, v.Breaker())
		for e := range 2 {
			heal(t, v.Endpoint(fmt.Sprint("e", e), time.Now()))
		}
	}
}

// heal makes good calls until the breaker is closed.
func heal(t *testing.T, b *Breaker) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p, err := b.Allow(time.Now())
		p.Done(Result{Outcome: Success, At: time.Now()})
		if err == nil && b.Status(time.Now()).State == Closed {
			return
		}
	}
	s := b.Status(time.Now())
	t.Errorf("%v is still %v (%v) after 5 s of good calls", b.name, s.State, s.Cause)
}

// Thousands that ask at the moment a probe is due: one gets it.
func TestOneProbeAmongMany(t *testing.T) {
	b := newTestBreaker(Settings{OpenFor: time.Millisecond, MaxOpenFor: time.Hour})
	for round := range 20 {
		for call(b, Failure) == nil {
		}
		time.Sleep(time.Until(b.Status(time.Now()).OpenUntil))
		var admitted atomic.Int64
		var winner Permit
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 20 {
					if p, err := b.Allow(time.Now()); err == nil {
						admitted.Add(1)
						winner = p
					}
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n != 1 {
			t.Fatalf("round %d: %d probes at once", round, n)
		}
		winner.Done(Result{Outcome: Success, At: time.Now()})
	}
}
