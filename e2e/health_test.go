package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// ended is a call with a deadline that is over.
type ended struct {
	at   time.Time
	late time.Duration // after its deadline, if it ended by that
	code codes.Code
}

// callFor sends calls with a deadline, from some callers one after the other each, until stop.
func callFor(t testing.TB, cc grpc.ClientConnInterface, callers int, deadline time.Duration, stop <-chan struct{}) func() []ended {
	t.Helper()
	var mu sync.Mutex
	var all []ended
	var group sync.WaitGroup
	client := pb.NewGRPCInferenceServiceClient(cc)
	for range callers {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				begun := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), deadline)
				_, err := client.ModelInfer(ctx, sample.NewRequest(model, heldBack()[0].Measurements))
				cancel()
				e := ended{at: time.Now(), code: status.Code(err)}
				e.late = e.at.Sub(begun) - deadline
				mu.Lock()
				all = append(all, e)
				mu.Unlock()
			}
		})
	}
	return func() []ended {
		group.Wait()
		return all
	}
}

// stopped is what came of stopping one of two servers under load.
type stopped struct {
	out   time.Duration // from the stop to when the last call was sent that ended by its deadline
	late  time.Duration // p99 of how late those calls ended
	hung  int           // how many there were
	after int           // how many of them were sent when the server was out
	calls int           // all of them
}

// stopOneOfTwo stops one of two servers, as a debugger or a full disk would, while calls flow, and lets it go on
// in the end. The other one takes its time for an answer. Breakers only report, so that it is health that cuts the
// server off.
func stopOneOfTwo(t testing.TB, deadline, answer time.Duration) stopped {
	t.Helper()
	victim, other := startRole(t, "backend"), startBackend(t, "v1")
	other.turn(t, sample.Behaviour{Delay: answer})
	addrs := []string{victim.await(t, `listening on (\S+)`)[1], other.addr}
	g := startGateway(t, fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, server: mlserver, endpoints: [%q, %q]}]
    weights: {v1: 1}
    breaker: {dry_run: true}
    health: {slow_start: 2s}
`, model, addrs[0], addrs[1]))
	stop := make(chan struct{})
	wait := callFor(t, dial(t, g.addr), 16, deadline, stop)
	time.Sleep(500 * time.Millisecond)

	at := time.Now()
	victim.signal(t, syscall.SIGSTOP)
	eventually(t, 10*time.Second, "the stopped server is out", func() error {
		return g.log.has("endpoint unhealthy", addrs[0], "no answer")
	})
	out := time.Now()
	time.Sleep(deadline + 3*time.Second)
	victim.signal(t, syscall.SIGCONT)
	eventually(t, 10*time.Second, "the server is back", func() error {
		return g.log.has("endpoint healthy again", addrs[0])
	})
	back := time.Now()
	time.Sleep(time.Second)
	close(stop)

	all := wait()
	s := stopped{calls: len(all)}
	var late []time.Duration
	for _, e := range all {
		switch {
		case e.code == codes.DeadlineExceeded:
			late = append(late, e.late)
			begun := e.at.Add(-e.late - deadline)
			s.out = max(s.out, begun.Sub(at))
			if begun.After(out) {
				s.after++
			}
		case e.code != codes.OK:
			t.Errorf("%v after the stop: got %v", e.at.Sub(at), e.code)
		}
		if e.code != codes.OK && e.at.After(back.Add(deadline)) {
			t.Errorf("%v after it is back: got %v", e.at.Sub(back), e.code)
		}
	}
	if s.hung = len(late); s.hung == 0 {
		t.Fatal("no call met the stopped server: this shows nothing")
	}
	slices.Sort(late)
	s.late = late[len(late)*99/100]
	return s
}

// The other server is so slow that a choice by calls in flight and latency alone would go on trying the stopped one.
func TestStoppedServerIsOutWithinTenSeconds(t *testing.T) {
	t.Parallel()
	s := stopOneOfTwo(t, time.Second, 200*time.Millisecond)
	if s.out > 10*time.Second {
		t.Errorf("the stopped server got calls for %v", s.out)
	}
	if s.after > 0 {
		t.Errorf("%d calls went to the stopped server after it was found unhealthy", s.after)
	}
	if s.late > time.Second {
		t.Errorf("of 100 calls that hung, one ended %v after its deadline", s.late)
	}
	t.Logf("out after %v; %d of %d calls hung, p99 %v after their deadline", s.out, s.hung, s.calls, s.late)
}

// BenchmarkStoppedServer is how late calls to a stopped server end, and how long it gets any.
func BenchmarkStoppedServer(b *testing.B) {
	for b.Loop() {
		s := stopOneOfTwo(b, 500*time.Millisecond, 0)
		b.ReportMetric(s.out.Seconds(), "out-s")
		b.ReportMetric(float64(s.late.Microseconds())/1000, "late-p99-ms")
		b.ReportMetric(float64(s.hung), "hung-calls")
	}
}

// A lone endpoint is never ejected, however unhealthy: its version's breaker opens instead.
// The gateway ends the calls, by its own deadline: a client's own would arrive as its
// cancellation as often as not, which is nobody's fault.
func TestLoneHungServerIsLeftToItsVersionsBreaker(t *testing.T) {
	t.Parallel()
	lone := startBackend(t, "v1")
	lone.turn(t, sample.Behaviour{HangProbes: true})
	g := startGateway(t, routeTo(lone.addr)+`
    timeout: {max: 500ms}
    breaker: {consecutive: 5, open_for: 1m, slow_call: 1ms}
    health: {interval: 100ms, timeout: 100ms}
