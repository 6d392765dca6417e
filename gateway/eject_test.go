package gateway

import (
	"math"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"sluice/breaker"
	"sluice/gateway/health"
)

// open makes the breaker of an endpoint open, as failures do.
func (e *endpoint) openBreaker(t interface{ Fatal(...any) }, now time.Time) {
	for range 5 {
		p, err := e.breaker.Allow(now)
		if err != nil {
			t.Fatal(err)
		}
		p.Done(breaker.Result{Outcome: breaker.Failure, At: now})
	}
	if e.breaker.Ready(now) {
		t.Fatal("the breaker did not open")
	}
}

// Whoever is ejected gets nothing, unless they are more than half: then everybody gets
// calls, for the rest would not bear them. What operators cut off is never called.
func TestNeverMoreThanHalfAreEjected(t *testing.T) {
	r := bareRelay(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "endpoints")
		g := groupOf(r, n)
		defer g.close()
		list := *g.list.Load()
		out := make(map[*endpoint]bool) // as the states say
		reachable := 0
		for _, e := range list {
			state := rapid.SampledFrom([]string{"well", "unhealthy", "open", "both", "forced"}).Draw(t, "state")
			switch state {
			case "unhealthy":
				e.unhealthy.Store(true)
			case "open":
				e.openBreaker(t, epoch)
			case "both":
				e.unhealthy.Store(true)
				e.openBreaker(t, epoch)
			case "forced":
				e.breaker.ForceOpen(epoch)
				continue
			}
			reachable++
			if state != "well" {
				out[e] = true
			}
		}
		panicking := 2*len(out) > reachable
		got := make(map[*endpoint]int)
		for range 100 * n {
			e, bypass := g.pick(epoch, nil)
			if reachable == 0 {
				if e != nil {
					t.Fatalf("picked %s, which operators have cut off", e.addr)
				}
				continue
			}
			got[e]++
			if n > 1 && bypass && !panicking || out[e] && !bypass {
				t.Fatalf("%d of %d ejected, picked one of them %v: bypass %v", len(out), reachable, out[e], bypass)
			}
		}
		for _, e := range list {
			called := !e.breaker.Forced() && (panicking || !out[e])
			if called != (got[e] > 0) {
				t.Fatalf("%d of %d ejected: %s, ejected %v, got %d of %d calls", len(out), reachable, e.addr, out[e], got[e], 100*n)
			}
		}
	})
}

// With many endpoints a count holds for a moment, and no longer.
func TestManyEndpointsAreCountedNowAndThen(t *testing.T) {
	g := groupOf(bareRelay(t), 4*countAlways)
	defer g.close()
	list := *g.list.Load()
	now := epoch
	for _, e := range list[1:] {
		e.unhealthy.Store(true)
	}
	if !g.panics(list, now) {
		t.Error("nearly all are unhealthy: no panic")
	}
	for _, e := range list {
		e.unhealthy.Store(false)
	}
	if now = now.Add(countEvery); g.panics(list, now) {
		t.Errorf("all are well since %v: still in panic", countEvery)
	}
}

func TestHungEndpointIsNoPlaceForARetry(t *testing.T) {
	g := groupOf(bareRelay(t), 2)
	defer g.close()
	list := *g.list.Load()
	if !g.hasOther(epoch, list[0]) || !g.spares(epoch, list[0]) {
		t.Error("the other is well, and cannot take over")
	}
	openByFailures(t, list[1].breaker)
	if g.hasOther(time.Now(), list[0]) {
		t.Error("the other is cut off, and shall take over")
	}
	list[1].breaker.Reset(time.Now())
	list[1].unhealthy.Store(true)
	if g.hasOther(epoch, list[0]) || g.spares(epoch, list[0]) {
		t.Error("the other is unhealthy, and shall take over")
	}
}

