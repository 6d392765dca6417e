package gateway

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"sluice/telemetry"
)

// attempts waits for the spans of n attempts and returns them by their kind.
func (r *receiver) attempts(t *testing.T, g *rig, n int) map[string]*otlp.Span {
	t.Helper()
	byKind := make(map[string]*otlp.Span)
	g.until(t, "the attempts' spans arrive", func() bool {
		for _, s := range r.all() {
			if kind := attributes(s.GetAttributes())["sluice.attempt.kind"]; kind != "" {
				byKind[kind] = s
			}
		}
		return len(byKind) == n
	})
	return byKind
}

// eventOf returns the attributes of a span's event, nil if it has none of that name.
func eventOf(s *otlp.Span, name string) map[string]string {
	for _, e := range s.GetEvents() {
		if e.GetName() == name {
			all := attributes(e.GetAttributes())
			all["at"] = fmt.Sprint(e.GetTimeUnixNano())
			return all
		}
	}
	return nil
}

// An attempt that is sent beside a late one is a span of its own below the call's, which says so and begins while
// the first one is under way; the one that was given up is no failure.
func TestHedgesAreSpans(t *testing.T) {
	rc := receive(t, nil)
	p := startPair(t, hedgeSoon, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil, tracing(t, rc.addr, "always_on", ""))
	if a := p.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	spans := rc.attempts(t, p.rig, 2)
	first, hedge := spans["primary"], spans["hedge"]
	if first == nil || hedge == nil {
		t.Fatalf("spans of kinds %v, want primary and hedge", spans)
	}
	if !slices.Equal(first.GetParentSpanId(), hedge.GetParentSpanId()) || slices.Equal(first.GetSpanId(), hedge.GetSpanId()) {
		t.Errorf("the attempts are spans %x below %x and %x below %x", first.GetSpanId(), first.GetParentSpanId(), hedge.GetSpanId(), hedge.GetParentSpanId())
	}
	if e := eventOf(hedge, "hedge"); e == nil || e["at"] != fmt.Sprint(hedge.GetStartTimeUnixNano()) {
		t.Errorf("events of the second attempt: %v", hedge.GetEvents())
	}
	if e := eventOf(first, "hedge"); e != nil {
		t.Errorf("events of the first attempt: %v", first.GetEvents())
	}
	if hedge.GetStartTimeUnixNano() < first.GetStartTimeUnixNano()+uint64(20*time.Millisecond) || hedge.GetStartTimeUnixNano() > first.GetEndTimeUnixNano() {
		t.Errorf("the first lasts from %d to %d, the second begins at %d", first.GetStartTimeUnixNano(), first.GetEndTimeUnixNano(), hedge.GetStartTimeUnixNano())
	}
	wantAttributes(t, hedge, map[string]string{"sluice.outcome": "success", "sluice.reason": "OK"})
	wantAttributes(t, first, map[string]string{"sluice.outcome": "excluded"})
	for i, span := range []*otlp.Span{first, hedge} {
		if want := fmt.Sprintf("%x", span.GetSpanId()); (<-p.sent[i]).one("traceparent")[36:52] != want {
			t.Errorf("server %d was told of another span than %s", i, want)
		}
	}
}

// A stream that the model server resets is an event with HTTP/2's error code; an answer that has begun is one, too.
func TestResetsAreEvents(t *testing.T) {
	rc := receive(t, nil)
	s := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	good := serve(t, nil)
	r := start(t, `
routes:
  - model: fraud
    versions: [`+version("v7", good.addr)+`, `+version("v8", s.addr)+`]
    weights: {v8: 1}
    fallback: {to: [v7], on: [INTERNAL, UNAVAILABLE]}
`, tracing(t, rc.addr, "always_on", ""))
	r.call(modelInfer, infer("fraud", ""))
	spans := rc.attempts(t, r, 2)
	if e := eventOf(spans["primary"], "reset by the model server"); e == nil || e["http2.error_code"] != "2" {
		t.Errorf("events of the attempt that was reset: %v", spans["primary"].GetEvents())
	}
	if e := eventOf(spans["fallback"], "answer begun"); e == nil || e["at"] < fmt.Sprint(spans["fallback"].GetStartTimeUnixNano()) {
		t.Errorf("events of the attempt that was answered: %v", spans["fallback"].GetEvents())
	}
	if e := eventOf(spans["fallback"], "reset by the model server"); e != nil {
		t.Errorf("events of the attempt that was answered: %v", spans["fallback"].GetEvents())
	}
}

