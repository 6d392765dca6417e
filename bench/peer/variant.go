package peer

import (
	"fmt"
	"strings"

	"sluice/bench/payload"
)

// Variant is a way to configure the gateway. The zero value is [AllPolicies] with the
// program's defaults, telemetry among them.
type Variant struct {
	Name   string
	About  string
	Routes func(Site) string // the file of routes
	Args   []string          // further ones of sluice serve
	Env    []string          // "KEY=value"
}

// Variants are what the gateway is measured as, beside its full form: each leaves
// something out or adds something, so that the difference is what that costs.
func Variants() []Variant {
	return []Variant{
		{Name: "sluice-plain", About: "one version, defaults, no telemetry", Routes: onePlain, Args: []string{"--telemetry", "off"}},
		{Name: "sluice-quiet", About: "all policies, no telemetry", Args: []string{"--telemetry", "off"}},
		{Name: "sluice-shadow", About: "all policies, and copies of 10 % of the calls to a shadow", Routes: shadowed},
		{Name: "sluice-drift", About: "all policies, and drift watched by default settings", Routes: watched},
		{Name: "sluice-labels", About: "all policies, and an id of the prediction with every answer", Routes: labelled("{}")},
		{Name: "sluice-labels-read", About: "the same, and every answer is read for its prediction", Routes: labelled("{predicts: number}")},
		{Name: "sluice-unsampled", About: "traces on, no call sampled", Env: traces("0")},
		{Name: "sluice-sampled", About: "traces on, 1 % of calls sampled", Env: traces("0.01")},
		{Name: "sluice-10", About: "all policies, and 9 other routes", Routes: amongRoutes(10)},
		{Name: "sluice-10k", About: "all policies, and 9,999 other routes", Routes: amongRoutes(10_000)},
	}
}

// traces export the spans of a share of calls to a collector at the usual port, such as
// bench/collector. Metrics stay where they are asked for.
func traces(ratio string) []string {
	return []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + ratio}
}

// AllPolicies is a route that has what a careful operator sets: two versions that share the
// calls, sticky keys, fallback with its part of the deadline and so a copy of each request, hedging
// that never comes about, breaker, limits, priorities, deadlines.
func AllPolicies(site Site) string {
	return fmt.Sprintf(`routes:
  - model: %[1]s
    versions:
      - {name: a, endpoints: ["%[2]s"], server: triton}
      - {name: b, endpoints: ["%[2]s"], server: triton}
    weights: {a: 95, b: 5}
    sticky: {metadata: x-user-id}
    fallback: {to: [a], on: [UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED], reserve: 1s}
    hedge: {delay: 2s}
    timeout: {default: 15s, max: 60s}
    limits: {in_flight: 4096, reserve: 64}
    priority: {metadata: x-priority}
    breaker: {failure_ratio: 0.5, min_calls: 20, consecutive: 5, open_for: 5s, max_open_for: 60s}
`, payload.Model, site.Backend)
}

// shadowed is AllPolicies with a third version that gets copies.
func shadowed(site Site) string {
	route := AllPolicies(site)
	route = strings.Replace(route, "    weights:", fmt.Sprintf("      - {name: c, endpoints: [%q]}\n    weights:", site.Copies), 1)
	return route + "    shadow: [{version: c, percent: 10}]\n"
}

// watched is AllPolicies with samples of each version compared with what is learnt of the first ones.
func watched(site Site) string { return AllPolicies(site) + "    drift: {}\n" }

// labelled is AllPolicies with labels taken. The answers of the bench have some ninety numbers where one is wanted, which is
// found out once all of them are decoded.
func labelled(settings string) func(Site) string {
	return func(site Site) string { return AllPolicies(site) + "    labels: " + settings + "\n" }
}

// onePlain is the shortest route there is.
func onePlain(site Site) string {
	return fmt.Sprintf("routes:\n  - model: %s\n    versions: [{name: a, endpoints: [%q]}]\n    weights: {a: 100}\n", payload.Model, site.Backend)
}

// amongRoutes is AllPolicies among n routes.
func amongRoutes(n int) func(Site) string {
	return func(site Site) string {
		var b strings.Builder
		b.WriteString(AllPolicies(site))
		for i := range n - 1 {
			fmt.Fprintf(&b, "  - model: other-%04d\n    versions: [{name: a, endpoints: [%q]}]\n    weights: {a: 100}\n", i, site.Backend)
		}
		return b.String()
	}
}
