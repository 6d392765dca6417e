package gateway

import (
	"cmp"
	"context"
	"slices"
	"time"

	"sluice/breaker"
	"sluice/gateway/health"
	"sluice/routing"
)

// EndpointStatus is what calls and probes have found out about one address of a
// version.
type EndpointStatus struct {
	Addr     string // as dialled
	Failing  bool   // the last attempt to connect has failed
	Conns    int    // connections that are open
	InFlight int    // calls under way
	// Asked says that its server is asked how it is, and Health what came of it.
	Asked  bool
	Health health.Status
	// Breaker is the endpoint's own.
	Breaker breaker.Status
	// Ejected says that it would get no calls for its health or its breaker. It may get
	// some all the same while most of the endpoints are ejected, or if it is the only one.
	Ejected bool
	// Share is the part of its full share that it gets, less than 1 when it has just
	// come back.
	Share float64
}

// Endpoints returns the addresses of a version in the current table, in their
// order; none if it is not in there or no address is known for it. It may be
// called at any time.
func (g *Gateway) Endpoints(v *routing.Version) []EndpointStatus {
	s := g.director.snapshot.Load()
	if s == nil || s.targets.get(v) == nil {
		return nil
	}
	now := time.Now()
	group := s.targets.get(v).group
	var all []EndpointStatus
	for _, e := range *group.list.Load() {
		all = append(all, e.status(now, time.Duration(group.slowStart.Load())))
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int { return cmp.Compare(a.Addr, b.Addr) })
	return all
}

func (e *endpoint) status(now time.Time, slowStart time.Duration) EndpointStatus {
	return EndpointStatus{
		Addr: e.addr, Failing: e.up.Failing(), Conns: e.up.Conns(), InFlight: int(e.inFlight.Load()),
		Asked: e.watch.Load() != nil, Health: e.health(), Breaker: e.breaker.Status(now),
		Ejected: e.ejected(now), Share: e.share(now, slowStart),
	}
}

// AskEndpoint asks an endpoint as written in a version how it is, now. It returns nil
// if it is well, and takes until ctx ends at most.
func AskEndpoint(ctx context.Context, v *routing.Version, endpoint string) error {
	return health.Ask(ctx, health.Target{
		Server: health.Server{
			Addr: addrOf(endpoint), Transport: transportOf(v.TLS, hostOf(endpoint)), Kind: health.KindOf(v.Server),
		},
		Model: servedModel(v),
	})
}
