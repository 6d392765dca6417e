package gateway

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
	"sluice/proto/inference/redact"
	"sluice/routing"
	"sluice/shadow"
	"sluice/shadow/compare"
	"sluice/shadow/tape"
)

const streamInfer = "/inference.GRPCInferenceService/ModelStreamInfer"

// withShadow is a route of version v7 with shadow v9. settings are further fields of
// the shadow.
func withShadow(v7, v9, settings string) string {
	return fmt.Sprintf(`
routes:
  - model: fraud
    services: [shop.Checkout]
    allow_management: true
    versions:
      - {name: v7, endpoints: [%q], rename: {model: fraud_7}}
      - {name: v9, endpoints: [%q], rename: {model: fraud_9, version: "9"}, allow_force: true}
    weights: {v7: 1}
    shadow: [{version: v9, percent: 100%s}]
`, v7, v9, settings)
}

// shadow returns the status of the mirror of a version once nothing is under way.
func (r *rig) shadow(t *testing.T, version string) shadow.Status {
	t.Helper()
	for _, m := range r.shadows.list() {
		if m.version == version {
			r.until(t, "the copies have come to an end", func() bool {
				s := m.Status()
				return s.Pending() == 0 && s.Bytes == 0
			})
			return m.Status()
		}
	}
	t.Fatalf("no shadow %s", version)
	return shadow.Status{}
}

// of returns the requests of a path.
func (s *server) of(path string) []*seen {
	var all []*seen
	for _, c := range s.calls() {
		if c.path == path {
			all = append(all, c)
		}
	}
	return all
}

// says answers with one score.
func says(score float32) http.HandlerFunc {
	b, err := io.ReadAll(message(&pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{
		Name: "score", Datatype: "FP32", Shape: []int64{1}, Contents: &pb.InferTensorContents{Fp32Contents: []float32{score}},
	}}}))
	if err != nil {
		panic(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(b)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}
}

// A shadow gets what the caller sent, under its own name and without the caller's
// credentials; the caller gets its own answer, and both are compared.
func TestShadowGetsACopyAndItsAnswerIsCompared(t *testing.T) {
	v7, v9 := serve(t, says(1)), serve(t, says(1.5))
	r := start(t, withShadow(v7.addr, v9.addr, ""))
	a := r.call(modelInfer, infer("fraud", ""), "x-request-id", "r-1", "authorization", "secret", "x-tenant", "a")
	if a.code != codes.OK || a.one("sluice-version") != "v7" {
		t.Fatalf("got %v by %s", a.code, a.one("sluice-version"))
	}
	s := r.shadow(t, "v9")
	if s.Answered != 1 || s.Compared != 1 || s.Differences[compare.Values] != 1 || len(s.Worst) != 1 || s.Worst[0].RequestID != "r-1" ||
		s.Worst[0].Version != "v7" || s.Outputs[0].MaxAbs != 0.5 {
		t.Errorf("status %+v", s)
	}
	if s.Caller.N != 1 || s.Caller.P50 == 0 || s.Shadow.P50 == 0 || s.Slower.N != 1 {
		t.Errorf("latencies %+v, %+v and %+v", s.Caller, s.Shadow, s.Slower)
	}
	got := v9.of(modelInfer)
	if len(got) != 1 {
		t.Fatalf("the shadow got %d calls", len(got))
	}
	var m pb.ModelInferRequest
	got[0].message(t, 0, &m)
	if m.GetModelName() != "fraud_9" || m.GetModelVersion() != "9" || m.GetId() != "1" {
		t.Errorf("the shadow was asked for %v", &m)
	}
	if h := got[0]; h.one("x-request-id") != "r-1" || h.one("authorization") != "" || h.one("x-tenant") != "a" {
		t.Errorf("the shadow got fields %v", h.header)
	}
	v7.of(modelInfer)[0].message(t, 0, &m)
	if m.GetModelName() != "fraud_7" {
		t.Errorf("the caller's version was asked for %v", &m)
	}
	if n := r.Stats().CaptureBytes; n != 0 {
		t.Errorf("%d bytes of copies are held", n)
	}
}

