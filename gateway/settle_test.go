package gateway

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	pb "sluice/proto/inference"
)

// touchy is a breaker that opens at the second failure and counts every answer
// over a second as one: no server of a test takes so long unless it is to.
const touchy = "    breaker: {consecutive: 2, open_for: 1h, max_open_for: 1h, slow_call: 1s, failure_ratio: 0.5, min_calls: 2}\n"

// costOf returns what is thought of the only endpoint's latency, in seconds.
func costOf(r *rig) float64 {
	return r.director.snapshot.Load().endpoints()[0].latency.load(time.Now(), 0)
}

// expectClosed checks that the version still gets calls.
func expectClosed(t *testing.T, r *rig) {
	t.Helper()
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Errorf("the version is cut off: %v %q", a.code, a.message)
	}
}

// slowly yields the parts of a body with pauses in between.
func slowly(pause time.Duration, parts ...io.Reader) io.Reader {
	r, w := io.Pipe()
	go func() {
		for _, p := range parts {
			time.Sleep(pause)
			_, _ = io.Copy(w, p)
		}
		_ = w.Close()
	}()
	return r
}

// A client that does not get its request out in time says nothing about the server.
func TestStalledRequestsOpenNothing(t *testing.T) {
	t.Parallel()
	for _, path := range []string{modelInfer, modelStreamInfer} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			r := start(t, routeTo("", streams(t, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err == nil {
					ok(w, r)
				}
			}))+touchy)
			expectClosed(t, r)
			before := costOf(r)
			for range 2 {
				body, w := io.Pipe()
				go func() {
					_, _ = io.CopyN(w, message(&pb.ModelInferRequest{ModelName: "fraud", RawInputContents: [][]byte{{1}}}), 14)
				}()
				a := r.call(path, body, "grpc-timeout", "2S")
				_ = w.Close()
				if a.code != codes.DeadlineExceeded || a.one("sluice-attempts") != "1" {
					t.Fatalf("got %v %q, fields %v; want a call that was sent and timed out", a.code, a.message, a.header)
				}
			}
			if after := costOf(r); after > max(before, 1) {
				t.Errorf("the endpoint is thought to take %v s, before %v s", after, before)
			}
			expectClosed(t, r)
		})
	}
}

// A server that has the request and does not answer in time is to blame, also of a
// stream that the client keeps open.
func TestHungServersAreCutOff(t *testing.T) {
	t.Parallel()
	for _, path := range []string{modelInfer, modelStreamInfer} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			r := start(t, routeTo("", streams(t, hangs))+touchy)
			for range 2 {
				body, w := io.Pipe()
				go func() {
					_, _ = io.Copy(w, infer("fraud", ""))
					if path == modelInfer {
						_ = w.Close()
					}
				}()
				if a := r.call(path, body, "grpc-timeout", "2S"); a.code != codes.DeadlineExceeded {
					t.Fatalf("got %v %q", a.code, a.message)
				}
				_ = w.Close()
			}
			if a := r.call(path, infer("fraud", "")); a.info().GetReason() != "BREAKER_OPEN" || a.code != codes.Unavailable || !a.retryInfo() {
				t.Errorf("got %v %q, %v; want the version to be cut off", a.code, a.message, a.details)
			}
		})
	}
}

// How long a client takes to send its request is none of the server's slowness.
func TestSlowRequestsAreNoSlowAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, routeTo("", serve(t, nil).addr)+touchy)
	for range 2 {
		m := message(&pb.ModelInferRequest{ModelName: "fraud", Id: "1", RawInputContents: [][]byte{make([]byte, 40<<10)}})
		a := r.call(modelInfer, slowly(600*ms, io.LimitReader(m, 20<<10), m))
		if a.code != codes.OK {
			t.Fatalf("got %v %q", a.code, a.message)
		}
	}
	if cost := costOf(r); cost > 1 {
		t.Errorf("the endpoint is thought to take %v s", cost)
	}
	expectClosed(t, r)
}

// Streams last as long as their clients like.
func TestLongStreamsAreNoSlowAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, routeTo("", streams(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		ok(w, r)
	}))+touchy)
	for range 2 {
		a := r.call(modelStreamInfer, slowly(400*ms, infer("fraud", ""), infer("fraud", ""), infer("fraud", "")))
		if a.code != codes.OK {
			t.Fatalf("got %v %q", a.code, a.message)
		}
	}
	if cost := costOf(r); cost > 1 {
		t.Errorf("the endpoint is thought to take %v s", cost)
	}
	expectClosed(t, r)
}

