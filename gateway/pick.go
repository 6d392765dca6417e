package gateway

import (
	"math/rand/v2"
	"time"
)

// pick chooses an endpoint by power of two choices among those that can be reached and
// are not ejected, avoiding the one that has just failed if there is another. It
// returns nil if there is none at all: the group is closed, or operators have cut all
// of it off. With bypass, the endpoint's breaker does not decide: never more than half
// of the endpoints are ejected (panic threshold), for a fault that most of them have is
// hardly theirs, and the rest would not bear all calls. So a lone endpoint is left to
// the version's breaker. It takes no lock but those of two latencies, and allocates
// nothing.
func (g *group) pick(now time.Time, avoid *endpoint) (e *endpoint, bypass bool) {
	list := *g.list.Load()
	switch len(list) {
	case 0:
		return nil, false
	case 1:
		if list[0].breaker.Forced() {
			return nil, false
		}
		return list[0], true
	}
	i := rand.IntN(len(list))
	j := rand.IntN(len(list) - 1)
	if j >= i {
		j++
	}
	a, b := list[i], list[j]
	aOK, bOK := a.ready(now, avoid), b.ready(now, avoid)
	if aOK && bOK {
		return g.better(a, b, now), false
	}
	panicking := g.panics(list, now)
	if panicking {
		aOK, bOK = usable(a, avoid), usable(b, avoid)
	}
	switch {
	case aOK && bOK:
		return lighter(a, b, now), true // only in a panic
	case aOK:
		return a, panicking
	case bOK:
		return b, panicking
	}
	return pickAny(list, i, now, avoid, panicking)
}

// pickAny is what is left when neither of the two that were drawn will do. It looks
// from a random place, so that survivors share the load.
func pickAny(list []*endpoint, from int, now time.Time, avoid *endpoint, panicking bool) (e *endpoint, bypass bool) {
	var usual, forced *endpoint // the second and the third best
	for k := range list {
		switch e := list[(from+k)%len(list)]; {
		case e.ready(now, avoid):
			return e, panicking
		case usual == nil && usable(e, avoid):
			usual = e
		case forced == nil && !e.breaker.Forced():
			forced = e
		}
	}
	if usual == nil {
		usual = forced
	}
	return usual, usual != nil
}

// better chooses between two endpoints that may both be chosen. A breaker that waits
// for its probe gets it, however slow the endpoint was; one that has come back is not
// looked at for some of the calls.
func (g *group) better(a, b *endpoint, now time.Time) *endpoint {
	if aDue, bDue := a.breaker.ProbeDue(now), b.breaker.ProbeDue(now); aDue != bDue {
		if aDue {
			return a
		}
		return b
	}
	slowStart := time.Duration(g.slowStart.Load())
	aShare, bShare := a.share(now, slowStart), b.share(now, slowStart)
	if aShare >= 1 && bShare >= 1 {
		return lighter(a, b, now)
	}
	aIn, bIn := rand.Float64() < aShare, rand.Float64() < bShare
	switch {
	case aIn && !bIn:
		return a
	case bIn && !aIn:
		return b
	}
	// Few calls at once are what a small share looks like, and no reason for more.
	if b.loadFor(bShare, now) < a.loadFor(aShare, now) {
		return b
	}
	return a
}

// lighter returns the endpoint with less load.
func lighter(a, b *endpoint, now time.Time) *endpoint {
	if b.load(now) < a.load(now) {
		return b
	}
	return a
}

const (
	// countAlways is the number of endpoints that are counted for every call that meets
	// an ejected one.
	countAlways = 16
	// countEvery is how long a count of more endpoints holds.
	countEvery = 100 * time.Millisecond
)

// panics reports whether more than half of the endpoints that can be reached would be
// ejected. That an endpoint cannot be reached is no judgment, and does not count.
func (g *group) panics(list []*endpoint, now time.Time) bool {
	at := now.UnixNano()
	if age := at - g.counted.Load(); len(list) > countAlways && age >= 0 && age < int64(countEvery) {
		return g.panicking.Load()
	}
	reachable, out := 0, 0
	for _, e := range list {
		if !usable(e, nil) {
			continue
		}
		reachable++
		if e.ejected(now) {
			out++
		}
	}
	g.panicking.Store(2*out > reachable)
	g.counted.Store(at)
	return 2*out > reachable
}

// unhealthy reports whether asking has shown every endpoint of a group to be unhealthy.
// Those that were not asked yet, or cannot be, are as good as well.
func (g *group) unhealthy() bool {
	list := *g.list.Load()
	for _, e := range list {
		if !e.unhealthy.Load() {
			return false
		}
	}
	return len(list) > 0
}

// hasOther reports whether another endpoint than e would be picked with good hope: one
// that is not ejected, or in a panic one that does not hang.
func (g *group) hasOther(now time.Time, e *endpoint) bool {
	list := *g.list.Load()
	rest := false
	for _, o := range list {
		if o.ready(now, e) {
			return true
		}
		rest = rest || usable(o, e) && !o.unhealthy.Load()
	}
	return rest && g.panics(list, now)
}

// spares reports whether the version does well without e: others can be reached and
// are not ejected, and those that are, are not most of them.
func (g *group) spares(now time.Time, e *endpoint) bool {
	list := *g.list.Load()
	for _, o := range list {
		if o.ready(now, e) {
			return !g.panics(list, now)
		}
	}
	return false
}
