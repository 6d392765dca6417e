package routing

import (
	"slices"
	"strings"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// CutOff says what of a version operators have cut off.
type CutOff struct {
	// Version: all of it.
	Version bool
	// Endpoints are single addresses, as they are dialled.
	Endpoints []string
}

// setCutOffs tells the versions what of them is cut off. The document has been
// validated.
func (r *Route) setCutOffs(doc *routingv1.Route) {
	for _, d := range doc.GetCutOff() {
		v := r.byName[d.GetVersion()]
		if d.GetEndpoint() == "" {
			v.CutOff.Version = true
			continue
		}
		v.CutOff.Endpoints = append(v.CutOff.Endpoints, d.GetEndpoint())
	}
}

// cutOff wants known versions and addresses, each once. An address need not be
// listed: a name in DNS may stand for it.
func (r *rules) cutOff(at path, route *routingv1.Route) {
	names := versionNames(route)
	seen := make(map[[2]string]int)
	for i, c := range route.GetCutOff() {
		at := at.index(i)
		if v := c.GetVersion(); v != "" && !slices.Contains(names, v) {
			r.report(at.field("version"), quote(v), "one of the route's versions (%s)", list(names))
			continue
		}
		if e := c.GetEndpoint(); e != "" && (strings.Contains(e, "://") || checkAddress(e) != nil) {
			r.report(at.field("endpoint"), quote(e), "an address as it is dialled: host:port or [v6]:port")
			continue
		}
		key := [2]string{c.GetVersion(), c.GetEndpoint()}
		if first, twice := seen[key]; twice {
			r.report(at, "it a second time", "it once: it is cut_off[%d] already", first)
			continue
		}
		seen[key] = i
	}
}
