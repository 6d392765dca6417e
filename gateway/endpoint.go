package gateway

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
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
	latency  peakEWMA
	breaker  *breaker.Breaker
}

// load is what power-of-two choices compare.
func (e *endpoint) load(now time.Time) float64 {
	return e.latency.load(now, e.inFlight.Load())
}

// group is the endpoints of one version. Addresses come from configuration and
// from DNS; the list is replaced whole.
type group struct {
	list atomic.Pointer[[]*endpoint]

	mu     sync.Mutex           // serialises changes of the list
	byAddr map[string]*endpoint // of list
	bySpec map[string][]string  // addresses that each configured endpoint stands for now
	open   func(addr, host string) *relay.Upstream
	guard  *breaker.Version
}

func newGroup(guard *breaker.Version, open func(addr, host string) *relay.Upstream) *group {
	g := &group{guard: guard, byAddr: make(map[string]*endpoint), bySpec: make(map[string][]string), open: open}
	g.list.Store(new([]*endpoint))
	return g
}

// set replaces the addresses that spec stands for; none removes it. Endpoints
// that stay keep their connections; those that go finish their calls. host names
// the server for TLS.
func (g *group) set(spec, host string, addrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(addrs) == 0 {
		delete(g.bySpec, spec)
	} else {
		g.bySpec[spec] = addrs
	}
	next := make(map[string]*endpoint)
	var list []*endpoint
	for s, addrs := range g.bySpec {
		for _, a := range addrs {
			if next[a] != nil {
				continue
			}
			e := g.byAddr[a]
			if e == nil {
				h := host
				if s != spec {
					h = hostOf(s)
				}
				e = &endpoint{addr: a, up: g.open(a, h), breaker: g.guard.Endpoint(a, time.Now())}
			}
			next[a] = e
			list = append(list, e)
		}
	}
	old := g.byAddr
	g.byAddr = next
	g.list.Store(&list)
	g.guard.RetainEndpoints(slices.Collect(maps.Keys(next)))
	for a, e := range old {
		if next[a] == nil {
			e.up.Retire()
		}
	}
}

// close lets every endpoint finish its calls and take no more.
func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.byAddr {
		e.up.Retire()
	}
	g.byAddr, g.bySpec = map[string]*endpoint{}, map[string][]string{}
	g.list.Store(new([]*endpoint))
}

// pick chooses an endpoint by power of two choices among those that can be
// reached and are not cut off, avoiding the one that has just failed if there is
// another. It returns nil if there is none at all. With bypass, breakers do not
// decide: a lone endpoint is left to the version's breaker, and when most are cut
// off the fault is hardly theirs, so all are tried (panic threshold).
func (g *group) pick(now time.Time, avoid *endpoint) (e *endpoint, bypass bool) {
	list := *g.list.Load()
	switch len(list) {
	case 0:
		return nil, false
	case 1:
		return list[0], true
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
	if 2*cutOff > len(list) {
		return lighter(a, b, now), true
	}
	for k := range list {
		if e := list[(i+k)%len(list)]; usable(e, avoid) {
			return e, true
		}
	}
	return a, true
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

func usable(e, avoid *endpoint) bool { return e != avoid && !e.up.Failing() }
