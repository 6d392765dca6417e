package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"sluice/telemetry"
)

// receiver is a collector of spans that speaks OTLP over gRPC.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	addr string
	hold chan struct{} // if not nil, nothing is answered before it is closed

	mu       sync.Mutex
	resource map[string]string
	spans    []*otlp.Span
}

func receive(t testing.TB, hold chan struct{}) *receiver {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{addr: ln.Addr().String(), hold: hold}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		s.Stop()
		serving.Wait()
	})
	return r
}

// Export implements the collector's one method.
func (r *receiver) Export(ctx context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		r.resource = attributes(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			r.spans = append(r.spans, ss.GetSpans()...)
		}
	}
	return new(collector.ExportTraceServiceResponse), nil
}

func (r *receiver) all() []*otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

func attributes(list []*common.KeyValue) map[string]string {
	all := make(map[string]string)
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			all[kv.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			all[kv.GetKey()] = kv.GetValue().String()
		}
	}
	return all
}

// tracing makes a gateway export its spans to addr by the standard variables.
func tracing(t *testing.T, addr, sampler, ratio string) func(*Config) {
	t.Helper()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+addr)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	t.Setenv("OTEL_TRACES_SAMPLER", sampler)
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
	export, err := telemetry.ExportFromEnvironment(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg *Config) {
		cfg.Telemetry = telemetry.New(telemetry.Config{Version: "test", Logger: cfg.Logger, Export: export})
	}
}

const (
	theirTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	theirSpan   = "00f067aa0ba902b7"
	theirParent = "00-" + theirTrace + "-" + theirSpan + "-01"
)

