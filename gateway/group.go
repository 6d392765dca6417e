package gateway

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/breaker"
	"sluice/gateway/relay"
)

// group is the endpoints of one version. It outlives tables: when the version's
// endpoints change, so does the group, and whoever holds it sees the new ones.
// Safe for concurrent use; the list is replaced whole.
type group struct {
	list atomic.Pointer[[]*endpoint] // empty once the group is closed

	guard *breaker.Version // keeps the endpoints' breakers
	// open makes the connections to an address; host names the server for TLS.
	open func(addr, host string) *relay.Upstream
	// follow keeps the addresses of a name up to date, by set, until stopped.
	follow func(g *group, spec string) (stop func())
	// ask has an endpoint's server asked how it is; nil asks nobody.
	ask asker

	slowStart      atomic.Int64  // of endpoints that come back, a time.Duration
	counted        atomic.Int64  // when panicking was found out, as Unix time in nanoseconds
	panicking      atomic.Bool   // most endpoints would be ejected
	foundUnhealthy atomic.Uint64 // how often an endpoint became unhealthy

	mu      sync.Mutex // serialises changes
	specs   []*spec    // as configured
	byAddr  map[string]*endpoint
	probing probing
	born    time.Time // of the first endpoint
}

// spec is an endpoint as it is written in a route, and what it stands for now.
type spec struct {
	text  string
	addrs []string
	stop  func() // of a name's follower
}

func newGroup(
	guard *breaker.Version, open func(addr, host string) *relay.Upstream, follow func(*group, string) func(),
) *group {
	g := &group{guard: guard, open: open, follow: follow, byAddr: make(map[string]*endpoint)}
	g.list.Store(new([]*endpoint))
	return g
}

// configure makes texts, endpoints as written in a route, the group's own. A name
// stands for itself until it has been resolved, so that there is always an endpoint.
func (g *group) configure(texts []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.specs
	if slices.EqualFunc(old, texts, func(s *spec, text string) bool { return s.text == text }) {
		return
	}
	g.specs = make([]*spec, 0, len(texts))
	for _, text := range texts {
		if i := slices.IndexFunc(old, func(s *spec) bool { return s.text == text }); i >= 0 {
			g.specs = append(g.specs, old[i])
			old = slices.Delete(old, i, i+1)
			continue
		}
		s := &spec{text: text, addrs: []string{addrOf(text)}, stop: func() {}}
		if isName(text) {
			s.stop = g.follow(g, text)
		}
		g.specs = append(g.specs, s)
	}
	for _, s := range old {
		s.stop()
	}
	g.rebuild()
}

// set replaces the addresses that a name stands for. A name that is no longer
// configured stays without.
func (g *group) set(text string, addrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.specs {
		if s.text == text {
			s.addrs = addrs
			g.rebuild()
			return
		}
	}
}

// rebuild makes the list of the specs' addresses, each once. Endpoints that stay
// keep their connections and what is known of them; those that go finish their
// calls. g.mu is held.
func (g *group) rebuild() {
	next := make(map[string]*endpoint)
	list := make([]*endpoint, 0, len(g.byAddr))
	for _, s := range g.specs {
		for _, addr := range s.addrs {
			if next[addr] != nil {
				continue
			}
			e := g.byAddr[addr]
			if e == nil {
				e = g.newEndpoint(addr, hostOf(s.text))
			}
			next[addr] = e
			list = append(list, e)
		}
	}
	old := g.byAddr
	g.byAddr = next
	g.list.Store(&list) // before the rest retires: who picks now finds the others
	if len(list) > 0 {
		// A group that closes may have a successor with the same guard.
		g.guard.RetainEndpoints(slices.Collect(maps.Keys(next)))
	}
	for addr, e := range old {
		if next[addr] == nil {
			e.retired.Store(true)
			e.forgetHealth()
			e.up.Retire()
		}
	}
}

// newEndpoint makes an endpoint of an address. One that joins others begins slowly; a
// group that has just begun itself has no others. g.mu is held.
func (g *group) newEndpoint(addr, host string) *endpoint {
	now := time.Now()
	e := &endpoint{addr: addr, host: host, up: g.open(addr, host), breaker: g.guard.Endpoint(addr, now)}
	if g.born.IsZero() {
		g.born = now
	}
	if now.Sub(g.born) > g.probing.slowStart {
		e.back.Store(now.UnixNano())
	}
	g.watchHealth(e)
	return e
}

// close lets every endpoint finish its calls and take no more.
func (g *group) close() { g.configure(nil) }

// closed reports whether the version is gone.
func (g *group) closed() bool { return len(*g.list.Load()) == 0 }
