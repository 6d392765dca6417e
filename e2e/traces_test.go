package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// spanReceiver is a collector that speaks OTLP over gRPC.
type spanReceiver struct {
	collector.UnimplementedTraceServiceServer
	addr  string
	mu    sync.Mutex
	spans []*otlp.Span
}

func startSpanReceiver(t *testing.T) *spanReceiver {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, s := &spanReceiver{addr: lis.Addr().String()}, grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(lis) })
	t.Cleanup(func() {
		s.Stop()
		serving.Wait()
	})
	return r
}

// Export implements the collector's one method.
func (r *spanReceiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			r.spans = append(r.spans, ss.GetSpans()...)
		}
	}
	return new(collector.ExportTraceServiceResponse), nil
}

// spanOf returns the span whose string attributes are these.
func (r *spanReceiver) spanOf(want map[string]string) (*otlp.Span, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		left := len(want)
		for _, kv := range s.GetAttributes() {
			if v, ok := want[kv.GetKey()]; ok && kv.GetValue().GetStringValue() == v {
				left--
			}
		}
		if left == 0 {
			return s, nil
		}
	}
	return nil, fmt.Errorf("none of %d spans has %v", len(r.spans), want)
}

// portOf is a span's attribute server.port.
func portOf(s *otlp.Span) int64 {
	for _, kv := range s.GetAttributes() {
		if kv.GetKey() == "server.port" {
			return kv.GetValue().GetIntValue()
		}
	}
	return 0
}

// overheard keeps the metadata of the inferences of a server.
type overheard struct {
	mu  sync.Mutex
	all []metadata.MD
}

func (o *overheard) option() grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if info.FullMethod == pb.GRPCInferenceService_ModelInfer_FullMethodName {
			md, _ := metadata.FromIncomingContext(ctx)
			o.mu.Lock()
			o.all = append(o.all, md)
			o.mu.Unlock()
		}
		return next(ctx, req)
	})
}

// traceparent waits for an inference, and returns the ids that its traceparent names.
func (o *overheard) traceparent(t *testing.T) (trace, span string) {
	t.Helper()
	eventually(t, patience, "the server is asked", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.all) != 1 || len(o.all[0].Get("traceparent")) != 1 {
			return fmt.Errorf("it got %v, want one inference with one traceparent", o.all)
		}
		parts := strings.Split(o.all[0].Get("traceparent")[0], "-")
		if len(parts) != 4 || parts[3] != "01" {
			return fmt.Errorf("it got traceparent %v, want a sampled one", parts)
		}
		trace, span = parts[1], parts[2]
		return nil
	})
	return trace, span
}

// TestTraceOfACallThroughTheBinary: what a collector gets of a call that fails, falls back and is copied to a shadow are
// the spans that its caller and the three model servers know of, each in its place.
func TestTraceOfACallThroughTheBinary(t *testing.T) {
	const theirTrace, theirSpan = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	receiver := startSpanReceiver(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+receiver.addr)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0") // the caller decides
	var heard [3]overheard
	v1, v2, v3 := startBackend(t, "v1", heard[0].option()), startBackend(t, "v2", heard[1].option()), startBackend(t, "v2", heard[2].option())
	v2.turn(t, sample.Behaviour{ErrorRate: 1, ErrorCode: codes.Internal})
	s := startSluice(t, fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, endpoints: [%q]}, {name: v2, endpoints: [%q]}, {name: v3, endpoints: [%q], provenance: {data: "dvc:3"}}]
    weights: {v2: 1}
    fallback: {to: [v1], on: [INTERNAL]}
    shadow: [{version: v3, percent: 100}]
`, model, v1.addr, v2.addr, v3.addr), "--drain-delay", "0s")
	ctx := within(t, 10*time.Second, "traceparent", "00-"+theirTrace+"-"+theirSpan+"-01", "x-request-id", "night-shift")
	if a := infer(ctx, dial(t, s.addr), sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
		t.Fatal(a.err)
	}
	find := func(want map[string]string) (span *otlp.Span) {
		t.Helper()
		eventually(t, 10*time.Second, "the span arrives", func() (err error) {
			span, err = receiver.spanOf(want)
			return err
		})
		return span
	}
	hex := func(id []byte) string { return fmt.Sprintf("%x", id) }

	call := find(map[string]string{"sluice.kept": "sampled", "sluice.request_id": "night-shift", "sluice.version": "v1", "sluice.primary": "v2",
		"sluice.fallback.reason": "INTERNAL", "rpc.response.status_code": "OK", "rpc.method": "inference.GRPCInferenceService/ModelInfer",
		"feature_flag.key": model, "feature_flag.result.variant": "v2"})
	if hex(call.GetTraceId()) != theirTrace || hex(call.GetParentSpanId()) != theirSpan || call.GetKind() != otlp.Span_SPAN_KIND_SERVER {
		t.Errorf("the call is %v, want a server's span below the caller's", call)
	}
	for i, want := range []map[string]string{
		{"sluice.attempt.kind": "fallback", "sluice.version": "v1", "sluice.endpoint": v1.addr, "server.address": "127.0.0.1", "rpc.response.status_code": "OK"},
		{"sluice.attempt.kind": "primary", "sluice.version": "v2", "sluice.endpoint": v2.addr, "rpc.response.status_code": "INTERNAL", "error.type": "INTERNAL"},
	} {
		trace, span := heard[i].traceparent(t)
		attempt := find(want)
		if hex(attempt.GetSpanId()) != span || trace != theirTrace || hex(attempt.GetTraceId()) != theirTrace {
			t.Errorf("%s: the server was told of span %s in trace %s, the collector of %v", want["sluice.version"], span, trace, attempt)
		}
		if port := fmt.Sprint(portOf(attempt)); net.JoinHostPort("127.0.0.1", port) != want["sluice.endpoint"] {
			t.Errorf("%s: server.port is %s", want["sluice.endpoint"], port)
		}
		if !slices.Equal(attempt.GetParentSpanId(), call.GetSpanId()) || attempt.GetKind() != otlp.Span_SPAN_KIND_CLIENT {
			t.Errorf("%v is no client's span below the call's", attempt)
		}
	}
	trace, span := heard[2].traceparent(t)
	copied := find(map[string]string{"sluice.attempt.kind": "shadow", "sluice.version": "v3", "sluice.data_version": "dvc:3", "sluice.shadow.answered_by": "v1"})
	if hex(copied.GetTraceId()) != trace || hex(copied.GetSpanId()) != span || trace == theirTrace || len(copied.GetParentSpanId()) != 0 {
		t.Errorf("the shadow was told of span %s in trace %s, the collector of %v; want a trace of its own", span, trace, copied)
	}
	if l := copied.GetLinks(); len(l) != 1 || !slices.Equal(l[0].GetTraceId(), call.GetTraceId()) || !slices.Equal(l[0].GetSpanId(), call.GetSpanId()) {
		t.Errorf("the shadow's span has links %v, want one to the call's", l)
	}
	s.stop(t, 20*time.Second)
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	if n := len(receiver.spans); n != 4 {
		t.Errorf("%d spans arrived in all, want 4: %v", n, receiver.spans)
	}
}