// A caller's trace goes on through the gateway to the model servers: one span below the caller's for the call,
// one below that for each attempt, whose id is what the model server was told.
func TestTraceFromCallerToModelServers(t *testing.T) {
	v8, v7 := serve(t, fails(codes.Internal, "no")), serve(t, nil)
	rc := receive(t, nil)
	r := start(t, `
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [`+v7.addr+`], provenance: {data: "dvc:3fa91c"}}
      - {name: v8, endpoints: [`+v8.addr+`]}
    weights: {v8: 1}
    fallback: {to: [v7], on: [INTERNAL]}
`, tracing(t, rc.addr, "parentbased_traceidratio", "0"))
	a := r.call(modelInfer, infer("fraud", ""), "traceparent", theirParent, "tracestate", "a=1,b=2", "baggage", "user=7", "x-request-id", "id-1")
	if a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	r.until(t, "the spans arrive", func() bool { return len(rc.all()) == 3 })
	byID := make(map[string]*otlp.Span)
	var call *otlp.Span
	for _, s := range rc.all() {
		byID[fmt.Sprintf("%x", s.GetSpanId())] = s
		if got := fmt.Sprintf("%x", s.GetTraceId()); got != theirTrace {
			t.Errorf("%s: trace %s, want the caller's", s.GetName(), got)
		}
		if s.GetKind() == otlp.Span_SPAN_KIND_SERVER {
			call = s
		}
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() || time.Since(time.Unix(0, int64(s.GetStartTimeUnixNano()))) > patience {
			t.Errorf("%s: from %d to %d", s.GetName(), s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano())
		}
	}
	if call == nil || fmt.Sprintf("%x", call.GetParentSpanId()) != theirSpan {
		t.Fatalf("no span for the call below the caller's: %v", rc.all())
	}
	wantAttributes(t, call, map[string]string{
		"rpc.system.name": "grpc", "rpc.method": "inference.GRPCInferenceService/ModelInfer", "rpc.response.status_code": "OK",
		"sluice.model": "fraud", "sluice.version": "v7", "sluice.primary": "v8", "sluice.choice": "weighted",
		"sluice.fallback.reason": "INTERNAL", "sluice.attempts": "2", "sluice.revision": "1", "sluice.request_id": "id-1",
		"sluice.data_version": "dvc:3fa91c", "sluice.kept": "sampled", "error.type": "", "sluice.reason": "",
		"sluice.request.bytes": sizeOf(t, infer("fraud", "")), "sluice.answer.bytes": fmt.Sprint(len(a.body)),
		"feature_flag.key": "fraud", "feature_flag.provider.name": "sluice", "feature_flag.result.variant": "v8", "feature_flag.result.reason": "split",
	})
	for _, c := range []struct {
		server *server
		want   map[string]string
		status otlp.Status_StatusCode
	}{
		{v8, map[string]string{"sluice.version": "v8", "sluice.attempt.kind": "primary", "sluice.outcome": "failure",
			"sluice.reason": "INTERNAL", "rpc.response.status_code": "INTERNAL", "error.type": "INTERNAL", "sluice.endpoint": v8.addr}, otlp.Status_STATUS_CODE_ERROR},
		{v7, map[string]string{"sluice.version": "v7", "sluice.attempt.kind": "fallback", "sluice.outcome": "success",
			"sluice.reason": "OK", "rpc.response.status_code": "OK", "sluice.endpoint": v7.addr, "sluice.data_version": "dvc:3fa91c"}, otlp.Status_STATUS_CODE_UNSET},
	} {
		got := c.server.last(t)
		if got.one("tracestate") != "a=1,b=2" || got.one("baggage") != "user=7" {
			t.Errorf("tracestate %q and baggage %q were not passed on", got.one("tracestate"), got.one("baggage"))
		}
		parts := strings.Split(got.one("traceparent"), "-")
		if len(parts) != 4 || parts[0] != "00" || parts[1] != theirTrace || parts[3] != "01" {
			t.Fatalf("the server got traceparent %q", got.one("traceparent"))
		}
		span := byID[parts[2]]
		if span == nil {
			t.Fatalf("the server was told of span %s, and there is none", parts[2])
		}
		if !slices.Equal(span.GetParentSpanId(), call.GetSpanId()) || span.GetKind() != otlp.Span_SPAN_KIND_CLIENT {
			t.Errorf("%s is not a client span below the call's", span.GetName())
		}
		if span.GetStatus().GetCode() != c.status {
			t.Errorf("%s: status %v, want %v", span.GetName(), span.GetStatus(), c.status)
		}
		wantAttributes(t, span, c.want)
		host, port, _ := net.SplitHostPort(c.server.addr)
		wantAttributes(t, span, map[string]string{"sluice.model": "fraud", "sluice.revision": "1", "server.address": host, "server.port": port})
	}
	if call.GetStatus().GetCode() != otlp.Status_STATUS_CODE_UNSET {
		t.Errorf("the call was answered, its status is %v", call.GetStatus())
	}
	if rc.resource["service.name"] != "sluice" || rc.resource["service.version"] != "test" {
		t.Errorf("resource %v", rc.resource)
	}
}

func sizeOf(t *testing.T, r io.Reader) string {
	t.Helper()
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(n)
}

func wantAttributes(t *testing.T, s *otlp.Span, want map[string]string) {
	t.Helper()
	got := attributes(s.GetAttributes())
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %s is %q, want %q", s.GetName(), k, got[k], v)
		}
	}
}