// A slow answer is slow, whatever the client does.
func TestSlowAnswersAre(t *testing.T) {
	t.Parallel()
	r := start(t, routeTo("", serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(1200 * ms)
		ok(w, r)
	}).addr)+touchy)
	for range 2 {
		if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
			t.Fatalf("got %v %q", a.code, a.message)
		}
	}
	if cost := costOf(r); cost < 0.9 {
		t.Errorf("the endpoint is thought to take %v s", cost)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.info().GetReason() != "BREAKER_OPEN" {
		t.Errorf("got %v %q, want the version to be cut off", a.code, a.message)
	}
}

// Quick statuses of a caller's making do not make an endpoint attractive.
func TestQuickRefusalsOfAServerDoNotAttract(t *testing.T) {
	good := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * ms)
		ok(w, r)
	})
	empty := serve(t, fails(codes.NotFound, "no such model"))
	r := start(t, routeTo("", good.addr, empty.addr))
	for range 100 {
		r.call(modelInfer, infer("fraud", ""))
	}
	if n := len(empty.calls()); n == 0 || n > 10 {
		t.Errorf("the endpoint without the model got %d of 100 calls, want few", n)
	}
}

// When one of several servers dies, with however many calls, it alone is cut off.
func TestOneDeadEndpointOfSeveralIsNotItsVersion(t *testing.T) {
	var begun atomic.Int64
	dying, kill := mortal(t, func(_ http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		<-r.Context().Done()
	})
	finish := make(chan struct{})
	living := streams(t, func(w http.ResponseWriter, r *http.Request) {
		<-finish
		ok(w, r)
	})
	r := start(t, routeTo("", dying, living)+"    breaker: {consecutive: 5, open_for: 1h, max_open_for: 1h}\n")
	var calls sync.WaitGroup
	for range 40 {
		calls.Go(func() {
			if _, err := r.try(t.Context(), modelInfer, infer("fraud", "")); err != nil {
				t.Error(err)
			}
		})
	}
	r.until(t, "both servers have calls", func() bool { return begun.Load() > 10 })
	kill()
	e := r.director.snapshot.Load().endpoints()[0]
	r.until(t, "its calls are lost", func() bool { return e.inFlight.Load() == 0 })
	close(finish)
	calls.Wait()
	for range 10 {
		expectClosed(t, r)
	}
}

// A stream that probes a version which was cut off decides as soon as it is
// answered: others need not wait for its end.
func TestAnsweredStreamEndsTheProbe(t *testing.T) {
	broken := new(atomic.Bool)
	broken.Store(true)
	arrived := make(chan struct{}, 1)
	s := streams(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			fails(codes.Internal, "broken")(w, r)
			return
		}
		if r.URL.Path == modelStreamInfer {
			arrived <- struct{}{}
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		ok(w, r)
	})
	r := start(t, routeTo("", s)+"    breaker: {consecutive: 2, open_for: 1s, max_open_for: 1s}\n")
	for range 2 {
		r.call(modelInfer, infer("fraud", ""))
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.info().GetReason() != "BREAKER_OPEN" {
		t.Fatalf("got %v %q, want the version to be cut off", a.code, a.message)
	}
	broken.Store(false)
	guard, _ := r.director.guardOf("fraud v7")
	r.until(t, "the next call to be the probe", func() bool {
		now := time.Now()
		return now.After(guard.Status(now).OpenUntil) && now.After(r.director.snapshot.Load().endpoints()[0].breaker.Status(now).OpenUntil)
	})
	body, w := io.Pipe()
	ended := make(chan *answer, 1)
	go func() {
		a, err := r.try(t.Context(), modelStreamInfer, io.MultiReader(infer("fraud", ""), body))
		if err != nil {
			t.Error(err)
			a = new(answer)
		}
		ended <- a
	}()
	<-arrived // it is the probe, not one of the calls below
	r.until(t, "the version is back", func() bool { return r.call(modelInfer, infer("fraud", "")).code == codes.OK })
	if s := r.director.snapshot.Load().endpoints()[0].breaker.Status(time.Now()).State; s != breaker.Closed {
		t.Errorf("the endpoint's own breaker is %v, want it closed by the same stream", s)
	}
	select {
	case a := <-ended:
		t.Fatalf("the stream has ended already: %v %q", a.code, a.message)
	default:
	}
	_ = w.Close()
	if a := <-ended; a.code != codes.OK {
		t.Errorf("the stream: got %v %q", a.code, a.message)
	}
}

// A unary answer has not begun with HEADERS that are sent ahead of it.
func TestEarlyHeadersAreNoAnswer(t *testing.T) {
	r := start(t, routeTo("", streams(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		time.Sleep(200 * ms)
		ok(w, r)
	})))
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	if cost := costOf(r); cost < 0.15 {
		t.Errorf("the endpoint is thought to take %v s, want 0.2", cost)
	}
}
