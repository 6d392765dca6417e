package gateway

import (
	"cmp"
	"crypto/tls"
	"slices"

	"sluice/routing"
)

// EndpointStatus is what calls have found out about one address of a version.
type EndpointStatus struct {
	Addr     string // as dialled
	Failing  bool   // the last attempt to connect has failed
	Conns    int    // connections that are open
	InFlight int    // calls under way
}

// Endpoints returns the addresses of a version in the current table, in their
// order; none if it is not in there or no address is known for it. It may be
// called at any time.
func (g *Gateway) Endpoints(v *routing.Version) []EndpointStatus {
	s := g.director.snapshot.Load()
	if s == nil || s.targets[v] == nil {
		return nil
	}
	var all []EndpointStatus
	for _, e := range *s.targets[v].group.list.Load() {
		all = append(all, EndpointStatus{Addr: e.addr, Failing: e.up.Failing(), Conns: e.up.Conns(), InFlight: int(e.inFlight.Load())})
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int { return cmp.Compare(a.Addr, b.Addr) })
	return all
}

// ClientTLS returns how to connect to an endpoint, by the settings of its
// version; host is the endpoint's.
func ClientTLS(t routing.TLS, host string) (*tls.Config, error) { return readClientTLS(t, host) }
