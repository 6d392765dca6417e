package gateway

import (
	"container/heap"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/breaker"
	"sluice/gateway/relay"
)

// bareRelay is a relay that serves nobody: enough for endpoints to exist.
func bareRelay(t interface{ Cleanup(func()) }) *relay.Relay {
	r := relay.New(relay.Config{}, &director{})
	t.Cleanup(r.Close)
	return r
}

// guard is a version's breaker with nothing behind it.
func guard() *breaker.Version {
	return breaker.NewGroup().Update("fraud v7", breaker.VersionSettings{}, epoch)
}

// groupOf makes a group of n endpoints that nobody is asked to reach.
func groupOf(r *relay.Relay, n int) *group {
	g := newGroup(guard(), func(addr, _ string) *relay.Upstream {
		return r.NewUpstream(relay.UpstreamConfig{Addr: addr})
	}, nil)
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("192.0.2.1:%d", i+1))
	}
	g.configure(addrs)
	return g
}

// server of a simulation: what becomes of a call.
type simulated struct {
	latency time.Duration
	fails   bool
}

// departure is a call that ends.
type departure struct {
	at time.Time
	e  *endpoint
	s  simulated
}

type departures []departure

func (d departures) Len() int           { return len(d) }
func (d departures) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d departures) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *departures) Push(x any)        { *d = append(*d, x.(departure)) }
func (d *departures) Pop() any {
	old := *d
	x := old[len(old)-1]
	*d = old[:len(old)-1]
	return x
}

// simulate sends n calls through g, one every gap, and returns how many each
// server got and how many it had at once at most.
func simulate(g *group, servers []simulated, n int, gap time.Duration) (got, atOnce []int) {
	return simulateFrom(g, servers, epoch, n, gap)
}

// simulateFrom is simulate from another time than epoch.
func simulateFrom(g *group, servers []simulated, now time.Time, n int, gap time.Duration) (got, atOnce []int) {
	got, atOnce = make([]int, len(servers)), make([]int, len(servers))
	index := map[*endpoint]int{}
	for i, e := range *g.list.Load() {
		index[e] = i
	}
	var running departures
	for range n {
		now = now.Add(gap)
		for len(running) > 0 && !running[0].at.After(now) {
			end := heap.Pop(&running).(departure)
			end.e.inFlight.Add(-1)
			if end.s.fails {
				end.e.latency.failed(end.at, end.s.latency)
			} else {
				end.e.latency.answered(end.at, end.s.latency)
			}
		}
		e, _ := g.pick(now, nil)
		i := index[e]
		got[i]++
		atOnce[i] = max(atOnce[i], int(e.inFlight.Add(1)))
		heap.Push(&running, departure{now.Add(servers[i].latency), e, servers[i]})
	}
	for _, end := range running {
		end.e.inFlight.Add(-1)
	}
	return got, atOnce
}

// Of two endpoints, the one with the lower load is picked, always.
func TestPickTakesTheLessLoadedOfTwo(t *testing.T) {
	r := bareRelay(t)
	rapid.Check(t, func(t *rapid.T) {
		g := groupOf(r, 2)
		defer g.close()
		list := *g.list.Load()
		for _, e := range list {
			if rapid.Bool().Draw(t, "known") {
				e.latency.answered(epoch, time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "latency")))
			}
			e.inFlight.Store(rapid.Int64Range(0, 100).Draw(t, "in flight"))
		}
		got, _ := g.pick(epoch, nil)
		for _, e := range list {
			if e.load(epoch) < got.load(epoch) {
				t.Fatalf("picked a load of %v beside one of %v", got.load(epoch), e.load(epoch))
			}
		}
	})
}

// Faster endpoints get more calls, and of equal ones none is forgotten.
func TestCallsGoWhereTheyAreAnsweredSooner(t *testing.T) {
	r := bareRelay(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "endpoints")
		slow := rapid.IntRange(0, n-1).Draw(t, "the slow one")
		gap := time.Duration(rapid.IntRange(1, 20).Draw(t, "gap in ms")) * ms
		servers := make([]simulated, n)
		for i := range servers {
			servers[i].latency = 10 * ms
		}
		servers[slow].latency = 200 * ms
		g := groupOf(r, n)
		defer g.close()
		got, _ := simulate(g, servers, 2000, gap)
		for i := range servers {
			switch {
			case i == slow && got[i] > 2000/n/2:
				t.Fatalf("got %v calls, number %d being 20 times slower", got, slow)
			case i != slow && got[i] < 2000/n/3:
				t.Fatalf("got %v calls, number %d being neglected", got, i)
			}
		}
	})
}

