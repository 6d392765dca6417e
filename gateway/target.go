package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/breaker"
	"sluice/gateway/relay"
	"sluice/routing"
)

// target is what the path of a call needs of one version, prepared when its table
// is published.
type target struct {
	version *routing.Version
	key     string // of its group
	group   *group
	guard   *breaker.Version
	budget  *breaker.Budget // of the route
	renames *renames
	model   hpack.HeaderField // sluice-model
	name    hpack.HeaderField // sluice-version
}

// snapshot is everything a call reads of the routing state.
type snapshot struct {
	table    *routing.Table
	targets  map[*routing.Version]*target
	revision hpack.HeaderField // sluice-revision
}

// targets turns tables into snapshots. Groups of endpoints are kept from one to the
// next as long as a version's addresses and TLS settings stay the same, so that
// a change of weights touches no connection. One goroutine uses it.
type targets struct {
	relay  *relay.Relay
	cfg    *Config
	ctx    context.Context // of everything it starts
	spawn  func(func())
	groups map[string]*liveGroup // by groupKey
	last   map[*routing.Version]*target
	// breakers outlive tables like groups, keyed by version alone.
	breakers *breaker.Group
}

type liveGroup struct {
	*group
	stop context.CancelFunc
}

// groupKey identifies a set of connections: what a version is and how it is
// reached.
func groupKey(v *routing.Version) string {
	key := v.ID + "\n" + strings.Join(v.Endpoints, "\n")
	if v.TLS != nil {
		key += fmt.Sprintf("\n%+v", *v.TLS)
	}
	return key
}

// prepare builds the snapshot of a table and returns what has to happen once it
// is in use: groups that no version refers to any more are closed. Tables share
// the routes that have not changed, so their targets are taken over as they are.
func (t *targets) prepare(table *routing.Table) (s *snapshot, retire func()) {
	s = &snapshot{
		table:    table,
		targets:  make(map[*routing.Version]*target, len(t.last)),
		revision: hpack.HeaderField{Name: "sluice-revision", Value: table.RevisionText()},
	}
	live := make(map[string]*liveGroup, len(t.groups))
	now, versions := time.Now(), make(map[string]bool, len(t.last))
	for r := range table.Routes() {
		budget := t.breakers.Budget(r.Model, now)
		for _, v := range r.Versions {
			versions[v.ID] = true
			if same := t.last[v]; same != nil {
				s.targets[v], live[same.key] = same, t.groups[same.key]
				continue
			}
			key := groupKey(v)
			guard := t.breakers.Update(v.ID, versionSettings(r, v), now)
			g := t.groups[key]
			if g == nil {
				g = t.newGroup(v, guard)
			}
			live[key] = g
			s.targets[v] = newTarget(v, key, g.group, guard, budget)
		}
	}
	old := t.groups
	t.groups, t.last = live, s.targets
	return s, func() {
		for key, g := range old {
			if live[key] == nil {
				g.stop()
				g.close()
			}
		}
		t.breakers.Retain(func(id string) bool { return versions[id] },
			func(model string) bool { _, ok := table.Route(model); return ok })
	}
}

// versionSettings says a route's settings in the breaker's words.
func versionSettings(r *routing.Route, v *routing.Version) breaker.VersionSettings {
	preset, err := breaker.ParsePreset(v.Server)
	if err != nil {
		preset = breaker.Generic // the schema accepts no other names
	}
	b := r.Breaker
	return breaker.VersionSettings{
		Settings: breaker.Settings{
			FailureRatio: b.FailureRatio, MinCalls: b.MinCalls, Consecutive: b.Consecutive,
			OpenFor: b.OpenFor, MaxOpenFor: b.MaxOpenFor, SlowCall: b.SlowCall, DryRun: b.DryRun,
		},
		Limits: breaker.Limits{InFlight: int(r.InFlight)},
		Preset: preset,
	}
}

func newTarget(v *routing.Version, key string, g *group, guard *breaker.Version, budget *breaker.Budget) *target {
	return &target{
		version: v, key: key, group: g, guard: guard, budget: budget,
		renames: renamesOf(v.Rename),
		model:   hpack.HeaderField{Name: "sluice-model", Value: v.Model},
		name:    hpack.HeaderField{Name: "sluice-version", Value: v.Name},
	}
}

// newGroup starts following a version's endpoints.
func (t *targets) newGroup(v *routing.Version, guard *breaker.Version) *liveGroup {
	open := func(addr, host string) *relay.Upstream {
		cfg := relay.UpstreamConfig{Addr: addr}
		if v.TLS != nil {
			files := newClientTLS(*v.TLS, host)
			cfg.TLS = func() (*tls.Config, error) { return files.config() }
		}
		return t.relay.NewUpstream(cfg)
	}
	ctx, stop := context.WithCancel(t.ctx)
	g := &liveGroup{newGroup(guard, open), stop}
	for _, spec := range slices.Compact(slices.Sorted(slices.Values(v.Endpoints))) {
		if isName(spec) {
			t.spawn(func() { follow(ctx, g.group, spec, t.cfg.lookup, t.cfg.Logger) })
		} else {
			g.set(spec, hostOf(spec), []string{spec})
		}
	}
	return g
}
