package e2e

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/sample"
)

func TestSplitIsKept(t *testing.T) {
	const (
		calls  = 20_000
		share1 = 0.95
	)
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	g := startGateway(t, split(v1, v2, 95, 5))
	var callers sync.WaitGroup
	const conns, perConn = 4, 8
	for range conns {
		cc := dial(t, g.addr)
		for range perConn {
			callers.Go(func() {
				req := sample.NewRequest(model, heldBack()[0].Measurements)
				for range calls / conns / perConn {
					if a := infer(within(t, 30*time.Second), cc, req); a.err != nil {
						t.Error(a.err)
						return
					}
				}
			})
		}
	}
	callers.Wait()
	n1, n2 := v1.Counters().Answered, v2.Counters().Answered
	sigma := math.Sqrt(calls * share1 * (1 - share1))
	t.Logf("%d calls at 95/5: %d and %d at the model servers, %.1f sigma off", calls, n1, n2, math.Abs(float64(n1)-calls*share1)/sigma)
	if n1+n2 != calls {
		t.Errorf("the model servers answered %d calls, want %d", n1+n2, calls)
	}
	if off := math.Abs(float64(n1) - calls*share1); off > 4*sigma {
		t.Errorf("v1 got %d calls of %d, want %.0f within %.0f", n1, calls, calls*share1, 4*sigma)
	}
}

// thirds is a document with three versions of the sample model and their weights.
func thirds(servers [3]*backend, weights [3]int) string {
	return fmt.Sprintf(`
routes:
  - model: %s
    versions:
      - {name: v1, endpoints: [%q]}
      - {name: v2, endpoints: [%q]}
      - {name: v3, endpoints: [%q]}
    weights: {v1: %d, v2: %d, v3: %d}
    sticky: {metadata: x-user-id}
`, model, servers[0].addr, servers[1].addr, servers[2].addr, weights[0], weights[1], weights[2])
}

func TestRaisedWeightMovesOnlyTheKeysThatMustMove(t *testing.T) {
	const keys = 2000
	servers := [3]*backend{startBackend(t, "v1"), startBackend(t, "v2"), startBackend(t, "v3")}
	g := startGateway(t, thirds(servers, [3]int{60, 30, 10}))
	cc := dial(t, g.addr)
	l := startLoad(model, 4, dial(t, g.addr), dial(t, g.addr))

	before := versionsOf(t, cc, keys)
	writeFile(t, g.routes, thirds(servers, [3]int{60, 60, 10}))
	eventually(t, 5*time.Second, "the new weights are published", func() error { return g.log.has("routes published", "revision=2") })
	after := versionsOf(t, cc, keys)
	t.Logf("%d calls of others went on meanwhile", l.stop(t))

	moved := 0
	for key := range before {
		if before[key] == after[key] {
			continue
		}
		moved++
		if after[key] != "v2" {
			t.Errorf("key %d moved from %s to %s, although only v2 has gained", key, before[key], after[key])
		}
	}
	// v2 goes from 30 of 100 to 60 of 130.
	const share = 60.0/130 - 30.0/100
	sigma := math.Sqrt(keys * share * (1 - share))
	t.Logf("%d of %d keys moved, expected %.0f", moved, keys, keys*share)
	if math.Abs(float64(moved)-keys*share) > 4*sigma {
		t.Errorf("%d keys moved, want %.0f within %.0f", moved, keys*share, 4*sigma)
	}
}

// versionsOf asks which version serves each of so many sticky keys.
func versionsOf(t *testing.T, cc grpc.ClientConnInterface, keys int) []string {
	t.Helper()
	versions := make([]string, keys)
	const atOnce = 8
	var callers sync.WaitGroup
	for first := range atOnce {
		callers.Go(func() {
			req := sample.NewRequest(model, heldBack()[0].Measurements)
			for key := first; key < keys; key += atOnce {
				a := infer(within(t, 30*time.Second, "x-user-id", fmt.Sprintf("user-%d", key)), cc, req)
				if a.err != nil {
					t.Error(a.err)
					return
				}
				versions[key] = a.GetModelVersion()
			}
		})
	}
	callers.Wait()
	return versions
}