// An endpoint that fails at once does not attract calls by its speed.
func TestFailingEndpointGetsFewCalls(t *testing.T) {
	r := bareRelay(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "endpoints")
		servers := make([]simulated, n)
		for i := range servers {
			servers[i].latency = 10 * ms
		}
		servers[0] = simulated{latency: ms / 10, fails: true}
		g := groupOf(r, n)
		defer g.close()
		got, _ := simulate(g, servers, 5000, ms) // 5 s
		if got[0] > 100 {
			t.Fatalf("got %v calls, the first endpoint failing them all", got)
		}
	})
}

// A new endpoint is tried soon, though the others are known to be fast, and not by
// everybody: if it hangs, few calls hang with it.
func TestNewEndpointIsTriedByFew(t *testing.T) {
	r := bareRelay(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "known endpoints")
		gap := time.Duration(rapid.IntRange(1, 20).Draw(t, "gap in ms")) * ms
		g := groupOf(r, n+1)
		defer g.close()
		servers := make([]simulated, n+1)
		for i, e := range (*g.list.Load())[:n] {
			servers[i].latency = 5 * ms
			e.latency.answered(epoch, 5*ms)
		}
		servers[n].latency = time.Hour // hangs
		got, atOnce := simulate(g, servers, 500, gap)
		if got[n] == 0 || atOnce[n] > 3 {
			t.Fatalf("got %v calls, at most %v at once, the last endpoint being new and hung", got, atOnce)
		}
	})
}

// With calls one after the other, never two at once, nobody is left out for good.
func TestQuietTrafficReachesEveryEndpoint(t *testing.T) {
	r := bareRelay(t)
	for n := 2; n < 6; n++ {
		g := groupOf(r, n)
		servers := make([]simulated, n)
		for i := range servers {
			servers[i].latency = 5 * ms
		}
		got, _ := simulate(g, servers, 100, time.Second)
		for i := range got {
			if got[i] == 0 {
				t.Errorf("%d endpoints: got %v calls", n, got)
			}
		}
		g.close()
	}
}

func TestPickAvoidsTheOneThatHasJustFailed(t *testing.T) {
	r := bareRelay(t)
	for n := 1; n < 5; n++ {
		g := groupOf(r, n)
		avoid := (*g.list.Load())[0]
		for range 50 {
			if got, _ := g.pick(epoch, avoid); (got == avoid) != (n == 1) {
				t.Fatalf("%d endpoints: got the one to avoid: %v", n, got == avoid)
			}
		}
		if got := g.hasOther(epoch, avoid); got != (n > 1) {
			t.Errorf("%d endpoints: hasOther: got %v", n, got)
		}
		g.close()
		if got, _ := g.pick(epoch, nil); got != nil || !g.closed() {
			t.Errorf("closed: picked %v", got)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	r := bareRelay(b)
	for _, n := range []int{1, 2, 8, 100} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			g := groupOf(r, n)
			defer g.close()
			now := time.Now()
			for i, e := range *g.list.Load() {
				e.latency.answered(now, time.Duration(i+1)*ms)
			}
			b.ReportAllocs()
			for b.Loop() {
				g.pick(now, nil)
			}
		})
	}
}

// An operator's word holds where a breaker's own judgment would not.
func TestEndpointsThatOperatorsCutOffAreNeverPicked(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5} {
		g := groupOf(bareRelay(t), n)
		list := *g.list.Load()
		now := epoch
		for _, e := range list[1:] { // most have opened by themselves: panic
			for range 100 {
				if p, err := e.breaker.Allow(now); err == nil {
					p.Done(breaker.Result{Outcome: breaker.Failure, At: now})
				}
			}
		}
		list[0].breaker.ForceOpen(now)
		for range 200 {
			if e, _ := g.pick(now, nil); e == list[0] {
				t.Fatalf("of %d endpoints, the one that is cut off was picked", n)
			}
			if e, _ := g.pick(now, list[n-1]); e == list[0] {
				t.Fatalf("of %d endpoints, the one that is cut off was picked to avoid another", n)
			}
		}
		if g.hasOther(epoch, list[n-1]) != (n > 2) {
			t.Errorf("of %d endpoints, hasOther counts the one that is cut off", n)
		}
		for _, e := range list {
			e.breaker.ForceOpen(now)
		}
		if e, _ := g.pick(now, nil); e != nil {
			t.Errorf("of %d endpoints, all cut off, one was picked", n)
		}
	}
}
