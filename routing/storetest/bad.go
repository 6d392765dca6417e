package storetest

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Bad is a document that has to be refused.
type Bad struct {
	Field string // that is wrong
	Route *routingv1.Route
}

// BadRoutes returns more than 200 routes of model "m" with the versions v1 and v2, no two of
// them the same, each with one thing wrong, over all settings that a route has.
func BadRoutes() []Bad {
	var all []Bad
	for _, way := range spoiled {
		for n := range way.times {
			r := Route("m", "v1", "v2")
			way.how(r, n)
			all = append(all, Bad{way.field, r})
		}
	}
	return all
}

// values is how many bad values most settings are tried with.
const values = 5

// tooLong, tooShort and notNumbers are values that no setting takes.
func tooLong(n int) *durationpb.Duration {
	return durationpb.New(time.Duration(100_000+n) * time.Hour)
}

func tooShort(n int) *durationpb.Duration { return durationpb.New(-time.Duration(n+1) * time.Second) }

func outside(n int) *durationpb.Duration {
	if n%2 == 0 {
		return tooLong(n)
	}
	return tooShort(n)
}

// odd is text that is no name, no code and no host and port.
func odd(n int) string {
	return []string{"wiTh space", "ünicode", "new\nline", "a,b", "tab\tbed"}[n%values] + strings.Repeat("x", n/values)
}

func negative(n int) float64 { return -0.5 - float64(n) }