// Whatever the ratio, calls that somebody will ask about are kept; the others are not, and still pass a trace on.
func TestWhatIsKeptOfTraces(t *testing.T) {
	bad, good := serve(t, fails(codes.Internal, "no")), serve(t, nil)
	rc := receive(t, nil)
	r := start(t, `
routes:
  - model: fraud
    versions: [`+version("v7", good.addr)+`, `+version("v8", bad.addr)+`]
    weights: {v7: 1}
    breaker: {consecutive: 2, open_for: 60s, max_open_for: 60s}
  - model: other
    versions: [`+version("v1", bad.addr)+`, `+version("v2", good.addr)+`]
    weights: {v1: 1}
    fallback: {to: [v2], on: [INTERNAL]}
`, tracing(t, rc.addr, "parentbased_traceidratio", "0"))
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "plain")
	if p := strings.Split(good.last(t).one("traceparent"), "-"); len(p) != 4 || p[3] != "00" {
		t.Errorf("an unsampled call passed traceparent %q on", p)
	}
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "unsampled", "traceparent", strings.TrimSuffix(theirParent, "1")+"0")
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "broken", "traceparent", strings.ToUpper(theirParent))
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "sampled", "traceparent", theirParent)
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "forced", "sluice-version", "v7")
	r.call(modelInfer, infer("other", ""), "x-request-id", "fallback")
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "failed-1", "sluice-version", "v8")
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "failed-2", "sluice-version", "v8")
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "cut-off", "sluice-version", "v8")
	want := map[string]string{"sampled": "sampled", "forced": "forced", "fallback": "fallback",
		"failed-1": "failed", "failed-2": "failed", "cut-off": "failed"}
	got := make(map[string]string)
	r.until(t, "the spans arrive", func() bool {
		for _, s := range rc.all() {
			if a := attributes(s.GetAttributes()); s.GetKind() == otlp.Span_SPAN_KIND_SERVER {
				got[a["sluice.request_id"]] = a["sluice.kept"]
				reason := "split"
				if _, asked := map[string]bool{"forced": true, "failed-1": true, "failed-2": true, "cut-off": true}[a["sluice.request_id"]]; asked {
					reason = "targeting_match"
				}
				wantAttributes(t, s, map[string]string{"feature_flag.result.reason": reason})
				switch a["sluice.request_id"] {
				case "failed-1":
					wantAttributes(t, s, map[string]string{"error.type": "INTERNAL", "sluice.reason": ""})
				case "cut-off":
					wantAttributes(t, s, map[string]string{"error.type": "UNAVAILABLE", "sluice.reason": "BREAKER_OPEN"})
				}
				if failed := a["sluice.kept"] == "failed"; failed != (s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR) {
					t.Errorf("%s: status %v", a["sluice.request_id"], s.GetStatus())
				}
				if a["sluice.request_id"] == "cut-off" {
					if len(s.GetEvents()) != 1 || attributes(s.GetEvents()[0].GetAttributes())["sluice.reason"] != "BREAKER_OPEN" {
						t.Errorf("the refusal by the breaker is no event: %v", s.GetEvents())
					}
				}
			}
		}
		return got["cut-off"] != ""
	})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("kept %v\nwant %v", got, want)
	}
}

// A sink that hangs, or refuses, costs spans, which are counted, and nothing else.
func TestSinkThatFailsCostsSpansAlone(t *testing.T) {
	hold := make(chan struct{})
	for name, addr := range map[string]string{"hanging": receive(t, hold).addr, "refusing": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, routesOf(version("v7", serve(t, nil).addr)), tracing(t, addr, "always_on", ""))
			const calls = 3_000 // more than have room
			var callers sync.WaitGroup
			for range 8 {
				callers.Go(func() {
					for range calls / 8 {
						if a, err := r.try(t.Context(), modelInfer, infer("fraud", "")); err != nil || a.code != codes.OK {
							t.Errorf("got %v, %v", a, err)
							return
						}
					}
				})
			}
			callers.Wait()
			r.until(t, "spans are dropped", func() bool { return len(of(r.metrics(t), "sluice_telemetry_dropped_total")) > 0 })
			want(t, r.metrics(t), "sluice_call_duration_seconds", map[string]float64{`{code="OK",model="fraud",version="v7"}`: calls})
			if got := of(r.metrics(t), "sluice_telemetry_exported_total"); len(got) > 0 {
				t.Errorf("delivered %v", got)
			}
		})
	}
	close(hold)
}

