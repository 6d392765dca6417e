package gateway

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// overloaded is a server that answers four calls at once in 10 ms each. The more it has
// beyond that, the less it gets done: with sixteen calls half as much as with four.
type overloaded struct {
	now, most, done atomic.Int64 // calls under way, and the most of them; calls answered
	took            atomic.Int64 // nanoseconds that it has taken for calls, by its own account
}

const (
	bestAtOnce = 4
	atBest     = 10 * ms
)

func (s *overloaded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	over := max(1, float64(n)/bestAtOnce)
	took := time.Duration(float64(atBest) * math.Pow(over, 1.5))
	time.Sleep(took)
	ok(w, r)
	s.took.Add(int64(took))
	s.done.Add(1)
}

// rush has callers call v8 for a time, every other one by name. Whoever is refused comes
// again after a moment. It returns how long the server took for a call by its own account, which does
// not depend on what else this machine has to do, and how many it had at once at most, in the
// last third of that time.
func (r *rig) rush(s *overloaded, callers int, d time.Duration) (took time.Duration, most int64) {
	r.t.Helper()
	ctx, stop := context.WithTimeout(r.t.Context(), d)
	defer stop()
	var calling sync.WaitGroup
	for i := range callers {
		calling.Go(func() {
			var fields []string
			if i%2 == 1 {
				fields = []string{"sluice-version", "v8"}
			}
			for ctx.Err() == nil {
				a, err := r.try(context.Background(), modelInfer, infer("fraud", ""), fields...)
				switch {
				case err != nil:
					r.t.Error(err)
					return
				case a.code == codes.OK && a.one("sluice-version") == "v8":
					continue
				case len(fields) == 0 && a.code == codes.OK && a.one("sluice-fallback") == "v8 IN_FLIGHT_LIMIT":
				case len(fields) > 0 && a.code == codes.ResourceExhausted && a.info().GetReason() == "IN_FLIGHT_LIMIT" && a.retryInfo():
				default:
					r.t.Errorf("%v: got %v %q, fields %v", fields, a.code, a.message, a.header)
					return
				}
				time.Sleep(100 * ms)
			}
		})
	}
	time.Sleep(d * 2 / 3)
	done, before := s.done.Load(), s.took.Load()
	s.most.Store(0)
	<-ctx.Done()
	took = time.Duration((s.took.Load() - before) / max(1, s.done.Load()-done))
	most = s.most.Load()
	calling.Wait()
	return took, most
}

// A server that gets slower the more it has to do gets less to do, where the limit adapts:
// it goes on answering as many calls as it can, and those that it has no room for are answered by
// another version or refused at once, with the reason. A limit that stays as it is lets it drown.
func TestAdaptiveLimitKeepsAServerFromDrowning(t *testing.T) {
	t.Parallel()
	var took [2]time.Duration
	var atOnce [2]int64
	var both sync.WaitGroup
	for i, adaptive := range []bool{false, true} {
		server := new(overloaded)
		r := start(t, withFallback(streams(t, server.ServeHTTP), serve(t, nil).addr,
			fmt.Sprintf("limits: {in_flight: 40, adaptive: %v}", adaptive), "breaker: {dry_run: true}"))
		both.Go(func() {
			r.rush(server, 3, 4*time.Second) // as long as there are few callers, all is well
			took[i], atOnce[i] = r.rush(server, 60, 10*time.Second)
			guard, _ := r.director.guardOf("fraud v8")
			if limit := guard.Status(time.Now()).Limit; adaptive && limit > 25 {
				t.Errorf("the limit is %d after the rush, want it nearer to %d", limit, bestAtOnce)
			}
		})
	}
	both.Wait()
	t.Logf("%v for a call with a limit that stays, %d at once; %v with one that adapts, %d at once", took[0], atOnce[0], took[1], atOnce[1])
	if atOnce[1] > 25 {
		t.Errorf("the server had %d calls at once under a limit that adapts, want at most 25", atOnce[1])
	}
	if took[1] > took[0]/2 {
		t.Errorf("the server took %v for a call under a limit that adapts, %v under one that stays; want half of it at most", took[1], took[0])
	}
}
