package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/breaker"
	"sluice/gateway/health"
	"sluice/gateway/relay"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/drift"
)

// targets turns tables into snapshots. What lives longer than a table, groups of
// endpoints and breakers, is kept from one to the next, so that a change of weights
// touches no connection. One goroutine uses it at a time.
type targets struct {
	relay     *relay.Relay
	breakers  *breaker.Group // keyed by version
	telemetry *telemetry.Telemetry
	drift     *drift.Monitor // nil: no data is watched
	logger    *slog.Logger
	lookup    lookup
	checker   *health.Checker // nil: nobody is asked
	ctx       context.Context // of everything it starts
	spawn     func(func())

	last   *snapshot
	groups map[groupKey]*liveGroup
	shadows
	tables uint64 // how many there have been
}

func newTargets(ctx context.Context, r *relay.Relay, b *breaker.Group, cfg *Config, spawn func(func())) *targets {
	t := &targets{
		relay: r, breakers: b, telemetry: cfg.Telemetry, drift: cfg.Drift, logger: cfg.Logger, lookup: cfg.lookup, ctx: ctx, spawn: spawn,
		last: new(snapshot), groups: make(map[groupKey]*liveGroup), shadows: newShadows(),
	}
	if !cfg.askNobody {
		t.checker = health.New(ctx, spawn)
	}
	return t
}

// groupKey identifies what is reached, and how. With other addresses a group is
// still the same; another certificate means other connections.
type groupKey struct {
	version string // routing.Version.ID
	secure  bool
	tls     routing.TLS
}

type liveGroup struct {
	*group
	key   groupKey
	table uint64 // the number of the latest table that has it
}

// prepare builds the snapshot of a table and returns what has to happen once it
// is in use: groups that no version refers to any more are closed. Tables share
// the routes that have not changed, so their targets are taken over as they are.
func (t *targets) prepare(table *routing.Table) (s *snapshot, retire func()) {
	t.tables++
	s = &snapshot{
		table:    table,
		targets:  make(map[*routing.Version]*target, len(t.last.targets)),
		shadows:  make(map[*routing.Route][]*shadowed),
		revision: hpack.HeaderField{Name: "sluice-revision", Value: table.RevisionText()},
	}
	now := time.Now()
	for r := range table.Routes() {
		for _, v := range r.Versions {
			tg := t.last.targets[v]
			if tg == nil {
				guard := t.breakers.Update(v.ID, versionSettings(r, v), now)
				tg = newTarget(v, t.groupFor(r, v, guard), guard, t.breakers.Budget(r.Model, now), t.telemetry.Series(v.Model, v.Name))
				t.telemetry.Tally(v.Model).SetLimit(r.Objectives.Latency)
				tg.data = t.watchData(r, v)
			}
			tg.group.table = t.tables
			s.targets[v] = tg
		}
		if len(r.Shadows) > 0 {
			s.shadows[r] = t.shadowsOf(r, s.targets, t.tables, now)
		}
	}
	t.last = s
	return s, func() {
		t.closeOthers()
		t.shadows.closeOthers(t.tables, t.spawn)
		t.retainData()
	}
}

// closeOthers closes the groups that the latest table does not have, and forgets
// their breakers.
func (t *targets) closeOthers() {
	if len(t.groups) == len(t.last.targets) {
		return // one for each version
	}
	table := t.last.table
	for key, g := range t.groups {
		if g.table != t.tables {
			delete(t.groups, key)
			g.close()
		}
	}
	versions := make(map[string]bool, len(t.groups))
	for key := range t.groups {
		versions[key.version] = true
	}
	routed := func(model string) bool { _, ok := table.Route(model); return ok }
	t.breakers.Retain(func(id string) bool { return versions[id] }, routed)
	t.telemetry.Retain(func(model, version string) bool {
		return routed(model) && (version == "" || versions[model+" "+version])
	})
}

// groupFor returns the version's group, with the endpoints it has now.
func (t *targets) groupFor(r *routing.Route, v *routing.Version, guard *breaker.Version) *liveGroup {
	key := groupKey{version: v.ID}
	if v.TLS != nil {
		key.secure, key.tls = true, *v.TLS
	}
	g := t.groups[key]
	if g == nil {
		g = &liveGroup{key: key, group: newGroup(guard, t.opener(v.TLS), t.follow)}
		g.ask = t.asker(v)
		t.groups[key] = g
	}
	g.probe(probingOf(r, v))
	g.configure(v.Endpoints)
	return g
}

// opener returns how addresses with these TLS settings are connected to.
func (t *targets) opener(settings *routing.TLS) func(addr, host string) *relay.Upstream {
	return func(addr, host string) *relay.Upstream {
		cfg := relay.UpstreamConfig{Addr: addr}
		if settings != nil {
			files := newClientTLS(*settings, host, t.logger)
			cfg.TLS = func() (*tls.Config, error) { return files.config() }
		}
		return t.relay.NewUpstream(cfg)
	}
}

// asker returns how endpoints of a version are asked how they are.
func (t *targets) asker(v *routing.Version) asker {
	if t.checker == nil {
		return nil
	}
	settings, id, logger := v.TLS, v.ID, t.logger
	return func(addr, host string, p probing, changed func(health.Status)) *health.Watch {
		target := health.Target{
			Server: health.Server{Addr: addr, Transport: transportOf(settings, host), Kind: p.kind}, Model: p.model,
		}
		was := health.Unknown
		return t.checker.Watch(target, p.settings, func(s health.Status) {
			logHealth(logger, id, addr, was, s)
			was = s.State
			changed(s)
		})
	}
}

// follow starts to look the name of an endpoint up.
func (t *targets) follow(g *group, spec string) (stop func()) {
	ctx, stop := context.WithCancel(t.ctx)
	t.spawn(func() { follow(ctx, g, spec, t.lookup, t.logger) })
	return stop
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
		Limits: breaker.Limits{
			InFlight: int(r.Limits.InFlight), Reserve: int(r.Limits.Reserve), Adaptive: r.Limits.Adaptive,
		},
		Preset: preset,
		CutOff: v.CutOff.Version, CutOffEndpoints: v.CutOff.Endpoints,
	}
}
