package routing

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// rules gathers problems with rules that join several fields.
type rules struct{ problems []problem }

// checkRules applies the rules that the schema cannot say simply.
func checkRules(doc *routingv1.Document) []problem {
	var r rules
	root := path{}.field("routes")
	models, services := owners{}, owners{}
	for i, route := range doc.GetRoutes() {
		at := root.index(i)
		r.distinct(models, at.field("model"), route.GetModel(), "a model that no other route has")
		for j, s := range route.GetServices() {
			r.distinct(services, at.field("services").index(j), s, "a service that is listed once")
		}
		r.versions(at, route)
		r.weights(at, route)
		r.timeout(at, route.GetTimeout())
		r.fallback(at.field("fallback"), route)
		r.limits(at.field("limits"), route.GetLimits())
		r.openTimes(at.field("breaker"), route.GetBreaker())
		r.health(at.field("health"), route.GetHealth())
		r.drift(at.field("drift"), route.GetDrift())
		r.labels(at.field("labels"), route.GetLabels())
		r.faults(at.field("faults"), route)
		r.cutOff(at.field("cut_off"), route)
		r.shadows(at.field("shadow"), route)
		r.share(at.field("capture").field("percent"), route.GetCapture().GetPercent())
	}
	return r.problems
}

func (r *rules) report(at path, got, want string, args ...any) {
	r.problems = append(r.problems, problem{at: at, got: got, want: fmt.Sprintf(want, args...)})
}

// owners remembers where a name was seen first.
type owners map[string]path

// distinct reports a name that was seen before. An empty name is the schema's
// business.
func (r *rules) distinct(seen owners, at path, name, want string) {
	if name == "" {
		return
	}
	if first, ok := seen[name]; ok {
		r.report(at, quote(name), "%s: it is %s already", want, first)
		return
	}
	seen[name] = at
}

func (r *rules) versions(at path, route *routingv1.Route) {
	names := owners{}
	for i, v := range route.GetVersions() {
		at := at.field("versions").index(i)
		r.distinct(names, at.field("name"), v.GetName(), "a name that no other version of the route has")
		r.tls(at.field("tls"), v.GetTls())
		endpoints := owners{}
		for j, e := range v.GetEndpoints() {
			at := at.field("endpoints").index(j)
			if err := checkEndpoint(e); err != nil {
				r.report(at, quote(e), "%s: %v", endpointForms, err)
				continue
			}
			r.distinct(endpoints, at, e, "an endpoint that is listed once")
		}
	}
}

// versionNames are the names of a route's versions, in their order.
func versionNames(route *routingv1.Route) []string {
	var names []string
	for _, v := range route.GetVersions() {
		names = append(names, v.GetName())
	}
	return names
}

func (r *rules) weights(at path, route *routingv1.Route) {
	at = at.field("weights")
	names := versionNames(route)
	allNamed := len(names) > 0 && !slices.Contains(names, "") // else the schema's business
	var sum uint64
	for _, name := range slices.Sorted(maps.Keys(route.GetWeights())) {
		if allNamed && !slices.Contains(names, name) {
			r.report(at.key(name), quote(name), "one of the route's versions (%s)", list(names))
		}
		sum += uint64(route.GetWeights()[name])
	}
	switch {
	case sum == 0:
		got := "nothing"
		if len(route.GetWeights()) > 0 {
			got = "only 0"
		}
		r.report(at, got, "a weight above 0 for at least one version")
	case sum > math.MaxUint32:
		r.report(at, fmt.Sprintf("a sum of %d", sum), "weights that add up to at most %d", uint32(math.MaxUint32))
	}
}

// MaxTimeout is the longest deadline of a call where the route sets none.
const MaxTimeout = 300 * time.Second

func (r *rules) timeout(at path, t *routingv1.Timeout) {
	if t.GetDefault() == nil {
		return
	}
	longest, want := MaxTimeout, "at most %s where the route sets no timeout.max"
	if t.GetMax() != nil {
		longest, want = t.GetMax().AsDuration(), "at most timeout.max (%s)"
	}
	if d := t.GetDefault().AsDuration(); d > longest {
		r.report(at.field("timeout").field("default"), d.String(), want, longest)
	}
}