// spoiled are ways to make a good route bad.
var spoiled = []struct {
	field string
	times int
	how   func(r *routingv1.Route, n int)
}{
	{"model", 1, func(r *routingv1.Route, _ int) { r.Model = "" }},
	{"model", values, func(r *routingv1.Route, n int) { r.Model = strings.Repeat("x", 129+n) }},
	{"model", values, func(r *routingv1.Route, n int) { r.Model = odd(n) }},
	{"versions", 1, func(r *routingv1.Route, _ int) { r.Versions = nil }},
	{"versions[0].name", values, func(r *routingv1.Route, n int) { r.Versions[0].Name = odd(n) }},
	{"versions[1].name", 1, func(r *routingv1.Route, _ int) { r.Versions[1].Name = "v1" }},
	{"versions[0].endpoints", 1, func(r *routingv1.Route, _ int) { r.Versions[0].Endpoints = nil }},
	{"versions[0].endpoints[0]", values, func(r *routingv1.Route, n int) { r.Versions[0].Endpoints[0] = fmt.Sprint("host", n) }},
	{"versions[0].endpoints[0]", values, func(r *routingv1.Route, n int) { r.Versions[0].Endpoints[0] = fmt.Sprint("host:", 65536+n) }},
	{"versions[0].endpoints[1]", 1, func(r *routingv1.Route, _ int) {
		r.Versions[0].Endpoints = append(r.Versions[0].Endpoints, r.Versions[0].Endpoints[0])
	}},
	{"versions[0].server", values, func(r *routingv1.Route, n int) { r.Versions[0].Server = fmt.Sprint("server", n) }},
	{"versions[0].tls.cert_file", values, func(r *routingv1.Route, n int) {
		r.Versions[0].Tls = &routingv1.TLS{KeyFile: fmt.Sprint("key", n)}
	}},
	{"weights.unknown", values, func(r *routingv1.Route, n int) { r.Weights["unknown"] = uint32(n) }},
	{"weights", 1, func(r *routingv1.Route, _ int) { clear(r.Weights) }},
	{"sticky", 1, func(r *routingv1.Route, _ int) { r.Sticky = &routingv1.Sticky{} }},
	{"sticky.metadata", values, func(r *routingv1.Route, n int) { r.Sticky = &routingv1.Sticky{Metadata: odd(n)} }},
	{"sticky.salt", values, func(r *routingv1.Route, n int) { r.Sticky = &routingv1.Sticky{Salt: strings.Repeat("x", 129+n)} }},
	{"services[0]", values, func(r *routingv1.Route, n int) { r.Services = []string{fmt.Sprint("pkg/", n)} }},
	{"services[1]", values, func(r *routingv1.Route, n int) { r.Services = []string{fmt.Sprint("pkg.S", n), fmt.Sprint("pkg.S", n)} }},

	{"timeout.default", values, func(r *routingv1.Route, n int) { r.Timeout = &routingv1.Timeout{Default: outside(n)} }},
	{"timeout.max", values, func(r *routingv1.Route, n int) { r.Timeout = &routingv1.Timeout{Max: outside(n)} }},
	{"limits.in_flight", 1, func(r *routingv1.Route, _ int) { r.Limits = &routingv1.Limits{InFlight: new(uint32)} }},
	{"breaker.failure_ratio", values, func(r *routingv1.Route, n int) { r.Breaker = &routingv1.Breaker{FailureRatio: 1.5 + float64(n)} }},
	{"breaker.open_for", values, func(r *routingv1.Route, n int) { r.Breaker = &routingv1.Breaker{OpenFor: outside(n)} }},
	{"breaker.max_open_for", values, func(r *routingv1.Route, n int) { r.Breaker = &routingv1.Breaker{MaxOpenFor: outside(n)} }},
	{"breaker.slow_call", values, func(r *routingv1.Route, n int) { r.Breaker = &routingv1.Breaker{SlowCall: outside(n)} }},
	{"fallback.to", 1, func(r *routingv1.Route, _ int) { r.Fallback = &routingv1.Fallback{On: []string{"ABORTED"}} }},
	{"fallback.to[0]", values, func(r *routingv1.Route, n int) { r.Fallback = fallback(fmt.Sprint("v", n+3)) }},
	{"fallback.on[0]", values, func(r *routingv1.Route, n int) { r.Fallback = fallback("v1", odd(n)) }},
	{"fallback.reserve", values, func(r *routingv1.Route, n int) {
		r.Fallback = fallback("v1", "ABORTED")
		r.Fallback.Reserve = outside(n)
	}},
	{"fallback.force_sha256", values, func(r *routingv1.Route, n int) {
		r.Fallback = fallback("v1", "ABORTED")
		r.Fallback.ForceSha256 = strings.Repeat("f", n+1)
	}},
	{"hedge.delay", values, func(r *routingv1.Route, n int) { r.Hedge = &routingv1.Hedge{Delay: outside(n)} }},
	{"priority", 1, func(r *routingv1.Route, _ int) { r.Priority = &routingv1.Priority{} }},
	{"priority.metadata", values, func(r *routingv1.Route, n int) { r.Priority = &routingv1.Priority{Metadata: odd(n)} }},
	{"priority.default", values, func(r *routingv1.Route, n int) { r.Priority = &routingv1.Priority{Default: odd(n)} }},
	{"health.interval", values, func(r *routingv1.Route, n int) { r.Health = &routingv1.Health{Interval: outside(n)} }},
	{"health.timeout", values, func(r *routingv1.Route, n int) { r.Health = &routingv1.Health{Timeout: outside(n)} }},
	{"health.slow_start", values, func(r *routingv1.Route, n int) { r.Health = &routingv1.Health{SlowStart: outside(n)} }},
	{"health.fail_after", values, func(r *routingv1.Route, n int) {
		after := uint32(101 + n)
		r.Health = &routingv1.Health{FailAfter: &after}
	}},
	{"shadow[0].version", values, func(r *routingv1.Route, n int) {
		r.Shadow = []*routingv1.Shadow{{Version: fmt.Sprint("v", n+3), Percent: 1}}
	}},
	{"shadow[0].percent", values, func(r *routingv1.Route, n int) {
		r.Shadow = shadowed(r, &routingv1.Shadow{Percent: 100.5 + float64(n)})
	}},
	{"shadow[0].max_rate", values, func(r *routingv1.Route, n int) {
		r.Shadow = shadowed(r, &routingv1.Shadow{Percent: 1, MaxRate: negative(n)})
	}},
	{"faults[0].version", values, func(r *routingv1.Route, n int) { r.Faults = faulty(fmt.Sprint("v", n+3), 1, "ABORTED") }},
	{"faults[0].percent", values, func(r *routingv1.Route, n int) { r.Faults = faulty("v1", negative(n), "ABORTED") }},
	{"faults[0].status", values, func(r *routingv1.Route, n int) { r.Faults = faulty("v1", 1, odd(n)) }},
	{"slo", 1, func(r *routingv1.Route, _ int) { r.Slo = &routingv1.SLO{} }},
	{"slo.availability", values, func(r *routingv1.Route, n int) { r.Slo = &routingv1.SLO{Availability: 100 + float64(n)} }},
	{"slo.latency.p99", values, func(r *routingv1.Route, n int) {
		r.Slo = &routingv1.SLO{Latency: &routingv1.LatencyObjective{P99: outside(n)}}
	}},
	{"drift.window", values, func(r *routingv1.Route, n int) { r.Drift = &routingv1.Drift{Window: outside(n)} }},
	{"drift.effect", values, func(r *routingv1.Route, n int) {
		effect := negative(n)
		r.Drift = &routingv1.Drift{Effect: &effect}
	}},
	{"cut_off[0].version", values, func(r *routingv1.Route, n int) { r.CutOff = []*routingv1.CutOff{{Version: fmt.Sprint("v", n+3)}} }},
}

func fallback(to string, on ...string) *routingv1.Fallback {
	return &routingv1.Fallback{To: []string{to}, On: on}
}

// shadowed makes v2 a shadow.
func shadowed(r *routingv1.Route, s *routingv1.Shadow) []*routingv1.Shadow {
	delete(r.Weights, "v2")
	s.Version = "v2"
	return []*routingv1.Shadow{s}
}

func faulty(version string, percent float64, status string) []*routingv1.Fault {
	return []*routingv1.Fault{{Version: version, Percent: percent, Status: status}}
}
