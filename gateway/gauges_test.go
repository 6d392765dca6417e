package gateway

import (
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// What is read when somebody asks for metrics is how things stand at that moment.
func TestGaugesSayHowThingsStand(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	v7 := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-goOn
		ok(w, r)
	})
	v8 := serve(t, fails(codes.Internal, "no"))
	r := start(t, `
routes:
  - model: fraud
    versions: [`+version("v7", v7.addr)+`, `+version("v8", v8.addr)+`]
    weights: {v7: 3, v8: 1}
    limits: {in_flight: 77}
    slo: {availability: 90, latency: {p99: 10s}}
  - model: quiet
    versions: [`+version("v1", v8.addr)+`]
    weights: {v1: 1}
`)
	want(t, r.metrics(t), "sluice_slo_calls_total", map[string]float64{ // before the first call: what is not there cannot grow
		`{model="fraud",objective="availability"}`: 0, `{model="fraud",objective="latency"}`: 0, `{model="quiet",objective="availability"}`: 0,
	})
	for range 2 {
		r.call(modelInfer, infer("fraud", ""), "sluice-version", "v8")
	}
	answered := make(chan *answer, 1)
	go func() {
		a, _ := r.try(t.Context(), modelInfer, infer("fraud", ""), "sluice-version", "v7")
		answered <- a
	}()
	<-begun
	r.judge.look(time.Now())
	all := r.metrics(t)
	want(t, all, "sluice_version_weight", map[string]float64{
		`{model="fraud",version="v7"}`: 3, `{model="fraud",version="v8"}`: 1, `{model="quiet",version="v1"}`: 1,
	})
	want(t, all, "sluice_in_flight", map[string]float64{
		`{model="fraud",version="v7"}`: 1, `{model="fraud",version="v8"}`: 0, `{model="quiet",version="v1"}`: 0,
	})
	want(t, all, "sluice_slo_bad_calls_total", map[string]float64{
		`{model="fraud",objective="availability"}`: 2, `{model="fraud",objective="latency"}`: 0, `{model="quiet",objective="availability"}`: 0,
	})
	for name, v := range map[string]float64{
		"sluice_calls_in_flight": 1, "sluice_connections": 1, "sluice_ready": 1, "sluice_routes": 2, "sluice_route_revision": 1,
		`sluice_in_flight_limit{model="fraud",version="v7"}`:                               77,
		`sluice_endpoint_in_flight{endpoint="` + v7.addr + `",model="fraud",version="v7"}`: 1,
		`sluice_endpoint_reachable{endpoint="` + v7.addr + `",model="fraud",version="v7"}`: 1,
		`sluice_slo_target{model="fraud",objective="availability"}`:                        0.9,
		`sluice_slo_budget_left{model="fraud",objective="availability"}`:                   1 - 1/0.1, // both calls were bad
		`sluice_slo_budget_left{model="fraud",objective="latency"}`:                        1,
		`sluice_slo_burn_rate{model="fraud",objective="availability",window="5m"}`:         1 / 0.1,
		`sluice_slo_burn_rate{model="fraud",objective="latency",window="3d"}`:              0,
	} {
		if got := all[name]; got < v-1e-9 || got > v+1e-9 {
			t.Errorf("%s is %v, want %v", name, got, v)
		}
	}
	close(goOn)
	if a := <-answered; a == nil || a.code != codes.OK {
		t.Fatalf("got %+v", a)
	}
	r.until(t, "the call is over", func() bool {
		return r.metrics(t)[`sluice_in_flight{model="fraud",version="v7"}`] == 0
	})
	want(t, r.metrics(t), "sluice_slo_calls_total", map[string]float64{
		`{model="fraud",objective="availability"}`: 3, `{model="fraud",objective="latency"}`: 1, `{model="quiet",objective="availability"}`: 0,
	})
	want(t, r.metrics(t), "sluice_slo_bad_calls_total", map[string]float64{
		`{model="fraud",objective="availability"}`: 2, `{model="fraud",objective="latency"}`: 0, `{model="quiet",objective="availability"}`: 0,
	})
}