// What is copied, and what is not: nobody knows of a foreign method, or of a sequence,
// that a second call does no harm.
func TestOnlyHarmlessCallsAreCopied(t *testing.T) {
	const price, load = "/shop.Checkout/Price", "/inference.GRPCInferenceService/RepositoryModelLoad"
	sequence := func() io.Reader {
		return message(&pb.ModelInferRequest{ModelName: "fraud", Parameters: map[string]*pb.InferParameter{
			"sequence_id": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 3}}}})
	}
	for _, c := range []struct {
		name, settings, path string
		body                 io.Reader
		fields               []string
		copies               int
		dropped              shadow.Reason
	}{
		{name: "a prediction", path: modelInfer, body: infer("fraud", ""), copies: 1},
		{name: "a stream of predictions", path: streamInfer, body: message(&pb.ModelInferRequest{ModelName: "fraud"}, &pb.ModelInferRequest{}), copies: 1},
		{name: "metadata of a model", path: "/inference.GRPCInferenceService/ModelMetadata", body: message(&pb.ModelMetadataRequest{Name: "fraud"})},
		{name: "management", path: load, body: message(&pb.RepositoryModelLoadRequest{ModelName: "fraud"})},
		{name: "management by name", settings: ", methods: [inference.GRPCInferenceService/RepositoryModelLoad]", path: load, body: message(&pb.RepositoryModelLoadRequest{ModelName: "fraud"})},
		{name: "a foreign method", path: price, body: message(nil)},
		{name: "a foreign method by name", settings: ", methods: [shop.Checkout/Pay, shop.Checkout/Price]", path: price, body: message(nil), copies: 1},
		{name: "another foreign method", settings: ", methods: [shop.Checkout/Pay]", path: price, body: message(nil)},
		{name: "a sequence", path: modelInfer, body: sequence(), dropped: shadow.Sequence},
		{name: "a sequence, allowed", settings: ", sequences: true", path: modelInfer, body: sequence(), copies: 1},
		{name: "forced elsewhere", path: modelInfer, body: infer("fraud", ""), fields: []string{"sluice-version", "v9"}},
		{name: "forced", path: modelInfer, body: infer("fraud", ""), fields: []string{"sluice-version", "v7"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v7, v9 := serve(t, nil), serve(t, nil)
			r := start(t, withShadow(v7.addr, v9.addr, c.settings))
			if a := r.call(c.path, c.body, c.fields...); a.code != codes.OK {
				t.Fatalf("got %v %s", a.code, a.message)
			}
			s := r.shadow(t, "v9")
			if s.Answered != uint64(c.copies) || s.Mismatched != 0 || c.dropped != 0 && s.Dropped[c.dropped] != 1 {
				t.Errorf("counts %+v, differences %v", s.Counts, s.Differences)
			}
			if c.fields == nil && len(v9.of(c.path)) != c.copies {
				t.Errorf("the shadow got %d calls, want %d", len(v9.of(c.path)), c.copies)
			}
		})
	}
}

// Whatever a shadow does, callers get their answers, and every copy is accounted for.
func TestCallersSeeNothingOfAShadowsTroubles(t *testing.T) {
	released := make(chan struct{})
	hangs := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-released:
		}
	}
	t.Cleanup(func() { close(released) })
	closing, _ := rawServer(t, hangsUp)
	nonsense, _ := rawServer(t, speaksNonsense)
	for name, c := range map[string]struct {
		addr   string
		answer http.HandlerFunc
		differ compare.Difference // it answers well, and something else: its breaker stays closed
	}{
		"hangs":      {answer: hangs},
		"is slow":    {differ: compare.Values, answer: func(w http.ResponseWriter, r *http.Request) { time.Sleep(100 * time.Millisecond); says(2)(w, r) }},
		"fails":      {answer: fails(codes.Internal, "out of memory")},
		"garbage":    {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("garbage")) }},
		"no message": {differ: compare.Messages, answer: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "0") }},
		"100 MB": {differ: compare.Sizes, answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte{0, 6, 0, 0, 0})
			for piece, n := make([]byte, 1<<20), 0; n < 100; n++ {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}},
		"100 MB in pieces": {differ: compare.Sizes, answer: func(w http.ResponseWriter, _ *http.Request) {
			for piece, n := frame(0, make([]byte, 10<<10)), 0; n < 10_000; n++ {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}},
		"closes":         {addr: closing},
		"no gRPC at all": {addr: nonsense},
		"is not there":   {addr: "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v7 := serve(t, says(1))
			addr := c.addr
			if addr == "" {
				addr = serve(t, c.answer).addr
			}
			r := start(t, withShadow(v7.addr, addr, ""))
			var callers sync.WaitGroup
			const all = 8 * 25
			for range 8 {
				callers.Go(func() {
					for range all / 8 {
						a, err := r.try(t.Context(), modelInfer, infer("fraud", ""))
						if err != nil || a.code != codes.OK || a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" {
							t.Errorf("a caller got %+v, %v", a, err)
						}
					}
				})
			}
			callers.Wait()
			s, calls := r.shadow(t, "v9"), all
			for end := time.Now().Add(20 * time.Second); opens(name, c.differ) && s.Dropped[shadow.BreakerOpen] == 0 && time.Now().Before(end); calls++ {
				r.call(modelInfer, infer("fraud", "")) // all of them may have been over before the first copy
				s = r.shadow(t, "v9")
			}
			if s.Offered != uint64(calls) || len(v7.of(modelInfer)) != calls {
				t.Errorf("%d calls were made, %d answered, %d offered", calls, len(v7.of(modelInfer)), s.Offered)
			}
			if s.Mismatched != s.Compared || s.Compared != s.Answered {
				t.Errorf("%d of %d compared are mismatches, %d were answered", s.Mismatched, s.Compared, s.Answered)
			}
			if opened := s.Dropped[shadow.BreakerOpen] > 0; opened != opens(name, c.differ) && name != "hangs" || s.Differences[c.differ] != s.Compared && c.differ != compare.None {
				t.Errorf("its breaker has opened: %v; differences %v in %d, counts %+v", opened, s.Differences, s.Compared, s.Counts)
			}
			if n := r.Stats().CaptureBytes; n != 0 {
				t.Errorf("%d bytes of copies are held", n)
			}
		})
	}
}

