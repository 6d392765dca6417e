package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	pb "sluice/proto/inference"
)

// A version that fails gets the calls that it takes to find out, those that were under
// way by then, and one per open period.
func TestFailingVersionGetsOneProbePerOpenPeriod(t *testing.T) {
	t.Parallel()
	for _, callers := range []int64{1, 32} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			v8 := streams(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				fails(codes.Internal, "broken")(w, r)
			})
			r := start(t, withFallback(v8, serve(t, nil).addr, "breaker: {consecutive: 5, open_for: 50ms, max_open_for: 2s}"))
			// Second attempts are not what this is about: the budget may refuse them.
			guard, _ := r.director.guardOf("fraud v8")
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for guard.Status(time.Now()).Openings < 6 {
						if _, err := r.try(t.Context(), modelInfer, infer("fraud", "")); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			openings := int64(guard.Status(time.Now()).Openings)
			if n, most := asked.Load(), 5+callers-1+openings-1; n > most {
				t.Errorf("asked %d times in %d open periods, want at most %d", n, openings, most)
			}
		})
	}
}

// Once bytes of an answer have reached the client there is no other version for it, and
// the status says so.
func TestBegunAnswersDoNotFallBack(t *testing.T) {
	t.Parallel()
	v7 := serve(t, nil)
	v8, _ := rawServer(t, func(f *http2.Framer, stream uint32) error {
		return errors.Join(answerHead(f, stream), f.WriteData(stream, false, frame(0, make([]byte, 100))[:50]),
			f.WriteRSTStream(stream, http2.ErrCodeInternal))
	})
	r := start(t, withFallback(v8, v7.addr))
	for _, path := range []string{modelInfer, modelStreamInfer} {
		a := r.call(path, infer("fraud", ""))
		if a.code != codes.Internal || !strings.Contains(a.message, "part of the answer") || len(a.body) != 50 || a.one("sluice-version") != "v8" {
			t.Errorf("%s: got %v %q with %d bytes by %q", path, a.code, a.message, len(a.body), a.one("sluice-version"))
		}
	}
	if n := len(v7.calls()); n != 0 {
		t.Errorf("the fallback was asked %d times", n)
	}
}

// Streams fall back until their answer begins, and no longer.
func TestStreamsFallBackBeforeTheirAnswerBegins(t *testing.T) {
	t.Parallel()
	var begins atomic.Bool
	v8, _ := rawServer(t, func(f *http2.Framer, stream uint32) error {
		if begins.Load() {
			return errors.Join(answerHead(f, stream), f.WriteRSTStream(stream, http2.ErrCodeInternal))
		}
		return f.WriteRSTStream(stream, http2.ErrCodeInternal)
	})
	r := start(t, withFallback(v8, serve(t, nil).addr))
	if a := r.call(modelStreamInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-fallback") != "v8 INTERNAL" {
		t.Errorf("before: got %v %q, fields %v", a.code, a.message, a.header)
	}
	begins.Store(true)
	if a := r.call(modelStreamInfer, infer("fraud", "")); a.code != codes.Internal || a.one("sluice-version") != "v8" {
		t.Errorf("after its header fields: got %v %q, fields %v", a.code, a.message, a.header)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-version") != "v7" {
		t.Errorf("a unary call, whose header fields wait: got %v %q, fields %v", a.code, a.message, a.header)
	}
}

// answerHead writes the header fields of an answer.
func answerHead(f *http2.Framer, stream uint32) error {
	// ":status: 200" is in HPACK's static table; the other one is a literal.
	block := append([]byte{0x88, 0x00, 12}, "content-type"...)
	block = append(append(block, 16), "application/grpc"...)
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true})
}

// A request that is too long to be kept goes to its version whole, has no second chance,
// and that is counted.
func TestLongRequestsHaveOneChance(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	v8 := streams(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
		fails(codes.Unavailable, "busy")(w, r)
	})
	v7 := serve(t, nil)
	r := start(t, withFallback(v8, v7.addr))
	long := &pb.ModelInferRequest{ModelName: "fraud", Id: "1", RawInputContents: [][]byte{make([]byte, 2<<20)}}
	a := r.call(modelInfer, message(long))
	if a.code != codes.Unavailable || a.message != "busy" || a.one("sluice-version") != "v8" || a.one("sluice-attempts") != "1" {
		t.Errorf("got %v %q, fields %v", a.code, a.message, a.header)
	}
	if n := got.Load(); n < 2<<20 {
		t.Errorf("the server got %d bytes", n)
	}
	if n := len(v7.calls()); n != 0 {
		t.Errorf("the fallback was asked %d times", n)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-version") != "v7" {
		t.Errorf("a short request: got fields %v, want the fallback's", a.header)
	}
	want(t, r.metrics(t), "sluice_version_refusals_total", map[string]float64{
		`{model="fraud",reason="REQUEST_NOT_KEPT",version="v8"}`: 1,
	})
}