// A call that was slow by the route's own measure is kept, though it went well and was not sampled.
func TestSlowCallsAreKept(t *testing.T) {
	rc := receive(t, nil)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Request-Id") == "slow" {
			time.Sleep(300 * time.Millisecond)
		}
		ok(w, r)
	})
	r := start(t, routeTo("", s.addr)+"    breaker: {slow_call: 200ms}\n", tracing(t, rc.addr, "always_off", ""))
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "fast")
	r.call(modelInfer, infer("fraud", ""), "x-request-id", "slow")
	var call map[string]string
	r.until(t, "the span arrives", func() bool {
		for _, s := range rc.all() {
			if a := attributes(s.GetAttributes()); a["sluice.request_id"] == "slow" {
				call = a
			}
		}
		return call != nil
	})
	if call["sluice.kept"] != "slow" || call["rpc.response.status_code"] != "OK" {
		t.Errorf("got %v", call)
	}
}

// metricsReceiver is a collector of metrics that speaks OTLP over gRPC.
type metricsReceiver struct {
	collector.UnimplementedMetricsServiceServer
	addr string

	mu       sync.Mutex
	latest   map[string]*metrics.Metric
	resource map[string]string
}

func receiveMetrics(t *testing.T) *metricsReceiver {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &metricsReceiver{addr: ln.Addr().String(), latest: make(map[string]*metrics.Metric)}
	s := grpc.NewServer()
	collector.RegisterMetricsServiceServer(s, r)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		s.Stop()
		serving.Wait()
	})
	return r
}

// Export implements the collector's one method.
func (r *metricsReceiver) Export(_ context.Context, req *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rm := range req.GetResourceMetrics() {
		r.resource = attributes(rm.GetResource().GetAttributes())
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				r.latest[m.GetName()] = m
			}
		}
	}
	return new(collector.ExportMetricsServiceResponse), nil
}

func (r *metricsReceiver) metric(name string) *metrics.Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[name]
}

