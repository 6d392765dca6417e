package gateway

import (
	"sluice/breaker"
	"sluice/routing"
)

// Guard returns what is known about the calls of a version in the current table, and
// takes orders about it; nil if the version is not in there. It may be called at any
// time.
func (g *Gateway) Guard(v *routing.Version) *breaker.Version {
	s := g.director.snapshot.Load()
	if s == nil || s.targets.get(v) == nil {
		return nil
	}
	return s.targets.get(v).guard
}

// Budget returns what a version of the current table may spend on second attempts,
// together with the others of its route; nil if it is not in there.
func (g *Gateway) Budget(v *routing.Version) *breaker.Budget {
	s := g.director.snapshot.Load()
	if s == nil || s.targets.get(v) == nil {
		return nil
	}
	return s.targets.get(v).budget
}

// SubscribeBreakers begins to collect changes of breakers, at most room of them
// unread; see [breaker.Events.Subscribe]. The caller closes the subscription.
func (g *Gateway) SubscribeBreakers(room int) *breaker.Subscription {
	return g.breakers.Events().Subscribe(room)
}
