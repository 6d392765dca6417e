package gateway

import (
	"cmp"
	"time"

	"google.golang.org/grpc/credentials"

	"sluice/gateway/health"
	"sluice/routing"
)

// probing is what a group's servers are asked, and how. The zero value asks nobody.
type probing struct {
	on        bool
	kind      health.Kind
	model     health.Model // as the servers call it
	settings  health.Settings
	slowStart time.Duration // of endpoints that come back, asked or not
}

// asker has the server at an address asked, and tells of changes.
type asker func(addr, host string, p probing, changed func(health.Status)) *health.Watch

// probingOf is what the servers of a version are asked.
func probingOf(r *routing.Route, v *routing.Version) probing {
	h := r.Health
	if h.Off {
		return probing{slowStart: h.SlowStart}
	}
	return probing{
		on: true, kind: health.KindOf(v.Server), model: servedModel(v), slowStart: h.SlowStart,
		settings: health.Settings{Interval: h.Interval, Timeout: h.Timeout, FailAfter: h.FailAfter},
	}
}

// servedModel is the version's model as its servers call it.
func servedModel(v *routing.Version) health.Model {
	m := health.Model{Name: v.Model, Version: v.Rename.Version}
	if v.Rename.Model != "" {
		m.Name = v.Rename.Model
	}
	return m
}

// probe changes what the group's servers are asked.
func (g *group) probe(p probing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slowStart.Store(int64(p.slowStart))
	old := g.probing
	g.probing = p
	old.slowStart = p.slowStart
	if p == old {
		return
	}
	// What was said stands until there is an answer to the same question, asked anew.
	same := p.on && p.kind == old.kind && p.model == old.model
	for _, e := range g.byAddr {
		wasUnhealthy := e.unhealthy.Load()
		e.forgetHealth()
		e.unhealthy.Store(same && wasUnhealthy)
		g.watchHealth(e)
	}
}

// watchHealth has the endpoint's server asked, if the group's are. g.mu is held.
func (g *group) watchHealth(e *endpoint) {
	if g.probing.on && g.ask != nil {
		e.watch.Store(g.ask(e.addr, e.host, g.probing, func(s health.Status) { g.judge(e, s) }))
	}
}

// forgetHealth ends the watch of an endpoint.
func (e *endpoint) forgetHealth() {
	if w := e.watch.Swap(nil); w != nil {
		w.Stop()
	}
	e.unhealthy.Store(false)
}

// judge takes what has become of an endpoint.
func (g *group) judge(e *endpoint, s health.Status) {
	unhealthy := s.State == health.Unhealthy
	switch was := e.unhealthy.Swap(unhealthy); {
	case unhealthy && !was:
		g.foundUnhealthy.Add(1)
	case !unhealthy && was:
		e.returned(s.Since)
	}
}

// health returns what is known of an endpoint by asking it.
func (e *endpoint) health() health.Status {
	if w := e.watch.Load(); w != nil {
		return w.Status()
	}
	return health.Status{}
}

// transport is how the endpoints of a version are connected to for questions. Those
// that are equal share a connection.
type transport struct {
	settings routing.TLS
	host     string
}

// transportOf returns nil for plaintext.
func transportOf(settings *routing.TLS, host string) health.Transport {
	if settings == nil {
		return nil
	}
	return transport{*settings, host}
}

// ServerName implements [health.Transport].
func (t transport) ServerName() string { return cmp.Or(t.settings.ServerName, t.host) }

// Credentials implements [health.Transport]. The files are read for each connection.
func (t transport) Credentials() (credentials.TransportCredentials, error) {
	cfg, err := readClientTLS(t.settings, t.host)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(cfg), nil
}