`)
	eventually(t, 10*time.Second, "unhealthy", func() error { return g.log.has("endpoint unhealthy", lone.addr) })
	client := dial(t, g.addr)
	call := func() error {
		return infer(within(t, 10*time.Second), client, sample.NewRequest(model, heldBack()[0].Measurements)).err
	}
	// One answer will do: on a busy machine one may take longer than its deadline.
	eventually(t, 10*time.Second, "the only endpoint, unhealthy and serving, is called", call)
	lone.turn(t, sample.Behaviour{Hang: true, HangProbes: true})
	for i := range 5 {
		if err := call(); status.Code(err) != codes.DeadlineExceeded {
			t.Fatalf("call %d to the hung server: got %v, want its deadline", i+1, err)
		}
	}
	checkRefusal(t, call(), codes.Unavailable, "BREAKER_OPEN", "")
}

// While most endpoints say that they are not ready, all get calls; when half of them are, the others get none.
func TestMostEndpointsAreNeverEjected(t *testing.T) {
	t.Parallel()
	var all []*backend
	for range 4 {
		all = append(all, startBackend(t, "v1"))
	}
	g := startGateway(t, fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, server: triton, endpoints: [%q, %q, %q, %q]}]
    weights: {v1: 1}
    health: {interval: 100ms, slow_start: 0s}
`, model, all[0].addr, all[1].addr, all[2].addr, all[3].addr))
	cc := dial(t, g.addr)
	// served sends calls and returns how many each server got.
	served := func() (n []uint64) {
		t.Helper()
		var before []uint64
		for _, b := range all {
			before = append(before, b.Counters().Begun)
		}
		for range 200 {
			if a := infer(within(t, 10*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
				t.Fatal(a.err)
			}
		}
		for i, b := range all {
			n = append(n, b.Counters().Begun-before[i])
		}
		return n
	}
	unready := func(n int) {
		t.Helper()
		for i, b := range all {
			b.turn(t, sample.Behaviour{NotReady: i < n})
		}
	}
	unready(2)
	for _, b := range all[:2] {
		eventually(t, 10*time.Second, "not ready", func() error { return g.log.has("endpoint unhealthy", b.addr, "not ready") })
	}
	// How many calls each of those gets that may be picked is a matter of their latency.
	if n := served(); n[0] != 0 || n[1] != 0 {
		t.Errorf("the first two of four are not ready: they got %v", n)
	}
	unready(3)
	eventually(t, 10*time.Second, "not ready", func() error { return g.log.has("endpoint unhealthy", all[2].addr, "not ready") })
	if n := served(); n[0]+n[1]+n[2] == 0 {
		t.Errorf("three of four are not ready: they got %v, want more than the last one called", n)
	}
	unready(0)
	for _, b := range all[:3] {
		eventually(t, 10*time.Second, "ready again", func() error { return g.log.has("endpoint healthy again", b.addr) })
	}
	if n := served(); n[0]+n[1]+n[2] == 0 {
		t.Errorf("all are ready again: they got %v, want those called that came back", n)
	}
}