// A probe that tells nothing, such as that of a caller with bad input, is no return: what is known of
// the endpoint stays, and there is no slow start yet.
func TestProbeThatTellsNothingIsNoReturn(t *testing.T) {
	t.Parallel()
	g := groupOf(bareRelay(t), 2)
	defer g.close()
	e := (*g.list.Load())[0]
	version := breaker.NewGroup().Update("m v", breaker.VersionSettings{Settings: breaker.Settings{OpenFor: time.Second}}, time.Now())
	e.breaker = version.Endpoint(e.addr, time.Now())
	openByFailures(t, e.breaker)
	time.Sleep(1500 * ms) // more than its open time
	probed := func(o breaker.Outcome, at time.Time) bool {
		t.Helper()
		p, err := e.breaker.Allow(at)
		if err != nil {
			t.Fatal(err)
		}
		wasIn := e.breaker.Ready(at)
		p.Done(breaker.Result{Outcome: o, At: at})
		e.noteBreaker(wasIn, at)
		return e.back.Load() != 0
	}
	if probed(breaker.Excluded, time.Now()) {
		t.Error("a probe that told nothing has brought the endpoint back")
	}
	if !probed(breaker.Success, time.Now()) {
		t.Error("a good probe has not brought the endpoint back")
	}
}

// A version is spared the failures of an endpoint that is cut off by itself only while
// that is an exception.
func TestVersionIsSparedExceptionsOnly(t *testing.T) {
	g := groupOf(bareRelay(t), 4)
	defer g.close()
	list := *g.list.Load()
	for i, want := range []bool{true, true, false} {
		list[i].openBreaker(t, epoch)
		if got := g.spares(epoch, list[0]); got != want {
			t.Errorf("%d of 4 cut off: spared %v", i+1, got)
		}
	}
}

// An endpoint whose breaker waits for its probe gets it with the next call that meets
// it, though it was slow.
func TestProbeDoesNotWaitForLatencyToFade(t *testing.T) {
	g := groupOf(bareRelay(t), 2)
	defer g.close()
	list := *g.list.Load()
	now := epoch
	list[0].openBreaker(t, now)
	list[0].latency.failed(now, time.Minute)
	list[1].latency.answered(now, ms)
	if e, _ := g.pick(now, nil); e != list[1] {
		t.Fatal("an open breaker's endpoint was picked")
	}
	now = now.Add(10 * time.Second)
	if e, bypass := g.pick(now, nil); e != list[0] || bypass {
		t.Fatalf("the probe is due: picked %s, bypass %v", e.addr, bypass)
	}
}

// shares sends calls, one a millisecond, and returns the part that endpoint 0 got.
func shares(g *group, servers []simulated, from time.Time, d time.Duration) float64 {
	n := int(d / ms)
	got, _ := simulateFrom(g, servers, from, n, ms)
	return float64(got[0]) / float64(n)
}

// An endpoint that comes back begins with about a tenth of its share, has half of it
// after half the time and all of it in the end.
func TestShareGrowsAfterAComeback(t *testing.T) {
	// With few calls at once an endpoint with none is a little ahead: the shares in
	// between are a bit above what the time says.
	shouldBe := []struct{ at, least, most float64 }{
		{0.5, 0.05, 0.3}, {5, 0.4, 0.8}, {9, 0.75, 1.15}, {12, 0.8, 1.2},
	}
	// The share of one comeback spreads by up to 0.055 about its mean, that of 8 by less
	// than 0.02: the bounds are 8 times that away.
	const comebacks = 8
	for _, n := range []int{2, 4, 10} {
		got := make([]float64, len(shouldBe)) // of its share, by shouldBe
		for range comebacks {
			g := groupOf(bareRelay(t), n)
			const slowStart = 10 * time.Second
			g.slowStart.Store(int64(slowStart))
			servers := make([]simulated, n)
			for i := range servers {
				servers[i].latency = 5 * ms
			}
			simulateFrom(g, servers, epoch.Add(-time.Second), 1000, ms)
			(*g.list.Load())[0].returned(epoch)
			for i, c := range shouldBe {
				at := epoch.Add(time.Duration((c.at - 0.5) * float64(time.Second)))
				got[i] += shares(g, servers, at, time.Second) * float64(n) / comebacks
			}
			g.close()
		}
		for i, c := range shouldBe {
			if got[i] < c.least || got[i] > c.most {
				t.Errorf("%d endpoints, after %v s: got %.2f of its share, want %.2f to %.2f", n, c.at, got[i], c.least, c.most)
			}
			t.Logf("%d endpoints, after %4v s: %.3f of its share", n, c.at, got[i])
		}
	}
}

