package gateway

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sluice/breaker"
	pb "sluice/proto/inference"
)

// fallingBack is withFallback for a v8 of several endpoints.
func fallingBack(v8 []string, v7 string, settings ...string) string {
	return strings.Replace(withFallback("127.0.0.1:1", v7, settings...), `"127.0.0.1:1"`, `"`+strings.Join(v8, `", "`)+`"`, 1)
}

// What a lost server may have done already is not done again elsewhere: changes of
// servers, sessions, and parts of a sequence. Predictions are.
func TestWhatMayActIsNotRepeated(t *testing.T) {
	t.Parallel()
	plain := func() io.Reader { return infer("fraud", "") }
	sequence := func() io.Reader {
		return message(&pb.ModelInferRequest{ModelName: "fraud", Parameters: map[string]*pb.InferParameter{
			"sequence_id": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 7}},
		}})
	}
	for _, c := range []struct {
		name, path string
		body       func() io.Reader
		sent       int64
		version    string
	}{
		{"prediction", modelInfer, plain, 2, "v7"},
		{"management", "/inference.GRPCInferenceService/RepositoryModelLoad", func() io.Reader {
			return message(&pb.RepositoryModelLoadRequest{ModelName: "fraud"})
		}, 1, "v8"},
		{"session", "/tensorflow.serving.SessionService/SessionRun", func() io.Reader { return message(modelSpec("fraud", 0, "")) }, 1, "v7"},
		{"sequence", modelInfer, sequence, 1, "v8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bad1, tried1 := rawServer(t, hangsUp)
			bad2, tried2 := rawServer(t, hangsUp)
			v7 := serve(t, nil)
			r := start(t, fallingBack([]string{bad1, bad2}, v7.addr, "allow_management: true"))
			a := r.call(c.path, c.body())
			if n := tried1.Load() + tried2.Load(); n != c.sent || a.one("sluice-version") != c.version {
				t.Errorf("sent to %d servers of v8, answered by %s (%v %q); want %d and %s", n, a.one("sluice-version"), a.code, a.message, c.sent, c.version)
			}
		})
	}
}

// Clients count their deadlines themselves and mostly reset a call before it has passed here. That
// is a hung server all the same; a client that changes its mind is none.
func TestCallersWhoGiveUpAtTheirDeadline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		deadline time.Duration
		cancel   time.Duration
		reason   string
	}{
		{"at the deadline", 2 * time.Second, 0, "BREAKER_OPEN"},
		{"long before it", 5 * time.Second, 300 * ms, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, routeTo("", streams(t, hangs))+touchy)
			cc, err := grpc.NewClient(r.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			client := pb.NewGRPCInferenceServiceClient(cc)
			for range 10 { // two are enough, of which the gateway hears when it should
				ctx, cancel := context.WithTimeout(context.Background(), c.deadline)
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				_, err := client.ModelInfer(ctx, &pb.ModelInferRequest{ModelName: "fraud", Id: "1"})
				cancel()
				if got := status.Code(err); got == codes.Unavailable {
					break // it is cut off
				} else if got != codes.DeadlineExceeded && got != codes.Canceled {
					t.Fatalf("got %v", err)
				}
			}
			a, err := r.try(t.Context(), modelInfer, infer("fraud", ""), "grpc-timeout", "200m")
			if err != nil {
				t.Fatal(err)
			}
			if got := a.info().GetReason(); (got == "BREAKER_OPEN") != (c.reason == "BREAKER_OPEN") {
				t.Errorf("the next call got %v %q, %s; want %q", a.code, a.message, got, c.reason)
			}
		})
	}
}

// A version of many endpoints that are all out of reach does not keep its callers from
// the one that is well.
func TestManyEndpointsOutOfReach(t *testing.T) {
	t.Parallel()
	var gone []string
	for range 40 {
		gone = append(gone, closedPort(t))
	}
	v7 := serve(t, nil)
	r := start(t, fallingBack(gone, v7.addr))
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.OK || a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" {
		t.Errorf("got %v %q of %s after %s attempts", a.code, a.message, a.one("sluice-version"), a.one("sluice-attempts"))
	}
	r = start(t, routeTo("", gone...))
	if a := r.call(modelInfer, infer("fraud", "")); a.info().GetReason() != "UPSTREAM_UNREACHABLE" {
		t.Errorf("without a fallback: got %v %q, %v", a.code, a.message, a.details)
	}
}

// openByFailures opens a breaker as failing attempts do.
func openByFailures(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	for range 5 {
		now := time.Now()
		p, err := b.Allow(now)
		if err != nil {
			t.Fatal(err)
		}
		p.Done(breaker.Result{Outcome: breaker.Failure, At: now})
	}
	if b.Ready(time.Now()) {
		t.Fatal("the breaker is closed")
	}
}

// A retry does not go to an endpoint that is cut off while the fallback is well.
func TestRetriesPassEndpointsThatAreCutOff(t *testing.T) {
	t.Parallel()
	v7, well := serve(t, nil), serve(t, nil)
	bad, _ := rawServer(t, hangsUp)
	r := start(t, fallingBack([]string{bad, well.addr}, v7.addr))
	for _, e := range r.director.snapshot.Load().endpoints() {
		if e.addr == well.addr {
			openByFailures(t, e.breaker)
		}
	}
	a := r.call(modelInfer, infer("fraud", ""))
	if a.one("sluice-version") != "v7" || len(well.calls()) != 0 {
		t.Errorf("got %v of %s, and the endpoint that is cut off got %d calls", a.code, a.one("sluice-version"), len(well.calls()))
	}
	if got := a.one("sluice-fallback"); !strings.HasPrefix(got, "v8 ") {
		t.Errorf("sluice-fallback: got %q", got)
	}
}