// A fault that somebody wanted is no answer either when it strikes a call whose request has been
// sent whole: a client of gRPC ends it with the message.
func TestFaultsAreNotCompared(t *testing.T) {
	now := time.Now().UTC()
	fault := fmt.Sprintf("    faults: [{version: v7, percent: 100, from: %q, until: %q, status: UNAVAILABLE}]\n",
		now.Add(-time.Second).Format(time.RFC3339), now.Add(30*time.Minute).Format(time.RFC3339))
	r := start(t, withShadow(serve(t, says(1)).addr, serve(t, says(1)).addr, "")+fault)
	cc, err := grpc.NewClient(r.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	const calls = 20
	for range calls {
		if _, err := pb.NewGRPCInferenceServiceClient(cc).ModelInfer(t.Context(), &pb.ModelInferRequest{ModelName: "fraud"}); status.Code(err) != codes.Unavailable {
			t.Fatalf("got %v, want the fault", err)
		}
	}
	if s := r.shadow(t, "v9"); s.Dropped[shadow.Ended] != calls || s.Compared != 0 {
		t.Errorf("counts %+v", s.Counts)
	}
}

// opens reports whether a shadow's breaker opens for its trouble: it does not if it answers well,
// and something else. Nothing of one that hangs is known before its deadline.
func opens(trouble string, d compare.Difference) bool { return d == compare.None && trouble != "hangs" }

// What the gateway itself has made of a call is no answer that could be compared, or kept: a
// deadline, a lost connection, a fault that somebody wanted.
func TestOnlyAnswersOfVersionsAreCompared(t *testing.T) {
	closing, _ := rawServer(t, hangsUp)
	fault := func(what string) string {
		now := time.Now().UTC()
		return fmt.Sprintf("    faults: [{version: v7, percent: 100, from: %q, until: %q, %s}]\n",
			now.Add(-time.Second).Format(time.RFC3339), now.Add(30*time.Minute).Format(time.RFC3339), what)
	}
	for name, c := range map[string]struct {
		v7       string
		settings string
		timeout  string
		code     codes.Code
		compared uint64
	}{
		"a failure of the version's own": {v7: serve(t, fails(codes.Internal, "broken")).addr, code: codes.Internal, compared: 1},
		"a deadline": {v7: serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }).addr,
			timeout: "200m", code: codes.DeadlineExceeded},
		"a lost connection":      {v7: closing, code: codes.Unavailable},
		"a fault":                {v7: serve(t, says(1)).addr, settings: fault("status: UNAVAILABLE"), code: codes.Unavailable},
		"a delay that is wanted": {v7: serve(t, says(1)).addr, settings: fault("delay: 0.01s"), code: codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := start(t, withShadow(c.v7, serve(t, says(1)).addr, "")+c.settings+"    capture: {percent: 100}\n", func(cfg *Config) { cfg.CaptureDir = dir })
			var fields []string
			if c.timeout != "" {
				fields = []string{"grpc-timeout", c.timeout}
			}
			if a := r.call(modelInfer, infer("fraud", ""), fields...); a.code != c.code {
				t.Fatalf("the caller got %v %q, want %v", a.code, a.message, c.code)
			}
			s := r.shadow(t, "v9")
			if s.Offered != 1 || s.Compared != c.compared || s.Mismatched != c.compared || s.Dropped[shadow.Ended] != 1-c.compared {
				t.Errorf("counts %+v; %d compared, %d differ", s.Counts, s.Compared, s.Mismatched)
			}
			if c.compared > 0 {
				r.until(t, "the call is written", func() bool { return r.metrics(t)[`sluice_kept_calls_total{model="fraud"}`] == 1 })
			} else if n := r.metrics(t)[`sluice_kept_calls_total{model="fraud"}`]; n != 0 {
				t.Errorf("%v calls were kept", n)
			}
		})
	}
}

