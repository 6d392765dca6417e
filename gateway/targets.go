package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/breaker"
	"sluice/gateway/health"
	"sluice/gateway/relay"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/drift"
	"sluice/telemetry/incident"
	"sluice/telemetry/labels"
)

// targets turns tables into snapshots. What lives longer than a table, groups of
// endpoints and breakers, is kept from one to the next, so that a change of weights
// touches no connection. One goroutine uses it at a time.
type targets struct {
	relay     *relay.Relay
	breakers  *breaker.Group // keyed by version
	telemetry *telemetry.Telemetry
	drift     *drift.Monitor  // nil: no data is watched
	labels    *labels.Monitor // nil: no labels are taken
	logger    *slog.Logger
	changes   *telemetry.ChangeLog
	incidents *incident.Tracker // nil: none are kept
	lookup    lookup
	checker   *health.Checker // nil: nobody is asked
	ctx       context.Context // of everything it starts
	spawn     func(func())

	last     *snapshot
	shadowed map[string]*routing.Route // those of last that have shadows, by model

	groups   map[groupKey]*liveGroup
	data     map[drift.Key]*routing.Version  // whose data is watched
	labelled map[labels.Key]*routing.Version // for which labels are taken
	shadows
	tapes
	tables uint64 // how many there have been
}

func newTargets(ctx context.Context, r *relay.Relay, b *breaker.Group, cfg *Config, incidents *incident.Tracker, spawn func(func())) *targets {
	t := &targets{
		relay: r, breakers: b, telemetry: cfg.Telemetry, drift: cfg.Drift, labels: cfg.Labels, logger: cfg.Logger, changes: cfg.changes, incidents: incidents, lookup: cfg.lookup, ctx: ctx, spawn: spawn,
		last: &snapshot{table: new(routing.Table), targets: new(targetSet)}, shadowed: make(map[string]*routing.Route), groups: make(map[groupKey]*liveGroup),
		data: make(map[drift.Key]*routing.Version), labelled: make(map[labels.Key]*routing.Version), shadows: newShadows(cfg.Telemetry), tapes: newTapes(cfg.CaptureDir, cfg.Logger),
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

func keyOf(v *routing.Version) groupKey {
	key := groupKey{version: v.ID}
	if v.TLS != nil {
		key.secure, key.tls = true, *v.TLS
	}
	return key
}

type liveGroup struct {
	*group
	key groupKey
}

// prepare builds the snapshot of a table and returns what has to happen once it
// is in use: groups that no version refers to any more are closed. Tables share
// the routes that have not changed, so their targets are taken over as they are. Where
// thousands have changed, it lets calls that wait for a processor go first.
func (t *targets) prepare(table *routing.Table) (s *snapshot, retire func()) {
	t.tables++
	s = &snapshot{
		table:    table,
		shadows:  make(map[*routing.Route][]*shadowed),
		revision: hpack.HeaderField{Name: "sluice-revision", Value: table.RevisionText()},
	}
	now := time.Now()
	added := make(map[*routing.Version]*target)
	var gone []*routing.Route
	looked := 0
	for model := range table.ChangedSince(t.last.table) {
		if looked++; looked%yieldEvery == 0 {
			runtime.Gosched()
		}
		if old, ok := t.last.table.Route(model); ok {
			gone = append(gone, old)
		}
		delete(t.shadowed, model)
		r, ok := table.Route(model)
		t.tapes.changed(model, r)
		if !ok {
			continue
		}
		if len(r.Shadows) > 0 {
			t.shadowed[model] = r
		}
		for _, v := range r.Versions {
			added[v] = t.targetFor(r, v, now)
		}
	}
	s.targets = t.last.targets.without(gone, added)
	for _, r := range t.shadowed {
		s.shadows[r] = t.shadowsOf(r, s.targets, t.tables, now)
	}
	s.tapes = t.tapes.current()
	t.last = s
	return s, func() {
		t.closeGroups(gone)
		t.shadows.closeOthers(t.tables, t.spawn)
		t.tapes.closeOthers(t.spawn)
		t.retainData(gone)
		t.retainLabels(gone)
	}
}

// yieldEvery is a number of routes whose targets take some ten microseconds to make.
const yieldEvery = 4

// targetFor makes the target of a version that is new or otherwise.
func (t *targets) targetFor(r *routing.Route, v *routing.Version, now time.Time) *target {
	guard := t.breakers.Update(v.ID, versionSettings(r, v), now)
	tg := newTarget(v, t.groupFor(r, v, guard), guard, t.breakers.Budget(r.Model, now), t.telemetry.Series(v.Model, v.Name))
	tg.refused = t.telemetry.Series(v.Model, "")
	t.telemetry.Tally(v.Model).SetLimit(r.Objectives.Latency)
	tg.data = t.watchData(r, v)
	tg.labels = t.takeLabels(r, v)
	tg.faults = faultsOf(v, t.faultsBefore(v))
	return tg
}

// faultsBefore returns the faults that a version has had so far.
func (t *targets) faultsBefore(v *routing.Version) []fault {
	old, ok := t.last.table.Route(v.Model)
	if !ok || len(v.Faults) == 0 {
		return nil
	}
	for _, was := range old.Versions {
		if was.ID == v.ID {
			return t.last.targets.get(was).faults
		}
	}
	return nil
}

// closeGroups closes the groups of routes that are gone, but for those that the routes
// in their places have too, and forgets their breakers.
func (t *targets) closeGroups(gone []*routing.Route) {
	closed := false
	for _, r := range gone {
		kept := make(map[groupKey]bool)
		if now, ok := t.last.table.Route(r.Model); ok {
			for _, v := range now.Versions {
				kept[keyOf(v)] = true
			}
		}
		for _, v := range r.Versions {
			key := keyOf(v)
			if g := t.groups[key]; g != nil && !kept[key] {
				delete(t.groups, key)
				g.close()
				closed = true
			}
		}
	}
	if !closed {
		return
	}
	versions := make(map[string]bool, len(t.groups))
	for key := range t.groups {
		versions[key.version] = true
	}
	routed := func(model string) bool {
		_, ok := t.last.table.Route(model)
		return ok
	}
	t.breakers.Retain(func(id string) bool { return versions[id] }, routed)
	t.telemetry.Retain(func(model, version string) bool {
		return routed(model) && (version == "" || versions[model+" "+version])
	})
}

// groupFor returns the version's group, with the endpoints it has now.
func (t *targets) groupFor(r *routing.Route, v *routing.Version, guard *breaker.Version) *liveGroup {
	key := keyOf(v)
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
	settings, id, changes, incidents := v.TLS, v.ID, t.changes, t.incidents
	return func(addr, host string, p probing, changed func(health.Status)) *health.Watch {
		target := health.Target{
			Server: health.Server{Addr: addr, Transport: transportOf(settings, host), Kind: p.kind}, Model: p.model,
		}
		was := health.Unknown
		return t.checker.Watch(target, p.settings, func(s health.Status) {
			tellHealth(changes, incidents, id, addr, was, s)
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