// Without a proper traceparent there is no trace to go on with, and a tracestate belongs to none.
func TestTracestateGoesWithItsTraceparentAlone(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routesOf(version("v7", s.addr)), tracing(t, receive(t, nil).addr, "always_off", ""))
	for name, parents := range map[string][]string{
		"none": nil, "broken": {"traceparent", theirParent + "0"}, "two": {"traceparent", theirParent, "traceparent", theirParent},
	} {
		r.call(modelInfer, infer("fraud", ""), append(parents, "tracestate", "a=1")...)
		got := s.last(t)
		if state, ok := got.header[tracestateField]; ok {
			t.Errorf("%s: the server got tracestate %q", name, state)
		}
		if p := got.header[traceparentField]; len(p) != 1 || strings.Contains(p[0], theirTrace) {
			t.Errorf("%s: the server got traceparent %q, want one of a new trace", name, p)
		}
	}
}

// A copy for a shadow is nothing that its caller waits for: it has a trace of its own, whose span is linked to
// the call's and kept if that is.
func TestShadowsSpansAreLinkedToTheCalls(t *testing.T) {
	v7, v8, v9 := serve(t, says(1)), serve(t, says(1)), serve(t, says(2))
	rc := receive(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [%q]}
      - {name: v8, endpoints: [%q]}
      - {name: v9, endpoints: [%q], provenance: {data: "dvc:9"}}
      - {name: gone, endpoints: ["127.0.0.1:1"]}
    weights: {v7: 1}
    shadow: [{version: v8, percent: 100}, {version: v9, percent: 100}, {version: gone, percent: 100}]
`, v7.addr, v8.addr, v9.addr), tracing(t, rc.addr, "parentbased_traceidratio", "0"))
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "unsampled", "tracestate", "a=1")
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "sampled", "traceparent", theirParent, "tracestate", "a=1", "baggage", "user=7")
	r.until(t, "the spans arrive", func() bool { return len(rc.all()) >= 5 })
	for _, v := range []string{"v8", "v9", "gone"} {
		r.shadow(t, v)
	}
	spans := rc.all()
	if len(spans) != 5 {
		t.Errorf("%d spans, want those of the call, its attempt and its three copies, and none of the call that is not kept", len(spans))
	}
	byVersion := make(map[string]*otlp.Span)
	var call *otlp.Span
	for _, s := range spans {
		a := attributes(s.GetAttributes())
		switch {
		case s.GetKind() == otlp.Span_SPAN_KIND_SERVER:
			call = s
		case a["sluice.attempt.kind"] == "shadow":
			byVersion[a["sluice.version"]] = s
		}
	}
	for _, c := range []struct {
		version string
		server  *server // nil: not there
		status  otlp.Status_StatusCode
		want    map[string]string
	}{
		{"v8", v8, otlp.Status_STATUS_CODE_UNSET, map[string]string{"sluice.shadow.verdict": "none", "sluice.reason": "OK",
			"rpc.response.status_code": "OK", "sluice.endpoint": v8.addr}},
		{"v9", v9, otlp.Status_STATUS_CODE_UNSET, map[string]string{"sluice.shadow.verdict": "values", "sluice.reason": "OK",
			"rpc.response.status_code": "OK", "sluice.endpoint": v9.addr, "sluice.data_version": "dvc:9"}},
		{"gone", nil, otlp.Status_STATUS_CODE_ERROR, map[string]string{"sluice.shadow.verdict": "", "sluice.reason": "unreachable",
			"rpc.response.status_code": "UNAVAILABLE", "error.type": "unreachable"}},
	} {
		span := byVersion[c.version]
		if span == nil {
			t.Fatalf("no span for the copy to %s: %v", c.version, spans)
		}
		for k, v := range map[string]string{"sluice.model": "fraud", "sluice.version": c.version, "sluice.shadow.answered_by": "v7",
			"sluice.request_id": "sampled", "sluice.revision": "1", "rpc.method": "inference.GRPCInferenceService/ModelInfer"} {
			c.want[k] = v
		}
		wantAttributes(t, span, c.want)
		if span.GetStatus().GetCode() != c.status || span.GetKind() != otlp.Span_SPAN_KIND_CLIENT || span.GetEndTimeUnixNano() <= span.GetStartTimeUnixNano() {
			t.Errorf("%s: %v", c.version, span)
		}
		own := fmt.Sprintf("%x", span.GetTraceId())
		if own == theirTrace || len(span.GetParentSpanId()) != 0 {
			t.Errorf("%s: it is in trace %s below %x, want a trace of its own", c.version, own, span.GetParentSpanId())
		}
		if l := span.GetLinks(); len(l) != 1 || !slices.Equal(l[0].GetTraceId(), call.GetTraceId()) || !slices.Equal(l[0].GetSpanId(), call.GetSpanId()) {
			t.Errorf("%s: links %v, want one to the call's span", c.version, l)
		}
		if c.server == nil {
			continue
		}
		for _, got := range c.server.calls() {
			parent := got.one("traceparent")
			if id := got.one("x-request-id"); id == "unsampled" {
				if !strings.HasSuffix(parent, "-00") {
					t.Errorf("%s: the copy of a call that is not kept has traceparent %q", c.version, parent)
				}
			} else if want := fmt.Sprintf("00-%s-%x-01", own, span.GetSpanId()); parent != want {
				t.Errorf("%s got traceparent %q, want %q", c.version, parent, want)
			} else if got.one("baggage") != "user=7" {
				t.Errorf("%s got baggage %q", c.version, got.one("baggage"))
			}
			if state, ok := got.header[tracestateField]; ok {
				t.Errorf("%s got the tracestate %q of another trace", c.version, state)
			}
		}
	}
}

// Without a collector, a caller's trace passes through as it is.
func TestTracesOffPassThrough(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routesOf(version("v7", s.addr)))
	r.call(modelInfer, infer("fraud", ""), "traceparent", theirParent)
	if got := s.last(t).one("traceparent"); got != theirParent {
		t.Errorf("the server got %q, want the caller's", got)
	}
	r.call(modelInfer, infer("fraud", ""))
	if got, ok := s.last(t).header["traceparent"]; ok {
		t.Errorf("the server got %q, want none", got)
	}
}

// One line for a call that failed, with what it takes to find it; while many fail, some of them and how many more.
func TestLinesOfFailedCalls(t *testing.T) {
	s := serve(t, fails(codes.Internal, "a-secret-of-the-server"))
	r := start(t, routesOf(version("v7", s.addr)))
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "id-77", "traceparent", theirParent)
	line := func() string {
		for l := range strings.Lines(r.log.String()) {
			if strings.Contains(l, "call failed") {
				return l
			}
		}
		return ""
	}
	r.until(t, "the line is there", func() bool { return line() != "" })
	for _, part := range []string{"request_id=id-77", "trace_id=" + theirTrace, "model=fraud", "version=v7", "code=INTERNAL",
		"attempts=1", "endpoint=" + s.addr, "outcome=failure", "level=WARN"} {
		if !strings.Contains(line(), part) {
			t.Errorf("no %s in %s", part, line())
		}
	}
	for range 500 {
		r.call(modelInfer, infer("nobody", ""))
	}
	r.until(t, "lines are suppressed", func() bool {
		return of(r.metrics(t), "sluice_telemetry_dropped_total")[`{reason="rate_limit",signal="logs"}`] > 0
	})
	if n := strings.Count(r.log.String(), "call failed"); n > 450 {
		t.Errorf("%d lines for 501 failed calls", n)
	}
	// What callers do wrong hides no fault.
	if f := r.cfg.Telemetry.Failures(); len(f) != 101 || f[0].Model != "_OTHER" || f[0].Code != "NOT_FOUND" || f[100].RequestID != "id-77" {
		t.Errorf("%d failures are remembered, the latest %+v, the oldest %+v", len(f), f[0], f[len(f)-1])
	}
}
