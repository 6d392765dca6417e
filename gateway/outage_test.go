package gateway_test

import (
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// outage is how long everything fails in TestOutageIsNotStormed.
var outage = flag.Duration("outage", 3*time.Second, "how long all model servers fail")

// flood makes 200 calls per second, whatever becomes of those before, and waits for
// all of them.
func flood(client pb.GRPCInferenceServiceClient, how time.Duration) (calls, good int64) {
	var wg sync.WaitGroup
	var n atomic.Int64
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(how); time.Now().Before(end); calls++ {
		<-tick.C
		wg.Go(func() {
			if infer(client).code == codes.OK {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return calls, n.Load()
}

// While every server fails, callers cost them at most a fifth more attempts than there
// are calls, and when the servers are back so are the answers.
func TestOutageIsNotStormed(t *testing.T) {
	for name, breaker := range map[string]string{
		"breakers":                  "consecutive: 5, open_for: 1s, max_open_for: 4s",
		"breakers that only report": "dry_run: true",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v1, v2, v2b := startServer(t, "v1"), startServer(t, "v2"), startServer(t, "v2")
			client := startGateway(t, fmt.Sprintf(`
routes:
  - model: penguins
    versions:
      - {name: v1, endpoints: [%q]}
      - {name: v2, endpoints: [%q, %q]}
    weights: {v2: 100}
    fallback: {to: [v1], on: [UNAVAILABLE, INTERNAL]}
    hedge: {delay: 20ms}
    breaker: {%s}
`, v1.addr, v2.addr, v2b.addr, breaker))
			all := []*server{v1, v2, v2b}
			attempts := func() (n float64) {
				for _, s := range all {
					n += float64(s.Counters().Begun)
				}
				return n
			}
			for _, s := range all {
				s.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Unavailable, Jitter: 30 * time.Millisecond})
			}
			calls, good := flood(client, *outage)
			if good > 0 {
				t.Errorf("%d calls went well while all servers failed", good)
			}
			if a := attempts(); a > 1.2*float64(calls) {
				t.Errorf("%v attempts for %d calls, want at most 1.2 for each", a, calls)
			} else {
				t.Logf("%v attempts for %d calls", a, calls)
			}
			for _, s := range all {
				s.turn(t, sample.Behaviour{})
			}
			healed := time.Now()
			for {
				calls, good := flood(client, 500*time.Millisecond)
				if float64(good) >= 0.99*float64(calls) {
					t.Logf("%d of %d calls went well %v after the servers had healed", good, calls, time.Since(healed).Round(time.Millisecond))
					return
				}
				if time.Since(healed) > 10*time.Second {
					t.Fatalf("%d of %d calls go well 10 s after the servers have healed", good, calls)
				}
			}
		})
	}
}

// BenchmarkDeadCanary makes calls, 32 at a time, of which a tenth are for a version whose
// only server is broken or gone. It fails if callers notice more than the breaker's
// threshold and what was under way by then.
func BenchmarkDeadCanary(b *testing.B) {
	const callers, threshold = 32, 5
	for name, kill := range map[string]func(*server){
		"errors":      func(s *server) { s.turn(b, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Unavailable}) },
		"unreachable": func(s *server) { s.stop() },
	} {
		b.Run(name, func(b *testing.B) {
			v1, v2 := startServer(b, "v1"), startServer(b, "v2")
			client := startGateway(b, fmt.Sprintf(`
routes:
  - model: penguins
    versions: [{name: v1, endpoints: [%q]}, {name: v2, endpoints: [%q]}]
    weights: {v1: 90, v2: 10}
    fallback: {to: [v1], on: [UNAVAILABLE]}
    breaker: {consecutive: %d, open_for: 5s}
`, v1.addr, v2.addr, threshold))
			kill(v2)
			var left, failed atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if infer(client).code != codes.OK {
							failed.Add(1)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(failed.Load()), "failures")
			b.ReportMetric(float64(v2.Counters().Begun), "attempts-at-the-dead")
			if n := failed.Load(); n > threshold+callers {
				b.Errorf("callers saw %d failures, want at most %d", n, threshold+callers)
			}
		})
	}
}
