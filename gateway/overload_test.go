package gateway

import (
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// An adaptive limit learns from the calls that pass: a server that gets slower the more it has to do is asked less and
// less at once, and those that it has no room for are answered by another version or refused at once, with the reason.
func TestAdaptiveLimitComesDownWithASlowServer(t *testing.T) {
	t.Parallel()
	const wellWith, most = 4, 40
	var under atomic.Int64
	server := streams(t, func(w http.ResponseWriter, r *http.Request) {
		over := max(1, float64(under.Add(1))/wellWith)
		defer under.Add(-1)
		time.Sleep(time.Duration(float64(10*ms) * math.Pow(over, 1.5)))
		ok(w, r)
	})
	r := start(t, withFallback(server, serve(t, nil).addr, "limits: {in_flight: 40, adaptive: true}", "breaker: {dry_run: true}"))
	guard, _ := r.director.guardOf("fraud v8")
	if limit := guard.Status(time.Now()).Limit; limit != most {
		t.Fatalf("the limit begins at %d, want %d", limit, most)
	}
	// have has callers call until it is over, each at once again, or after a moment when it was refused.
	have := func(callers int, over func() bool) {
		t.Helper()
		var calling sync.WaitGroup
		defer calling.Wait()
		for i := range callers {
			calling.Go(func() {
				var fields []string
				if i%2 == 1 {
					fields = []string{"sluice-version", "v8"}
				}
				for !over() && !t.Failed() {
					a, err := r.try(t.Context(), modelInfer, infer("fraud", ""), fields...)
					switch {
					case err != nil:
						t.Error(err)
					case a.code == codes.OK && a.one("sluice-version") == "v8":
						continue
					case len(fields) == 0 && a.code == codes.OK && a.one("sluice-fallback") == "v8 IN_FLIGHT_LIMIT":
					case len(fields) > 0 && a.code == codes.ResourceExhausted && a.info().GetReason() == "IN_FLIGHT_LIMIT" && a.retryInfo():
					default:
						t.Errorf("%v: got %v %q, fields %v", fields, a.code, a.message, a.header)
					}
					time.Sleep(100 * ms)
				}
			})
		}
	}
	well := time.Now().Add(4 * time.Second) // with few callers, by which the limit learns what is normal
	have(3, func() bool { return time.Now().After(well) })
	end := time.Now().Add(6 * patience)
	have(most+20, func() bool { return guard.Status(time.Now()).Limit <= most/2 || time.Now().After(end) })
	if limit := guard.Status(time.Now()).Limit; limit > most/2 {
		t.Errorf("the limit is %d after a minute, want half of %d at most", limit, most)
	}
}