// What a real receiver gets by OTLP is what has happened: calls with their durations in an exponential histogram, attempts as a
// counter, states as gauges, all with the labels that Prometheus gets.
func TestMetricsByOTLPSayWhatHappened(t *testing.T) {
	begun := time.Now()
	rc := receiveMetrics(t)
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://"+rc.addr)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
	export, err := telemetry.ExportFromEnvironment(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, routesOf(version("v7", serve(t, nil).addr), version("v8", serve(t, fails(codes.Internal, "no")).addr)), func(cfg *Config) {
		cfg.Telemetry = telemetry.New(telemetry.Config{Version: "test", Logger: cfg.Logger, Export: export})
	})
	for range 7 {
		r.call(modelInfer, infer("fraud", ""))
	}
	for range 3 {
		r.call(modelInfer, infer("fraud", ""), "sluice-version", "v8")
	}
	durations := func() []*metrics.ExponentialHistogramDataPoint {
		return rc.metric("sluice_call_duration_seconds").GetExponentialHistogram().GetDataPoints()
	}
	total := func() (n uint64) {
		for _, p := range durations() {
			n += p.GetCount()
		}
		return n
	}
	attempted := func() (n float64) {
		for _, p := range rc.metric("sluice_attempts_total").GetSum().GetDataPoints() {
			n += p.GetAsDouble()
		}
		return n
	}
	r.until(t, "all calls, attempts and weights have arrived, each by itself", func() bool {
		return total() == 10 && attempted() == 10 && rc.metric("sluice_version_weight") != nil
	})
	for _, p := range durations() {
		a := attributes(p.GetAttributes())
		want := map[string]uint64{"v7 OK": 7, "v8 INTERNAL": 3}[a["version"]+" "+a["code"]]
		if p.GetCount() != want || a["model"] != "fraud" || p.GetSum() <= 0 || math.IsNaN(p.GetSum()) {
			t.Errorf("%v: %d calls that took %v s, want %d", a, p.GetCount(), p.GetSum(), want)
		}
		inBuckets := p.GetZeroCount()
		for _, n := range p.GetPositive().GetBucketCounts() {
			inBuckets += n
		}
		if inBuckets != want {
			t.Errorf("%v: %d calls in buckets, want %d", a, inBuckets, want)
		}
	}
	if h := rc.metric("sluice_call_duration_seconds").GetExponentialHistogram(); h.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		t.Errorf("durations are %v, want cumulative", h.GetAggregationTemporality())
	}
	attempts := rc.metric("sluice_attempts_total").GetSum()
	counted := make(map[string]float64)
	for _, p := range attempts.GetDataPoints() {
		counted[fmt.Sprint(attributes(p.GetAttributes()))] = p.GetAsDouble()
	}
	if !maps.Equal(counted, map[string]float64{
		"map[kind:primary model:fraud outcome:success reason:OK version:v7]":       7,
		"map[kind:primary model:fraud outcome:failure reason:INTERNAL version:v8]": 3,
	}) {
		t.Errorf("attempts %v", counted)
	}
	if !attempts.GetIsMonotonic() || attempts.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		t.Errorf("attempts are %v, monotonic %v; want a cumulative, monotonic sum", attempts.GetAggregationTemporality(), attempts.GetIsMonotonic())
	}
	weights := make(map[string]float64)
	for _, p := range rc.metric("sluice_version_weight").GetGauge().GetDataPoints() {
		weights[fmt.Sprint(attributes(p.GetAttributes()))] = p.GetAsDouble()
	}
	if !maps.Equal(weights, map[string]float64{"map[model:fraud version:v7]": 1, "map[model:fraud version:v8]": 0}) {
		t.Errorf("weights %v", weights)
	}
	// What counts says since when: the first of its kind, which was after the test began, and for good.
	type span struct{ start, at uint64 }
	spans := func() map[string]span {
		all := make(map[string]span)
		for _, p := range durations() {
			all[fmt.Sprint("durations ", attributes(p.GetAttributes()))] = span{p.GetStartTimeUnixNano(), p.GetTimeUnixNano()}
		}
		for _, p := range rc.metric("sluice_attempts_total").GetSum().GetDataPoints() {
			all[fmt.Sprint("attempts ", attributes(p.GetAttributes()))] = span{p.GetStartTimeUnixNano(), p.GetTimeUnixNano()}
		}
		return all
	}
	first := spans()
	now := uint64(time.Now().UnixNano()) // after what is there has arrived
	for series, s := range first {
		if s.start < uint64(begun.UnixNano()) || s.start > s.at || s.at > now {
			t.Errorf("%s from %d to %d, want from %d to %d at most", series, s.start, s.at, begun.UnixNano(), now)
		}
	}
	r.until(t, "everything arrives once more", func() bool {
		next := spans()
		for series, s := range first {
			if next[series].at <= s.at {
				return false
			}
			if next[series].start != s.start {
				t.Fatalf("%s since %d, and later since %d", series, s.start, next[series].start)
			}
		}
		return len(next) == len(first)
	})
	for name, what := range map[string]string{
		"sluice_attempts_total":        "Attempts, by why they were made and how they ended.",
		"sluice_call_duration_seconds": "Time from a call's header fields to its end, by who answered and with which status.",
	} {
		if got := rc.metric(name).GetDescription(); got != what {
			t.Errorf("%s is described as %q, want %q", name, got, what)
		}
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if rc.resource["service.name"] != "sluice" || rc.resource["service.version"] != "test" {
		t.Errorf("the resource is %v, want that of sluice, version test", rc.resource)
	}
}