// Routes are swapped while servers are asked: who stays is not forgotten, and nothing is left running.
func TestTablesAreSwappedWhileServersAreAsked(t *testing.T) {
	t.Parallel()
	sick, well := startBackend(t, "v1"), startBackend(t, "v1")
	routes := func(interval string, weight int) string {
		return fmt.Sprintf(`
routes:
  - model: %s
    versions:
      - {name: v1, endpoints: [%q, %q]}
      - {name: v2, endpoints: [%q]}
    weights: {v1: %d, v2: 1}
    health: {interval: %s}
`, model, sick.addr, well.addr, well.addr, weight, interval)
	}
	sick.turn(t, sample.Behaviour{NotReady: true})
	g := startGateway(t, routes("100ms", 1))
	cc := dial(t, g.addr)
	eventually(t, 10*time.Second, "unhealthy", func() error { return g.log.has("endpoint unhealthy", sick.addr) })
	begun := sick.Counters().Begun
	for i := range 20 {
		// Every other change is of the interval: the watch is another one.
		writeFile(t, g.routes, routes([]string{"100ms", "1h"}[i%2], i+2))
		for range 10 {
			a := infer(within(t, 10*time.Second, "sluice-version", "v1"), cc, sample.NewRequest(model, heldBack()[0].Measurements))
			if a.err != nil {
				t.Fatal(a.err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := sick.Counters().Begun - begun; n != 0 {
		t.Errorf("%d calls went to the unhealthy endpoint while tables were swapped", n)
	}
}

// A client asks whether a model is ready, and hears what its servers say.
func TestModelReadyTellsWhatTheServersSay(t *testing.T) {
	t.Parallel()
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	g := startGateway(t, split(v1, v2, 1, 1)+"    health: {interval: 100ms}\n")
	client := pb.NewGRPCInferenceServiceClient(dial(t, g.addr))
	ready := func(md ...string) bool {
		t.Helper()
		ctx := metadata.AppendToOutgoingContext(within(t, 10*time.Second), md...)
		r, err := client.ModelReady(ctx, &pb.ModelReadyRequest{Name: model})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetReady()
	}
	v1.turn(t, sample.Behaviour{NotReady: true})
	eventually(t, 10*time.Second, "v1 is unhealthy", func() error { return g.log.has("endpoint unhealthy", v1.addr) })
	if !ready() || ready("sluice-version", "v1") || !ready("sluice-version", "v2") {
		t.Error("v1 is not ready: want the model ready, v1 not, v2 ready")
	}
	v2.turn(t, sample.Behaviour{NotReady: true})
	eventually(t, 10*time.Second, "v2 is unhealthy", func() error { return g.log.has("endpoint unhealthy", v2.addr) })
	if ready() {
		t.Error("no version is ready, and the model is")
	}
}

// A version none of whose servers is ready costs no attempt: calls go to the fallback at once, as many as that one
// may have at a time, and no more.
func TestUnreadyVersionFallsBackWithinTheOthersLimit(t *testing.T) {
	t.Parallel()
	v1, v2, v2b := startBackend(t, "v1"), startBackend(t, "v2"), startBackend(t, "v2")
	g := startGateway(t, fmt.Sprintf(`
routes:
  - model: %s
    versions:
      - {name: v1, endpoints: [%q]}
      - {name: v2, server: triton, endpoints: [%q, %q]}
    weights: {v2: 1}
    fallback: {to: [v1]}
    limits: {in_flight: 2}
    health: {interval: 100ms}
`, model, v1.addr, v2.addr, v2b.addr))
	for _, b := range []*backend{v2, v2b} {
		b.turn(t, sample.Behaviour{NotReady: true})
		eventually(t, 10*time.Second, "not ready", func() error { return g.log.has("endpoint unhealthy", b.addr, "not ready") })
	}
	cc := dial(t, g.addr)
	call := func() answer {
		return infer(within(t, 10*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements))
	}
	for range 20 {
		a := call()
		if a.err != nil {
			t.Fatal(a.err)
		}
		for key, want := range map[string]string{"sluice-version": "v1", "sluice-fallback": "v2 NO_ENDPOINT", "sluice-attempts": "1"} {
			if got := one(t, a.header, key); got != want {
				t.Errorf("%s: got %q, want %q", key, got, want)
			}
		}
	}
	if n := v2.Counters().Begun + v2b.Counters().Begun; n != 0 {
		t.Errorf("%d attempts were wasted on servers that are not ready", n)
	}
	v1.turn(t, sample.Behaviour{Hang: true})
	before := v1.Counters().Begun
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	for range 2 {
		hanging.Go(func() { _ = infer(ctx, cc, sample.NewRequest(model, heldBack()[0].Measurements)) })
	}
	eventually(t, 10*time.Second, "two calls are with the fallback", func() error {
		if n := v1.Counters().Begun - before; n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	for range 5 {
		checkRefusal(t, call().err, codes.Unavailable, "NO_ENDPOINT", "unhealthy") // why the version that was chosen could not be asked
	}
	if n := v1.Counters().Begun - before; n != 2 {
		t.Errorf("the fallback got %d calls at once, its limit is 2", n)
	}
	cancel()
	hanging.Wait()
}

// revive starts the server anew at the address it had. It is as new to everybody.
func (b *backend) revive(t *testing.T) {
	t.Helper()
	lis, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	b.Server = sample.NewServer(b.model, b.knobs)
	served := make(chan error, 1)
	go func() { served <- b.Serve(lis) }()
	t.Cleanup(func() {
		b.Server.Shutdown(canceled())
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// canceled is a context that is over.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A server that comes back, from being unready or from not being there, gets a tenth of its share, then more and
// more, and all of it after slow_start.
func TestServerThatComesBackBeginsSlowly(t *testing.T) {
	t.Parallel()
	const slowStart = 6 * time.Second
	for name, away := range map[string]func(*testing.T, *backend) (back func()){
		"unready": func(t *testing.T, b *backend) func() {
			b.turn(t, sample.Behaviour{NotReady: true, Delay: 5 * time.Millisecond})
			return func() { b.turn(t, sample.Behaviour{Delay: 5 * time.Millisecond}) }
		},
		"gone": func(t *testing.T, b *backend) func() {
			b.Shutdown(canceled())
			return func() { b.revive(t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goes, stays := startBackend(t, "v1"), startBackend(t, "v1")
			for _, b := range []*backend{goes, stays} {
				b.turn(t, sample.Behaviour{Delay: 5 * time.Millisecond})
			}
			g := startGateway(t, fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, server: triton, endpoints: [%q, %q]}]
    weights: {v1: 1}
    health: {interval: 100ms, slow_start: %v}
`, model, goes.addr, stays.addr, slowStart))
			stop := callOn(dial(t, g.addr), 8)
			time.Sleep(300 * time.Millisecond)
			back := away(t, goes)
			eventually(t, 10*time.Second, "unhealthy", func() error { return g.log.has("endpoint unhealthy", goes.addr) })
			time.Sleep(200 * time.Millisecond)
			back()
			first := goes.Counters().Begun
			if name == "unready" {
				eventually(t, 10*time.Second, "healthy again", func() error { return g.log.has("endpoint healthy again", goes.addr) })
			} else {
				eventually(t, 10*time.Second, "it gets calls again", func() error {
					if goes.Counters().Begun == first {
						return errors.New("none")
					}
					return nil
				})
			}
			begun := time.Now()
			for _, c := range []struct {
				from, to    time.Duration
				least, most float64 // of half of the calls
			}{
				{0, 600 * time.Millisecond, 0, 0.45},
				{2 * time.Second, 4 * time.Second, 0.2, 0.9},
				{slowStart + time.Second, slowStart + 3*time.Second, 0.7, 1.3},
			} {
				time.Sleep(time.Until(begun.Add(c.from)))
				one, other := goes.Counters().Begun, stays.Counters().Begun
				time.Sleep(time.Until(begun.Add(c.to)))
				one, other = goes.Counters().Begun-one, stays.Counters().Begun-other
				share := 2 * float64(one) / float64(one+other)
				if share < c.least || share > c.most {
					t.Errorf("%v to %v after its return: got %.2f of its share (%d of %d calls), want %.2f to %.2f", c.from, c.to, share, one, one+other, c.least, c.most)
				}
				t.Logf("%v to %v after its return: %.2f of its share", c.from, c.to, share)
			}
			failed := 0
			for _, c := range stop() {
				if c.err != nil && c.begun.After(begun) {
					failed++
				}
			}
			if failed > 0 {
				t.Errorf("%d calls failed after it was back", failed)
			}
		})
	}
}