// Whatever happens to calls, routes and breakers at once, everything is given back in the
// end and no breaker waits for a probe that is over.
func TestEverythingIsGivenBackAfterAStorm(t *testing.T) {
	t.Parallel()
	var calm atomic.Bool
	chaos := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if calm.Load() {
			ok(w, r)
			return
		}
		switch n := rand.IntN(100); {
		case n < 45:
			ok(w, r)
		case n < 55:
			fails(codes.Unavailable, "busy")(w, r)
		case n < 60:
			w.Header().Set("Grpc-Retry-Pushback-Ms", "15")
			fails(codes.Unavailable, "busy")(w, r)
		case n < 65:
			fails(codes.Internal, "broken")(w, r)
		case n < 70:
			fails(codes.InvalidArgument, "no")(w, r)
		case n < 90:
			time.Sleep(time.Duration(rand.IntN(60)) * ms)
			ok(w, r)
		case n < 95:
			saying(healthy, broken)(w, r)
		default:
			panic(http.ErrAbortHandler)
		}
	}
	var addrs []any
	for range 6 {
		addrs = append(addrs, streams(t, chaos))
	}
	addrs = append(addrs, closedPort(t))
	const both = `
routes:
  - model: fraud
    versions:
      - {name: v8, endpoints: [%[1]q, %[2]q, %[7]q], server: triton}
      - {name: v7, endpoints: [%[3]q, %[4]q]}
    weights: {v8: 3, v7: 1}
    fallback: {to: [v7, v8], on: [UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED], reserve: 20ms}
    hedge: {delay: 5ms}
    limits: {in_flight: 20, adaptive: true, reserve: 2}
    priority: {metadata: x-class}
    breaker: {consecutive: 3, open_for: 10ms, max_open_for: 20ms}
`
	const one = `
routes:
  - model: fraud
    versions:
      - {name: v8, endpoints: [%[5]q, %[2]q], server: triton, rename: {model: fraud_xgb}}
    weights: {v8: 1}
    breaker: {consecutive: 3, open_for: 10ms, max_open_for: 20ms}
    hedge: {}
`
	r := start(t, fmt.Sprintf(both, addrs...))
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
	defer stop()
	var wg sync.WaitGroup
	var calls, good atomic.Int64
	for range 24 {
		wg.Go(func() {
			for ctx.Err() == nil {
				path := []string{modelInfer, modelInfer, modelInfer, modelStreamInfer}[rand.IntN(4)]
				fields := []string{"x-class", []string{"critical", "normal", "sheddable"}[rand.IntN(3)],
					"grpc-timeout", []string{"10m", "50m", "2S"}[rand.IntN(3)]}
				callCtx, cancel := context.WithCancel(ctx)
				if rand.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rand.IntN(30))*ms, cancel)
				}
				a, err := r.try(callCtx, path, infer("fraud", ""), fields...)
				cancel()
				if calls.Add(1); err == nil && a.code == codes.OK {
					good.Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for revision := uint64(2); ctx.Err() == nil; revision++ {
			time.Sleep(time.Duration(rand.IntN(40)) * ms)
			r.publish(revision, fmt.Sprintf([]string{both, one}[revision%2], addrs...))
		}
		r.publish(1<<40, fmt.Sprintf(both, addrs...))
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Duration(rand.IntN(30)) * ms)
			guard, found := r.director.guardOf([]string{"fraud v8", "fraud v7"}[rand.IntN(2)])
			switch {
			case !found:
			case rand.IntN(2) == 0:
				guard.Breaker().ForceOpen(time.Now())
				guard.Reset(time.Now())
			default:
				guard.Reset(time.Now())
			}
		}
	})
	wg.Wait()
	calm.Store(true)
	t.Logf("%d calls, %d of them good", calls.Load(), good.Load())
	if calls.Load() < 200 || good.Load() == 0 {
		t.Error("the storm is too calm, or nothing goes through it")
	}
	for _, v := range []string{"v8", "v7"} {
		r.until(t, v+" answers again", func() bool {
			return r.call(modelInfer, infer("fraud", ""), "sluice-version", v).code == codes.OK
		})
	}
	r.until(t, "nothing is in flight", func() bool {
		s := r.Stats()
		n := s.Calls
		for _, e := range r.director.snapshot.Load().endpoints() {
			n += int(e.inFlight.Load())
		}
		for _, tg := range r.director.snapshot.Load().targets.all() {
			n += tg.guard.InFlight()
			if repeated := tg.guard.Status(time.Now()).Repeated; repeated > 0 {
				t.Fatalf("%d permits were settled twice", repeated)
			}
		}
		return n == 0
	})
}