// A shadow's breaker is not that of the version: somebody's test of it goes through.
func TestShadowsBreakerIsItsOwn(t *testing.T) {
	v9 := serve(t, fails(codes.Internal, "broken"))
	r := start(t, withShadow(serve(t, nil).addr, v9.addr, ""))
	for range 50 {
		r.call(modelInfer, infer("fraud", ""))
		if r.shadow(t, "v9").Dropped[shadow.BreakerOpen] > 0 {
			break
		}
	}
	if r.shadow(t, "v9").Dropped[shadow.BreakerOpen] == 0 {
		t.Fatal("the shadow's breaker has not opened")
	}
	if m := r.shadows.list()[0]; m.Admit(time.Now()) {
		m.Withdraw(shadow.Ended)
		t.Error("copies are made though the breaker is open")
	}
	if a := r.call(modelInfer, infer("fraud", ""), "sluice-version", "v9"); a.info().GetReason() == "BREAKER_OPEN" || a.message != "broken" {
		t.Errorf("a call that asks for the version got %v %q", a.code, a.message)
	}
}

// Calls that came to nothing, and those that are too long, have no copies.
func TestCallsWithoutACopy(t *testing.T) {
	v7, v9 := serve(t, nil), serve(t, nil)
	r := start(t, withShadow(v7.addr, v9.addr, ""), func(c *Config) { c.Relay.CapturePerCall = 10_000 })
	long := message(&pb.ModelInferRequest{ModelName: "fraud", RawInputContents: [][]byte{make([]byte, 20_000)}})
	if a := r.call(modelInfer, long); a.code != codes.OK {
		t.Fatalf("got %v", a.code)
	}
	canceled, end := io.Pipe() // never ends
	defer end.Close()
	first := frame(0, nil)
	_, err := r.try(t.Context(), modelInfer, io.MultiReader(infer("fraud", ""), bytes.NewReader(first[:3]), canceled), "grpc-timeout", "1S")
	if err != nil {
		t.Logf("as expected: %v", err)
	}
	s := r.shadow(t, "v9")
	if s.Dropped[shadow.TooLarge] != 1 || s.Dropped[shadow.Ended] != 1 || s.Offered != 2 || len(v9.of(modelInfer)) != 0 {
		t.Errorf("counts %+v", s.Counts)
	}
	if st := r.Stats(); st.CapturesLost != 1 || st.CaptureBytes != 0 {
		t.Errorf("relay: %+v", st)
	}
}

// A failed call is copied, too, and so is one that fell back; one that the shadow has
// answered itself is not.
func TestCopiesOfCallsThatFellBack(t *testing.T) {
	v7, v8, v9 := serve(t, nil), serve(t, fails(codes.Unavailable, "no")), serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%q]}, {name: v8, endpoints: [%q]}, {name: v9, endpoints: [%q]}]
    weights: {v8: 1}
    fallback: {to: [v7], on: [UNAVAILABLE]}
    shadow: [{version: v9, percent: 100}, {version: v7, percent: 100}, {version: v8, percent: 100}]
