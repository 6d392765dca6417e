package breaker

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Group keeps versions and budgets by key, while routing tables come and go. The key of a version is
// a string of the caller's, such as "fraud v7". Its methods are for publishing tables and for
// operators; the path of a call uses what they have returned.
type Group struct {
	events Events

	mu       sync.Mutex
	versions map[string]*Version
	budgets  map[string]*Budget
}

// NewGroup returns an empty group.
func NewGroup() *Group {
	return &Group{versions: make(map[string]*Version), budgets: make(map[string]*Budget)}
}

// Events is where changes of the group's breakers can be followed.
func (g *Group) Events() *Events { return &g.events }

// Update returns the version of that key with these settings. One that exists keeps its state and its
// identity.
func (g *Group) Update(key string, s VersionSettings, now time.Time) *Version {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v := g.versions[key]; v != nil {
		v.update(s, now)
		return v
	}
	v := newVersion(key, s, now, &g.events)
	g.versions[key] = v
	return v
}

// Budget returns the budget of a route, which is made if there is none.
func (g *Group) Budget(route string, now time.Time) *Budget {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.budgets[route]
	if b == nil {
		b = NewBudget(now)
		g.budgets[route] = b
	}
	return b
}

// Version returns the version of that key.
func (g *Group) Version(key string) (*Version, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v, ok := g.versions[key]
	return v, ok
}

// Retain forgets the versions and the routes that the functions do not claim. Permits given out for
// them may still be settled.
func (g *Group) Retain(version, route func(key string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.versions, func(key string, _ *Version) bool { return !version(key) })
	maps.DeleteFunc(g.budgets, func(key string, _ *Budget) bool { return !route(key) })
}

// Status returns what can be said about all versions now, sorted by key.
func (g *Group) Status(now time.Time) []VersionStatus {
	g.mu.Lock()
	versions := maps.Clone(g.versions)
	g.mu.Unlock()
	all := make([]VersionStatus, 0, len(versions))
	for _, key := range slices.Sorted(maps.Keys(versions)) {
		all = append(all, versions[key].Status(now))
	}
	return all
}
