package e2e

import (
	"context"
	"fmt"
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
	out   time.Duration // from the stop to the last call that ended by its deadline, less that deadline
	late  time.Duration // p99 of how late those calls ended
	hung  int           // how many there were
	calls int
}

// stopOneOfTwo stops one of two servers, as a debugger or a full disk would, while calls flow, and lets it go on
// in the end. Breakers only report, so that it is health that cuts the server off.
func stopOneOfTwo(t testing.TB, deadline time.Duration) stopped {
	t.Helper()
	victim, other := startRole(t, "backend"), startRole(t, "backend")
	addrs := []string{victim.await(t, `listening on (\S+)`)[1], other.await(t, `listening on (\S+)`)[1]}
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
	time.Sleep(deadline + time.Second)
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
			s.out = max(s.out, e.at.Sub(at)-deadline)
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

func TestStoppedServerIsOutWithinTenSeconds(t *testing.T) {
	t.Parallel()
	s := stopOneOfTwo(t, 500*time.Millisecond)
	if s.out > 10*time.Second {
		t.Errorf("the stopped server got calls for %v", s.out)
	}
	if s.late > time.Second {
		t.Errorf("of 100 calls that hung, one ended %v after its deadline", s.late)
	}
	t.Logf("out after %v; %d of %d calls hung, p99 %v after their deadline", s.out, s.hung, s.calls, s.late)
}

// BenchmarkStoppedServer is how late calls to a stopped server end, and how long it gets any.
func BenchmarkStoppedServer(b *testing.B) {
	for b.Loop() {
		s := stopOneOfTwo(b, 500*time.Millisecond)
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