// An endpoint whose server says that it is well again begins slowly, and what was known of
// its latency is forgotten.
func TestWellAgainBeginsSlowly(t *testing.T) {
	g := groupOf(bareRelay(t), 2)
	defer g.close()
	e := (*g.list.Load())[0]
	e.latency.answered(epoch, time.Minute)
	g.judge(e, health.Status{State: health.Unhealthy, Since: epoch})
	g.judge(e, health.Status{State: health.Healthy, Since: epoch})
	if got := e.share(epoch, time.Hour); got != minShare {
		t.Errorf("it begins with a share of %v, want %v", got, minShare)
	}
	if got := e.load(epoch); got != 0 {
		t.Errorf("its load is still %v", got)
	}
}

// So does one whose breaker closes.
func TestClosedAgainBeginsSlowly(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	sick := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			fails(codes.Internal, "broken")(w, r)
			return
		}
		ok(w, r)
	})
	r := start(t, routeTo("", sick.addr, serve(t, nil).addr)+`    breaker: {consecutive: 1, open_for: 50ms, max_open_for: 50ms}
    health: {off: true, slow_start: 1h}
`)
	var e *endpoint
	for _, one := range r.director.snapshot.Load().endpoints() {
		if one.addr == sick.addr {
			e = one
		}
	}
	reach := func(s breaker.State) {
		r.until(t, "its breaker is "+s.String(), func() bool {
			r.call(modelInfer, infer("fraud", ""))
			return e.breaker.Status(time.Now()).State == s
		})
	}
	reach(breaker.Open)
	if got := e.share(time.Now(), time.Hour); got != 1 {
		t.Fatalf("its share is %v before anything has come back", got)
	}
	broken.Store(false)
	reach(breaker.Closed)
	if got := e.share(time.Now(), time.Hour); got != minShare {
		t.Errorf("it begins with a share of %v, want %v", got, minShare)
	}
}

// Where all come back at once, nobody is preferred: a slow start is about the others.
func TestNobodyIsSlowWhereAllComeBack(t *testing.T) {
	g := groupOf(bareRelay(t), 3)
	defer g.close()
	g.slowStart.Store(int64(10 * time.Second))
	servers := make([]simulated, 3)
	for i, e := range *g.list.Load() {
		servers[i].latency = 5 * ms
		e.returned(epoch)
	}
	if got := shares(g, servers, epoch, 3*time.Second); math.Abs(got-1.0/3) > 0.05 {
		t.Errorf("got %.2f of the calls, want a third", got)
	}
}

// Endpoints that join a group begin slowly; those that a group begins with do not.
func TestWhoJoinsBeginsSlowly(t *testing.T) {
	g, _ := recordedGroup(bareRelay(t), nil)
	defer g.close()
	g.probe(probing{slowStart: time.Hour})
	g.configure([]string{"a:1", "b:1"})
	g.configure([]string{"a:1", "b:1", "c:1"})
	share := func(i int) float64 { return (*g.list.Load())[i].share(time.Now(), time.Hour) }
	if share(0) != 1 || share(2) != 1 {
		t.Errorf("the group is new itself: shares %v, %v", share(0), share(2))
	}
	g.born = g.born.Add(-2 * time.Hour)
	g.configure([]string{"a:1", "b:1", "c:1", "d:1"})
	if share(0) != 1 || share(3) != minShare {
		t.Errorf("the group is old: shares %v, %v", share(0), share(3))
	}
}