`, v7.addr, v8.addr, v9.addr))
	if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-fallback") == "" {
		t.Fatal("it did not fall back")
	}
	if s := r.shadow(t, "v9"); s.Answered != 1 || s.Mismatched != 0 {
		t.Errorf("v9: %+v", s.Counts)
	}
	if s := r.shadow(t, "v7"); s.Dropped[shadow.Itself] != 1 {
		t.Errorf("v7: %+v", s.Counts)
	}
	if s := r.shadow(t, "v8"); s.Offered != 0 {
		t.Errorf("v8: %+v", s.Counts)
	}
}

// What a mirror has learned outlives tables; what no table has goes.
func TestMirrorsOutliveTables(t *testing.T) {
	v7, v9 := serve(t, nil), serve(t, nil)
	routes := withShadow(v7.addr, v9.addr, "")
	r := start(t, routes)
	r.call(modelInfer, infer("fraud", ""))
	r.shadow(t, "v9")
	r.publish(2, strings.Replace(routes, "percent: 100", "percent: 100, max_rate: 0.001", 1))
	r.call(modelInfer, infer("fraud", ""))
	r.call(modelInfer, infer("fraud", ""))
	if s := r.shadow(t, "v9"); s.Answered != 2 || s.Dropped[shadow.RateLimit] != 1 {
		t.Errorf("counts %+v", s.Counts)
	}
	r.publish(3, strings.Replace(routes, "fraud_9", "fraud_10", 1))
	r.call(modelInfer, infer("fraud", ""))
	if s := r.shadow(t, "v9"); s.Answered != 3 || s.Compared != 1 || !s.ComparedSince.After(s.Since) {
		t.Errorf("another model has been asked: %d answered, %d compared since", s.Answered, s.Compared)
	}
	var m pb.ModelInferRequest
	if v9.last(t).message(t, 0, &m); m.GetModelName() != "fraud_10" {
		t.Errorf("the shadow was asked for %q, want the name that it has now", m.GetModelName())
	}
	without, _, _ := strings.Cut(routes, "    shadow:")
	r.publish(4, without)
	if n := len(r.shadows.list()); n != 0 {
		t.Errorf("%d mirrors are left", n)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Errorf("got %v", a.code)
	}
}

// The calls of a smaller share are among those of a greater one, and a share is as
// large as it says. They are those with the lowest ids, as for whoever watches data.
func TestSharesAreNested(t *testing.T) {
	shares := []uint32{1, 50, 1000, 9999, routing.ShareSteps}
	seen := make([]int, len(shares))
	ids := rand.New(rand.NewPCG(1, 2))
	const calls = 1_000_000
	for range calls {
		id := ids.Uint64()
		before := false
		for i, share := range shares {
			in := sampled(id, share)
			if before && !in {
				t.Fatalf("call %d is in the share of %d and not in that of %d", id, shares[i-1], share)
			}
			if in != (float64(id)/(1<<64) < float64(share)/routing.ShareSteps) {
				t.Fatalf("call %#x is in the share of %d: %v", id, share, in)
			}
			if before = in; in {
				seen[i]++
			}
		}
	}
	for i, share := range shares {
		want := float64(share) / routing.ShareSteps * calls
		if d := float64(seen[i]) - want; d*d > 36*want+1 {
			t.Errorf("%d calls are in the share of %d, want %.0f", seen[i], share, want)
		}
	}
}

// A version that has no place for sheddable calls has none for copies.
func TestCopiesAreShedFirst(t *testing.T) {
	release := make(chan struct{})
	v7 := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wait") != "" {
			<-release
		}
		ok(w, r)
	})
	r := start(t, withShadow(v7.addr, serve(t, nil).addr, "")+"    limits: {in_flight: 4}\n")
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() { _, _ = r.try(t.Context(), modelInfer, infer("fraud", ""), "X-Wait", "1") })
	}
	r.until(t, "three calls wait", func() bool { return len(v7.of(modelInfer)) == 3 })
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Errorf("got %v", a.code)
	}
	close(release)
	waiting.Wait()
	if s := r.shadow(t, "v9"); s.Dropped[shadow.Shedding] != 1 || s.Answered != 3 {
		t.Errorf("counts %+v", s.Counts)
	}
}

// Of calls that differ, values are shown as far as the route says, and none without its word.
func TestExamplesShowWhatTheRouteAllows(t *testing.T) {
	for settings, want := range map[string]string{
		"":                                "",
		", examples: {redact: [nothing]}": "1 and 2",
		", examples: {redact: [score]}":   redact.Hidden + " and " + redact.Hidden,
		`, examples: {redact: ["*"], keep: [output.score]}`: "1 and 2",
		`, examples: {redact: ["*"], keep: ["another"]}`:    redact.Hidden + " and " + redact.Hidden,
	} {
		r := start(t, withShadow(serve(t, says(1)).addr, serve(t, says(2)).addr, settings))
		r.call(modelInfer, infer("fraud", ""))
		got := ""
		if e := r.shadow(t, "v9").Worst; len(e) != 1 {
			t.Fatalf("%d examples", len(e))
		} else if c := e[0].Call; c != nil {
			got = fmt.Sprintf("%v and %v", c.Caller[0].Data[0], c.Shadow[0].Data[0])
		}
		if got != want {
			t.Errorf("%q shows %q, want %q", settings, got, want)
		}
	}
}

// What the mirror has counted is what the metrics say.
func TestShadowMetrics(t *testing.T) {
	r := start(t, withShadow(serve(t, says(1)).addr, serve(t, says(2)).addr, ""))
	for range 3 {
		r.call(modelInfer, infer("fraud", ""))
	}
	r.shadow(t, "v9")
	all := r.metrics(t)
	const v9 = `{model="fraud",version="v9"}`
	for name, want := range map[string]float64{
		"sluice_shadow_copies_total" + v9: 3, "sluice_shadow_answered_total" + v9: 3, "sluice_shadow_compared_total" + v9: 3,
		"sluice_shadow_queued" + v9: 0, "sluice_shadow_buffer_bytes" + v9: 0, "sluice_shadow_breaker_state" + v9: 0,
		`sluice_shadow_mismatches_total{difference="values",model="fraud",version="v9"}`: 3,
	} {
		if got, ok := all[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// Calls of a route that says so are kept without their credentials, made again of any
// version at the rate that is asked for, and compared with what callers got.
func TestCallsAreKeptAndMadeAgain(t *testing.T) {
	v7, v9 := serve(t, says(1)), serve(t, says(1.5))
	dir := t.TempDir()
	routes := strings.Replace(withShadow(v7.addr, v9.addr, ""), "    shadow: [{version: v9, percent: 100}]", "    capture: {percent: 100}", 1)
	r := start(t, routes, func(c *Config) { c.CaptureDir = dir })
	const calls = 20
	for i := range calls {
		r.call(modelInfer, infer("fraud", ""), "x-request-id", fmt.Sprint(i), "authorization", "secret", "x-tenant", "a")
	}
	r.call(modelInfer, infer("fraud", ""), "sluice-version", "v7") // somebody's test
	r.call("/shop.Checkout/Price", message(nil))                   // nobody knows what it does
	r.until(t, "the calls are written", func() bool { return r.metrics(t)[`sluice_kept_calls_total{model="fraud"}`] == calls })

	again := func(version string, more Replay) (read uint64, at shadow.Status, err error) {
		route, _ := r.router.Current().Route("fraud")
		more.Version, _ = route.Version(version)
		if more.Rate == 0 {
			more.Rate = 10_000
		}
		err = r.Replay(t.Context(), more, func(n uint64, now shadow.Status) error { read, at = n, now; return nil })
		return read, at, err
	}
	before := len(v9.of(modelInfer))
	read, at, err := again("v9", Replay{})
	if err != nil || read != calls || at.Compared != calls || at.Mismatched != calls || at.Outputs[0].MaxAbs != 0.5 || at.Worst[0].Version != "v7" {
		t.Fatalf("%d read, %+v, %v", read, at, err)
	}
	made := v9.of(modelInfer)[before:]
	ids := make(map[string]bool)
	for _, c := range made {
		if ids[c.one("x-request-id")] = true; c.one("x-tenant") != "a" || c.one("authorization") != "" {
			t.Errorf("a call was made with %v", c.header)
		}
	}
	if len(made) != calls || len(ids) != calls {
		t.Errorf("%d calls were made, with %d ids", len(made), len(ids))
	}
	var m pb.ModelInferRequest
	if made[0].message(t, 0, &m); m.GetModelName() != "fraud_9" {
		t.Errorf("v9 was asked for %v", &m)
	}
	begun := time.Now()
	read, at, err = again("v7", Replay{Limit: 6, Rate: 50})
	if err != nil || read != 6 || at.Compared != 6 || at.Mismatched != 0 || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("%d read in %v, %+v, %v", read, time.Since(begun), at.Counts, err)
	}
	if _, _, err := again("v7", Replay{From: "../x.jsonl"}); err == nil || !strings.Contains(err.Error(), "from: got") {
		t.Errorf("a file elsewhere: %v", err)
	}
	r.publish(2, routes+"    shadow: [{version: v9, percent: 100, max_rate: 0.001, compare: {outputs: [{name: score, absolute: 1}]}}]\n")
	if read, at, err = again("v9", Replay{}); err != nil || read != calls || at.Compared != calls || at.Mismatched != 0 {
		t.Errorf("by the rules of the version's shadow: %d read, %+v, %d differ, %v", read, at.Counts, at.Mismatched, err)
	}
	var second error
	err = r.Replay(t.Context(), Replay{Version: r.version(t, "v7"), Rate: 1e9}, func(uint64, shadow.Status) error {
		second = r.Replay(t.Context(), Replay{Version: r.version(t, "v7"), Rate: 1e9}, nil)
		return nil
	})
	if err != nil || !errors.Is(second, ErrReplaying) {
		t.Errorf("one replay: %v; another one at the same time: %v", err, second)
	}
	stop := fmt.Errorf("enough")
	err = r.Replay(t.Context(), Replay{Version: r.version(t, "v7"), Rate: 1e9}, func(uint64, shadow.Status) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("whoever listens has had enough: %v", err)
	}
	without, _, _ := strings.Cut(routes, "    capture:")
	r.publish(3, without)
	r.call(modelInfer, infer("fraud", ""))
	if read, _, err := again("v7", Replay{}); err != nil || read != calls {
		t.Errorf("a call was kept though the route does not say so any more: %d, %v", read, err)
	}
}

// version returns a version of the route.
func (r *rig) version(t *testing.T, name string) *routing.Version {
	t.Helper()
	route, _ := r.router.Current().Route("fraud")
	v, ok := route.Version(name)
	if !ok {
		t.Fatalf("no version %s", name)
	}
	return v
}

// Without a folder nothing is kept, and the gateway says so.
// Whoever replays waits for room, however large the calls are, and however slow the server is:
// none is dropped.
func TestReplayWaitsForRoom(t *testing.T) {
	t.Parallel()
	const calls = 40 // each of them takes more than a hundredth of what a mirror holds, some an eighth
	for name, c := range map[string]struct {
		size       int
		compressed bool
	}{"as they are": {1 << 20, false}, "compressed": {4 << 20, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			m := &pb.ModelInferRequest{ModelName: "fraud", RawInputContents: [][]byte{make([]byte, c.size)}}
			request, encoding := frame(0, mustMarshal(t, m)), ""
			if c.compressed {
				var err error
				if request, err = io.ReadAll(gzipped(t, m)); err != nil {
					t.Fatal(err)
				}
				encoding = "gzip"
			}
			keep(t, dir, calls, encoding, request)
			v9 := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				time.Sleep(500 * time.Millisecond)
				fails(codes.Internal, "no")(w, r)
			})
			r := start(t, withShadow(serve(t, nil).addr, v9.addr, ""), func(c *Config) { c.CaptureDir = dir })
			var read uint64
			var at shadow.Status
			err := r.Replay(t.Context(), Replay{Version: r.version(t, "v9"), Rate: 100_000}, func(n uint64, now shadow.Status) error { read, at = n, now; return nil })
			// On a busy machine one may end by its deadline; that is no drop.
			if err != nil || read != calls || len(at.Dropped) > 0 || at.Offered != calls || at.Compared == 0 || at.Mismatched != 0 {
				t.Errorf("%d read, %+v, %v", read, at.Counts, err)
			}
		})
	}
}

// keep writes calls of v7, which failed, into a folder as a gateway does.
func keep(t testing.TB, dir string, calls int, encoding string, request []byte) {
	t.Helper()
	r := tape.New(dir, "fraud", tape.Settings{MaxBytes: 1 << 30, Retain: time.Hour}, slog.New(slog.DiscardHandler))
	defer r.Close()
	kept := (&tape.Call{Path: modelInfer, Version: "v7", Code: uint32(codes.Internal), Encoding: encoding, Request: request}).Copy()
	for n := range uint64(calls) {
		r.Offer(kept)
		for written := uint64(0); written <= n; written, _ = r.Counts() {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// Calls of sequences would mix with those that the server is just being asked.
func TestReplayLeavesSequencesOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keep(t, dir, 3, "", frame(0, mustMarshal(t, &pb.ModelInferRequest{ModelName: "fraud", Parameters: map[string]*pb.InferParameter{
		"sequence_id": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 3}}}})))
	r := start(t, withShadow(serve(t, nil).addr, serve(t, nil).addr, ", sequences: true"), func(c *Config) { c.CaptureDir = dir })
	for _, asked := range []bool{false, true} {
		var at shadow.Status
		err := r.Replay(t.Context(), Replay{Version: r.version(t, "v9"), Rate: 1000, Sequences: asked}, func(_ uint64, now shadow.Status) error { at = now; return nil })
		if err != nil || (at.Dropped[shadow.Sequence] == 3) == asked || (at.Compared == 3) != asked {
			t.Errorf("sequences %v: %+v, %v", asked, at.Counts, err)
		}
	}
}

// The calls that are kept are those that a shadow of the same share gets.
func TestKeptCallsAreThoseOfTheShadows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v9 := serve(t, nil)
	r := start(t, strings.Replace(withShadow(serve(t, nil).addr, v9.addr, ""), "percent: 100", "percent: 50", 1)+"    capture: {percent: 50}\n", func(c *Config) { c.CaptureDir = dir })
	for i := range 60 {
		r.call(modelInfer, infer("fraud", ""), "x-request-id", fmt.Sprint(i))
	}
	s := r.shadow(t, "v9")
	r.until(t, "the calls are written", func() bool { return r.metrics(t)[`sluice_kept_calls_total{model="fraud"}`] == float64(s.Offered) })
	shadowed := make(map[string]bool)
	for _, c := range v9.of(modelInfer) {
		shadowed[c.one("x-request-id")] = true
	}
	files, err := tape.Files(dir, "fraud", "")
	if err != nil {
		t.Fatal(err)
	}
	kept := make(map[string]bool)
	if err := tape.Read(files, func(c *tape.Call) error { kept[c.RequestID] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(kept, shadowed) || len(kept) == 0 || len(kept) == 60 {
		t.Errorf("kept are %v, the shadow got %v", kept, shadowed)
	}
}

func mustMarshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Calls are due one after the other, and those that a server has missed are not made all at
// once.
func TestReplayKeepsItsPace(t *testing.T) {
	begun := time.Now()
	p := pace{between: 10 * time.Millisecond, due: begun}
	for range 100 {
		p.next(p.due)
	}
	if d := p.due.Sub(begun); d != time.Second {
		t.Errorf("100 calls take %v, want 1 s", d)
	}
	p.next(p.due.Add(replayCatchUp / 2)) // a little late
	if d := p.due.Sub(begun); d != time.Second+p.between {
		t.Errorf("the next is due after %v", d)
	}
	stood := p.due.Add(time.Minute)
	p.next(stood)
	if behind := stood.Sub(p.due); behind != replayCatchUp-p.between {
		t.Errorf("after a minute of nothing it is %v behind", behind)
	}
}

func TestNothingIsKeptWithoutAFolder(t *testing.T) {
	v7, v9 := serve(t, nil), serve(t, nil)
	r := start(t, withShadow(v7.addr, v9.addr, "")+"    capture: {percent: 100}\n")
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Errorf("got %v", a.code)
	}
	if r.director.snapshot.Load().tapes != nil {
		t.Error("there are recorders")
	}
	err := r.Replay(t.Context(), Replay{Version: r.version(t, "v7"), Rate: 1}, func(uint64, shadow.Status) error { return nil })
	if !errors.Is(err, ErrNoCaptures) {
		t.Errorf("got %v", err)
	}
}

// A shadow is reached by TLS as any version is, and a stream's answers are compared
// message by message.
func TestShadowByTLSAndOfStreams(t *testing.T) {
	stream := func(scores ...float32) http.HandlerFunc {
		var body []byte
		for _, score := range scores {
			b, err := io.ReadAll(message(&pb.ModelStreamInferResponse{InferResponse: &pb.ModelInferResponse{
				Outputs: []*pb.ModelInferResponse_InferOutputTensor{{
					Name: "score", Datatype: "FP32", Shape: []int64{1}, Contents: &pb.InferTensorContents{Fp32Contents: []float32{score}},
				}}}}))
			if err != nil {
				t.Fatal(err)
			}
			body = append(body, b...)
		}
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = w.Write(body)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}
	}
	v7 := serve(t, stream(1, 2, 3))
	var got atomic.Int32
	v9 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == streamInfer && r.TLS != nil && strings.HasSuffix(r.Host, "-shadow") {
			got.Add(1)
		}
		stream(1, 2.5, 3)(w, r)
	}))
	v9.EnableHTTP2 = true
	v9.StartTLS()
	t.Cleanup(v9.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v9.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [%q]}
      - {name: v9, endpoints: [%q], tls: {ca_file: %q, server_name: example.com}}
    weights: {v7: 1}
    shadow: [{version: v9, percent: 100}]
`, v7.addr, v9.Listener.Addr(), ca))
	asked := message(&pb.ModelInferRequest{ModelName: "fraud"}, &pb.ModelInferRequest{}, &pb.ModelInferRequest{})
	if a := r.call(streamInfer, asked); a.code != codes.OK {
		t.Fatalf("got %v", a.code)
	}
	s := r.shadow(t, "v9")
	if got.Load() != 1 || s.Compared != 1 || s.Mismatched != 1 || s.Outputs[0].MaxAbs != 0.5 || s.Worst[0].Elements != 3 || s.Worst[0].Differing != 1 {
		t.Errorf("%d calls by TLS; status %+v", got.Load(), s)
	}
}
