package gateway

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"

	"sluice/telemetry"
)

// metrics are the values of everything but buckets, by name and labels as they are
// written in text.
func (r *rig) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	return gathered(t, r.cfg.Telemetry)
}

func gathered(t testing.TB, tel *telemetry.Telemetry) map[string]float64 {
	t.Helper()
	families, err := tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName() + labelsOf(m)
			switch {
			case m.Histogram != nil:
				all[name] = float64(m.GetHistogram().GetSampleCount())
			case m.Counter != nil:
				all[name] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				all[name] = m.GetGauge().GetValue()
			}
		}
	}
	return all
}

func labelsOf(m *dto.Metric) string {
	var parts []string
	for _, l := range m.GetLabel() {
		parts = append(parts, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ",") + "}"
}

// of returns the metrics of one family, by their labels.
func of(all map[string]float64, family string) map[string]float64 {
	some := make(map[string]float64)
	for name, v := range all {
		if rest, ok := strings.CutPrefix(name, family+"{"); ok {
			some["{"+rest] = v
		}
	}
	return some
}

// want compares a family with what it should be, whole.
func want(t *testing.T, all map[string]float64, family string, want map[string]float64) {
	t.Helper()
	if got := of(all, family); !maps.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", family, got, want)
	}
}

// What callers and servers have counted is what the metrics say, to the last one,
// whatever happened to the calls.
func TestMetricsAgreeWithCallersAndServers(t *testing.T) {
	v8 := serve(t, fails(codes.Internal, "no"))
	v7 := serve(t, nil)
	r := start(t, `
routes:
  - model: fraud
    versions: [`+version("v7", v7.addr)+`, `+version("v8", v8.addr)+`]
    weights: {v8: 1}
    fallback: {to: [v7], on: [INTERNAL]}
    breaker: {consecutive: 4, open_for: 60s, max_open_for: 60s}
`)
	type seen struct {
		version, code, fallback string
	}
	callers := make(map[seen]float64)
	var bytes, attempts float64
	count := func(path string, body io.Reader, extra ...string) {
		if s, ok := body.(interface{ Len() int }); ok {
			bytes += float64(s.Len())
		}
		a := r.call(path, body, extra...)
		callers[seen{a.one("sluice-version"), fmt.Sprint(uint32(a.code)), a.one("sluice-fallback")}]++
		n, err := strconv.ParseFloat(a.one("sluice-attempts"), 64)
		if err != nil {
			t.Fatal(err)
		}
		attempts += n
	}
	for range 20 {
		count(modelInfer, infer("fraud", ""))
	}
	for range 3 {
		count(modelInfer, infer("fraud", "v7"))
		count(modelInfer, infer("fraud", "v8"))
	}
	all := r.metrics(t)

	wantCallers := map[seen]float64{
		{"v7", "0", "v8 INTERNAL"}:     4,
		{"v7", "0", "v8 BREAKER_OPEN"}: 16,
		{"v7", "0", ""}:                3,
		{"v8", "14", ""}:               3,
	}
	if !maps.Equal(callers, wantCallers) {
		t.Errorf("callers saw %v, want %v", callers, wantCallers)
	}
	want(t, all, "sluice_call_duration_seconds", map[string]float64{
		`{code="OK",model="fraud",version="v7"}`:          23,
		`{code="UNAVAILABLE",model="fraud",version="v8"}`: 3,
	})
	want(t, all, "sluice_fallbacks_total", map[string]float64{
		`{from="v8",model="fraud",reason="INTERNAL",to="v7"}`:     4,
		`{from="v8",model="fraud",reason="BREAKER_OPEN",to="v7"}`: 16,
	})
	want(t, all, "sluice_attempts_total", map[string]float64{
		`{kind="primary",model="fraud",outcome="failure",reason="INTERNAL",version="v8"}`: float64(len(v8.calls())),
		`{kind="fallback",model="fraud",outcome="success",reason="OK",version="v7"}`:      20,
		`{kind="primary",model="fraud",outcome="success",reason="OK",version="v7"}`:       3,
	})
	if n := float64(len(v7.calls()) + len(v8.calls())); attempts != n {
		t.Errorf("callers were told of %v attempts, servers saw %v", attempts, n)
	}
	want(t, all, "sluice_attempt_duration_seconds", map[string]float64{
		`{model="fraud",outcome="failure",version="v8"}`: 4,
		`{model="fraud",outcome="success",version="v7"}`: 23,
	})
	want(t, all, "sluice_version_refusals_total", map[string]float64{
		`{model="fraud",reason="BREAKER_OPEN",version="v8"}`: 19,
	})
	want(t, all, "sluice_refused_calls_total", map[string]float64{
		`{model="fraud",reason="BREAKER_OPEN",version="v8"}`: 3,
	})
	want(t, all, "sluice_breaker_state", map[string]float64{
		`{model="fraud",version="v7"}`: 0, `{model="fraud",version="v8"}`: 2,
	})
	sent := of(all, "sluice_request_bytes_total")
	if got := sent[`{model="fraud",version="v7"}`] + sent[`{model="fraud",version="v8"}`]; got != bytes {
		t.Errorf("%v bytes of requests were counted, %v sent", got, bytes)
	}
	r.until(t, "the breaker's change is counted", func() bool {
		return r.metrics(t)[`sluice_breaker_transitions_total{cause="consecutive failures",model="fraud",scope="version",to="open",version="v8"}`] == 1
	})
}

