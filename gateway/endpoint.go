package gateway

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sluice/breaker"
	"sluice/gateway/relay"
)

// endpoint is one address of a version.
type endpoint struct {
	addr     string // the address dialled
	up       *relay.Upstream
	inFlight atomic.Int64
	retired  atomic.Bool // no longer in its group
	latency  peakEWMA
	breaker  *breaker.Breaker
}

// load is what power-of-two choices compare.
func (e *endpoint) load(now time.Time) float64 {
	return e.latency.load(now, e.inFlight.Load())
}

// pick chooses an endpoint by power of two choices among those that can be
// reached and are not cut off, avoiding the one that has just failed if there is
// another. It returns nil if there is none at all: the group is closed, or operators have
// cut all of it off. With bypass, breakers do not decide: a lone endpoint is left to the
// version's breaker, and when most are cut off the fault is hardly theirs, so all are tried
// (panic threshold) but those that an operator has cut off.
func (g *group) pick(now time.Time, avoid *endpoint) (e *endpoint, bypass bool) {
	list := *g.list.Load()
	switch len(list) {
	case 0:
		return nil, false
	case 1:
		if e := list[0]; !e.breaker.Forced() {
			return e, true
		}
		return nil, false
	}
	i := rand.IntN(len(list))
	j := rand.IntN(len(list) - 1)
	if j >= i {
		j++
	}
	a, b := list[i], list[j]
	aOK, bOK := a.ready(now, avoid), b.ready(now, avoid)
	switch {
	case aOK && bOK:
		return lighter(a, b, now), false
	case aOK:
		return a, false
	case bOK:
		return b, false
	}
	cutOff := 0
	for k := range list { // from a random place, so that survivors share the load
		e := list[(i+k)%len(list)]
		if e.ready(now, avoid) {
			return e, false
		}
		if !e.breaker.Ready(now) {
			cutOff++
		}
	}
	if 2*cutOff > len(list) && !a.breaker.Forced() && !b.breaker.Forced() {
		return lighter(a, b, now), true
	}
	for k := range list {
		if e := list[(i+k)%len(list)]; usable(e, avoid) {
			return e, true
		}
	}
	for k := range list {
		if e := list[(i+k)%len(list)]; !e.breaker.Forced() {
			return e, true
		}
	}
	return nil, false
}

// lighter returns the endpoint with less load.
func lighter(a, b *endpoint, now time.Time) *endpoint {
	if b.load(now) < a.load(now) {
		return b
	}
	return a
}

// ready reports whether e can be reached and its breaker lets calls through.
func (e *endpoint) ready(now time.Time, avoid *endpoint) bool {
	return usable(e, avoid) && e.breaker.Ready(now)
}

// hasOther reports whether another endpoint than e can be reached.
func (g *group) hasOther(e *endpoint) bool {
	for _, o := range *g.list.Load() {
		if usable(o, e) {
			return true
		}
	}
	return false
}

// hasReady reports whether another endpoint than e can be reached and is not cut off.
func (g *group) hasReady(now time.Time, e *endpoint) bool {
	for _, o := range *g.list.Load() {
		if o.ready(now, e) {
			return true
		}
	}
	return false
}

func usable(e, avoid *endpoint) bool {
	return e != avoid && !e.breaker.Forced() && !e.up.Failing()
}