// fallback wants known versions, each once, and a reserve that something can use.
func (r *rules) fallback(at path, route *routingv1.Route) {
	names := versionNames(route)
	seen := owners{}
	for i, name := range route.GetFallback().GetTo() {
		at := at.field("to").index(i)
		if !slices.Contains(names, name) {
			r.report(at, quote(name), "one of the route's versions (%s)", list(names))
			continue
		}
		r.distinct(seen, at, name, "a version that is listed once")
	}
	if d := route.GetFallback().GetReserve(); d != nil && !slices.Contains(route.GetFallback().GetOn(), code.Code_DEADLINE_EXCEEDED.String()) {
		r.report(at.field("reserve"), d.AsDuration().String(), "DEADLINE_EXCEEDED in fallback.on, or no reserve: it is kept for calls that ran out of their part of the deadline")
	}
}

// limits wants places that are left beside the reserve.
func (r *rules) limits(at path, l *routingv1.Limits) {
	if most := inFlight(l); l.GetReserve() >= most {
		r.report(at.field("reserve"), fmt.Sprint(l.GetReserve()), "a number below in_flight (%d)", most)
	}
}

func (r *rules) openTimes(at path, b *routingv1.Breaker) {
	if b.GetOpenFor() == nil || b.GetMaxOpenFor() == nil {
		return
	}
	if least, most := b.GetOpenFor().AsDuration(), b.GetMaxOpenFor().AsDuration(); most < least {
		r.report(at.field("max_open_for"), most.String(), "at least open_for (%s)", least)
	}
}

// health wants no settings of probes where there are none.
func (r *rules) health(at path, h *routingv1.Health) {
	if !h.GetOff() {
		return
	}
	report := func(field, got string) {
		r.report(at.field(field), got, "nothing, since health.off asks no endpoint")
	}
	if h.GetInterval() != nil {
		report("interval", h.GetInterval().AsDuration().String())
	}
	if h.GetTimeout() != nil {
		report("timeout", h.GetTimeout().AsDuration().String())
	}
	if h.FailAfter != nil {
		report("fail_after", fmt.Sprint(h.GetFailAfter()))
	}
}

// tls looks at what has no meaning without, or with, something else.
func (r *rules) tls(at path, t *routingv1.TLS) {
	switch {
	case t.GetCertFile() != "" && t.GetKeyFile() == "":
		r.report(at.field("key_file"), "nothing", "a file, since there is a cert_file")
	case t.GetCertFile() == "" && t.GetKeyFile() != "":
		r.report(at.field("cert_file"), "nothing", "a file, since there is a key_file")
	}
	if t.GetInsecureSkipVerify() && t.GetCaFile() != "" {
		r.report(at.field("ca_file"), quote(t.GetCaFile()), "nothing, since insecure_skip_verify makes it meaningless")
	}
}

// maxShadows is how many shadows a route may have.
const maxShadows = 8

// shadows wants known versions, each once, and rules for each output once.
func (r *rules) shadows(at path, route *routingv1.Route) {
	if n := len(route.GetShadow()); n > maxShadows {
		r.report(at, fmt.Sprintf("%d shadows", n), "at most %d", maxShadows)
	}
	var names []string
	for _, v := range route.GetVersions() {
		names = append(names, v.GetName())
	}
	seen := owners{}
	for i, s := range route.GetShadow() {
		at := at.index(i)
		if name := s.GetVersion(); name != "" && !slices.Contains(names, name) {
			r.report(at.field("version"), quote(name), "one of the route's versions (%s)", list(names))
		} else {
			r.distinct(seen, at.field("version"), name, "a version that is listed once")
		}
		r.share(at.field("percent"), s.GetPercent())
		outputs := map[string]path{}
		for j, o := range s.GetCompare().GetOutputs() {
			at := at.field("compare").field("outputs").index(j).field("name")
			if first, ok := outputs[o.GetName()]; ok {
				r.report(at, quote(o.GetName()), "an output that is listed once: it is %s already", first)
				continue
			}
			outputs[o.GetName()] = at
		}
	}
}

// share wants a percentage that is a multiple of a hundredth; its range is the schema's.
func (r *rules) share(at path, percent float64) {
	if percent > 0 && percent <= 100 && math.Abs(percent*100-math.Round(percent*100)) > 1e-6 {
		r.report(at, fmt.Sprint(percent), "a multiple of 0.01")
	}
}

// list joins names for an error, and cuts the list where it gets long.
func list(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