// A client can write what it likes: it makes no series.
func TestClientsMakeNoSeries(t *testing.T) {
	r := start(t, routesOf(version("v7", serve(t, nil).addr)))
	noise := func(i int) {
		n := strconv.Itoa(i)
		r.call(modelInfer, infer("model-"+n, ""))
		r.call("/shop"+n+".Till/Pay"+n, message())
		r.call("/shop.Till/Pay"+n, message(), "sluice-model", "fraud", "x-request-id", n, "x-any-"+n, n, "traceparent", n)
		r.call(modelInfer, infer("fraud", "version-"+n), "sluice-key", n)
	}
	for i := range 60 { // until there are enough for a p95, and too many for a line each
		noise(i)
	}
	before := slices.Sorted(maps.Keys(sluice(r.metrics(t))))
	for i := range 2_500 {
		noise(100 + i)
	}
	all := r.metrics(t)
	if after := slices.Sorted(maps.Keys(sluice(all))); !slices.Equal(before, after) {
		t.Errorf("series were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	want(t, all, "sluice_call_duration_seconds", map[string]float64{
		`{code="NOT_FOUND",model="_OTHER",version=""}`:     2_560,
		`{code="UNIMPLEMENTED",model="_OTHER",version=""}`: 2_560,
		`{code="OK",model="fraud",version="v7"}`:           2_560,
		`{code="NOT_FOUND",model="fraud",version=""}`:      2_560,
	})
}

// sluice are the metrics of the gateway's own, not of Go and the process, and not of
// what a busy machine may make telemetry give up.
func sluice(all map[string]float64) map[string]float64 {
	maps.DeleteFunc(all, func(name string, _ float64) bool {
		return !strings.HasPrefix(name, "sluice_") || strings.HasPrefix(name, "sluice_telemetry_dropped_total")
	})
	return all
}

// Series end with their route, also if a call outlives it.
func TestSeriesEndWithTheirRoute(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Wait") != "" {
			close(begun)
			<-finish
		}
		ok(w, q)
	})
	r := start(t, routesOf(version("v7", s.addr)))
	r.call(modelInfer, infer("fraud", ""))
	r.call(modelInfer, infer("fraud", "v99"))
	done := make(chan *answer)
	go func() { done <- r.call(modelInfer, infer("fraud", ""), "wait", "1") }()
	<-begun
	r.publish(2, strings.ReplaceAll(routesOf(version("v1", s.addr)), "fraud", "other"))
	close(finish)
	if a := <-done; a.code != codes.OK {
		t.Errorf("got %v %q", a.code, a.message)
	}
	for name := range r.metrics(t) {
		if strings.Contains(name, `"fraud"`) {
			t.Errorf("%s is still there", name)
		}
	}
	r.publish(3, routesOf(version("v7", s.addr)))
	r.call(modelInfer, infer("fraud", ""))
	want(t, r.metrics(t), "sluice_call_duration_seconds", map[string]float64{
		`{code="OK",model="fraud",version="v7"}`: 1,
	})
}

// Calls that end before they can be looked at are counted like any others.
func TestUnseenCallsAreCounted(t *testing.T) {
	r := start(t, routesOf(version("v7", serve(t, nil).addr)))
	resp, err := r.client.Get("http://" + r.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	want(t, r.metrics(t), "sluice_call_duration_seconds", map[string]float64{`{code="INTERNAL",model="_OTHER",version=""}`: 1})
	want(t, r.metrics(t), "sluice_refused_calls_total", map[string]float64{`{model="_OTHER",reason="BAD_REQUEST",version=""}`: 1})
}

// A call that its caller gives up is one that was cancelled, and so is its attempt.
func TestCallsGivenUpAreCountedAsCancelled(t *testing.T) {
	begun := make(chan struct{})
	v7 := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	r := start(t, routesOf(version("v7", v7.addr)))
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		<-begun
		giveUp()
	}()
	if a, err := r.try(ctx, modelInfer, infer("fraud", "")); err == nil {
		t.Fatalf("got %+v of a call that was given up", a)
	}
	r.until(t, "the call is counted", func() bool {
		return r.metrics(t)[`sluice_call_duration_seconds{code="CANCELLED",model="fraud",version="v7"}`] == 1
	})
	all := r.metrics(t)
	want(t, all, "sluice_attempts_total", map[string]float64{
		`{kind="primary",model="fraud",outcome="excluded",reason="CANCELLED",version="v7"}`: 1,
	})
	want(t, all, "sluice_refused_calls_total", map[string]float64{})
	want(t, all, "sluice_slo_calls_total", map[string]float64{`{model="fraud",objective="availability"}`: 0})
}

// TestRefusedCallThatOutlivesItsRoute makes no series of the route anew, which nobody would ever take away.
func TestRefusedCallThatOutlivesItsRoute(t *testing.T) {
	r := start(t, routesOf(version("v7", "127.0.0.1:1")))
	s := newCall()
	defer s.free()
	s.snap = r.director.snapshot.Load()
	s.route, _ = s.snap.table.Route("fraud")
	r.publish(2, strings.ReplaceAll(routesOf(version("v7", "127.0.0.1:1")), "fraud", "other"))
	tel := r.director.telemetry
	tel.Record(&telemetry.Call{Series: r.director.seriesOf(s), Reason: reasonVersionNotFound})
	if tel.Tally("fraud") != nil || tel.Known("fraud", "") != nil {
		t.Error("the route is gone, and is counted for")
	}
	for name := range r.metrics(t) {
		if strings.Contains(name, `"fraud"`) {
			t.Errorf("%s is still there", name)
		}
	}
}
