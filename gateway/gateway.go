package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sluice/breaker"
	"sluice/gateway/relay"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/drift"
	"sluice/telemetry/incident"
	"sluice/telemetry/labels"
)

// Config says how a gateway runs. Zero fields take the stated defaults.
type Config struct {
	// Listen is the data address, default 127.0.0.1:8001.
	Listen string
	// Admin is the address of /metrics, /livez, /readyz and what [Gateway.ServeAdmin] mounts,
	// default 127.0.0.1:8002; "off" opens none.
	Admin string
	// AdminTLS makes the admin address speak TLS with the data port's certificate.
	AdminTLS bool
	// Metrics is an address that serves /metrics, /livez and /readyz and nothing else; empty
	// opens none.
	Metrics string
	// TLSCert and TLSKey are PEM files; with both set the data port speaks TLS.
	// They are read again when they change.
	TLSCert, TLSKey string
	// DrainDelay is how long the gateway still takes calls after it has said
	// that it is not ready. Default 5 s; negative: none.
	DrainDelay time.Duration
	// DrainTimeout is how long calls may then take to end. Default 30 s.
	DrainTimeout time.Duration
	// Version is what the gateway says of itself.
	Version string
	// Logger receives what operators should know. It must not block, as that would hold up calls: see
	// sluice/telemetry/logqueue. Default slog.Default().
	Logger *slog.Logger
	// Telemetry gets a record of every call, and is served at /metrics. Nil: nothing is
	// recorded.
	Telemetry *telemetry.Telemetry
	// Incidents keeps incidents; nil, and a nil Telemetry, keep none. Name is this gateway's among those
	// that share them.
	Incidents incident.Shelf
	Name      string
	// Drift watches the data of versions whose routes say so; nil watches nothing. Run
	// runs it.
	Drift *drift.Monitor
	// Labels gives predictions of routes that say so an id, and takes labels for them; nil does neither. Run runs it.
	Labels *labels.Monitor
	// CaptureDir is the folder below which calls of routes that say so are kept; empty keeps
	// none.
	CaptureDir string
	// Relay are the limits of the data path; see [relay.Defaults].
	Relay relay.Config

	changes   *telemetry.ChangeLog
	troubles  *telemetry.ChangeLog
	lookup    lookup // of names in DNS
	askNobody bool   // how model servers are
	listen    func(network, addr string) (net.Listener, error)
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8001"
	}
	if c.Admin == "" {
		c.Admin = "127.0.0.1:8002"
	}
	if c.DrainDelay == 0 {
		c.DrainDelay = 5 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.Version == "" {
		c.Version = "unknown"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Relay.Logger == nil {
		c.Relay.Logger = c.Logger
	}
	c.changes = telemetry.NewChangeLog(c.Logger, c.Telemetry, "breakers and endpoints")
	c.troubles = telemetry.NewChangeLog(c.Logger, c.Telemetry, "error budgets and incidents")
	if c.lookup == nil {
		c.lookup = net.DefaultResolver.LookupHost
	}
	if c.listen == nil {
		c.listen = net.Listen
	}
	return c
}

// Gateway serves calls by the routes of a [routing.Router].
type Gateway struct {
	cfg    Config
	router *routing.Router

	ready       chan struct{}
	addr        net.Addr // set before ready is closed
	adminAddr   net.Addr
	metricsAddr net.Addr
	admin       http.Handler // of operators; nil without
	draining    atomic.Bool
	replaying   atomic.Bool
	director    *director
	breakers    *breaker.Group
	shadows     *shadows // set before ready is closed
	relay       *relay.Relay
	judge       *judge            // nil without telemetry
	incidents   *incident.Tracker // nil if none are kept
	background  sync.WaitGroup
}

// New checks the configuration and returns a gateway that binds nothing yet. It
// follows what is published to router; a gateway is ready while the table there
// has a revision above 0.
func New(cfg Config, router *routing.Router) (*Gateway, error) {
	g := &Gateway{cfg: cfg.withDefaults(), router: router, ready: make(chan struct{}), breakers: breaker.NewGroup(), director: &director{telemetry: cfg.Telemetry}}
	if g.cfg.Labels != nil {
		g.director.signer = g.cfg.Labels.Signer()
	}
	if g.cfg.Telemetry != nil {
		g.watchObjectives()
	}
	if (g.cfg.TLSCert == "") != (g.cfg.TLSKey == "") {
		return nil, errors.New("a TLS certificate and its key go together: one of them is missing")
	}
	if g.cfg.TLSCert != "" {
		t, err := serverTLS(g.cfg.TLSCert, g.cfg.TLSKey, g.cfg.Logger)
		if err != nil {
			return nil, err
		}
		g.cfg.Relay.TLS = t
	}
	return g, nil
}

// Ready is closed once the addresses are bound.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addr returns the data address, once Ready is closed.
func (g *Gateway) Addr() net.Addr { return g.addr }

// AdminAddr returns the admin address, once Ready is closed; nil if it is off.
func (g *Gateway) AdminAddr() net.Addr { return g.adminAddr }

// MetricsAddr returns the metrics address, once Ready is closed; nil if it is off.
func (g *Gateway) MetricsAddr() net.Addr { return g.metricsAddr }

// Stats returns the relay's gauges, once Ready is closed.
func (g *Gateway) Stats() relay.Stats { return g.relay.Stats() }

// TLS returns the configuration of the data port, nil for plaintext.
func (g *Gateway) TLS() *tls.Config { return g.cfg.Relay.TLS }

// Run serves until ctx ends, then drains, and returns nil. It is called once. It
// fails at once if an address cannot be bound, and after a drain if serving fails.
func (g *Gateway) Run(ctx context.Context) error {
	ln, err := g.cfg.listen("tcp", g.cfg.Listen)
	if err != nil {
		return fmt.Errorf("data address: %w", err)
	}
	defer func() { _ = ln.Close() }()
	adminLn, err := g.listenUnlessOff(g.cfg.Admin)
	if err != nil {
		return fmt.Errorf("admin address: %w", err)
	}
	if adminLn != nil {
		defer func() { _ = adminLn.Close() }()
		g.adminAddr = adminLn.Addr()
	}
	metricsLn, err := g.listenUnlessOff(g.cfg.Metrics)
	if err != nil {
		return fmt.Errorf("metrics address: %w", err)
	}
	if metricsLn != nil {
		defer func() { _ = metricsLn.Close() }()
		g.metricsAddr = metricsLn.Addr()
	}
	g.addr = ln.Addr()

	helpers, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer g.background.Wait()
	defer stop() // helpers outlive the last call

	g.background.Go(func() { g.cfg.Telemetry.Run(helpers) })
	g.relay = relay.New(g.cfg.Relay, g.director)
	defer g.relay.Close()
	lo := newLocal(g.cfg.Version, g.director.snapshot.Load, g.cfg.Labels)
	g.director.local = g.relay.NewUpstream(lo.upstream())
	tg := newTargets(helpers, g.relay, g.breakers, &g.cfg, g.incidents, g.background.Go)
	g.shadows = &tg.shadows
	defer g.shadows.close()
	defer tg.tapes.close()
	events := g.breakers.Events().Subscribe(eventRoom)
	defer events.Close()
	g.background.Go(func() { g.followBreakers(events) })
	g.background.Go(func() { g.cfg.changes.Run(helpers) })
	g.background.Go(func() { g.cfg.troubles.Run(helpers) })
	if g.cfg.Drift != nil {
		g.background.Go(func() { _ = g.cfg.Drift.Run(helpers) }) // it fails of nothing
	}
	if g.cfg.Labels != nil {
		g.background.Go(func() { _ = g.cfg.Labels.Run(helpers) }) // it fails of nothing
	}
	unfollow := g.router.Follow(func(t *routing.Table) {
		s, retire := tg.prepare(t)
		g.tellUnloaded(g.director.snapshot.Swap(s), s)
		retire()
		lo.setReady(t.Revision() > 0)
	})
	defer unfollow()

	failed := make(chan error, 4)
	g.background.Go(func() { failed <- lo.run() })
	defer lo.stop()
	if adminLn != nil {
		defer g.serveHTTP(adminLn, g.adminHandler(), g.adminTLS(), failed)()
	}
	if metricsLn != nil {
		defer g.serveHTTP(metricsLn, g.openHandler(), nil, failed)()
	}
	g.background.Go(func() { failed <- g.relay.Serve(ln) })
	if g.cfg.Telemetry != nil {
		unregister, err := g.registerMetrics()
		defer unregister()
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		g.background.Go(func() { g.judge.run(helpers) })
	}
	if g.incidents != nil {
		g.background.Go(func() { _ = g.incidents.Run(helpers) })
	}
	close(g.ready)

	var failure error
	select {
	case err := <-failed:
		failure = fmt.Errorf("serving ended: %w", cmp.Or(err, net.ErrClosed))
		g.cfg.Logger.Error("draining because of a failure", "error", failure) // calls under way are not to suffer
	case <-ctx.Done():
	}
	g.drain(lo)
	return failure
}

// registerMetrics lets the registry read what the gateway knows, until the returned
// function is called.
func (g *Gateway) registerMetrics() (unregister func(), err error) {
	registry := g.cfg.Telemetry.Registry()
	readers := []telemetry.Reader{gauges{g}, shadowGauges{g}, g.judge}
	if g.incidents != nil {
		readers = append(readers, incidentGauges{g.incidents})
	}
	if g.cfg.Drift != nil {
		readers = append(readers, driftGauges{g.cfg.Drift})
	}
	if g.cfg.Labels != nil {
		readers = append(readers, labelGauges{g.cfg.Labels})
	}
	var ends []func()
	for _, r := range readers {
		end, failed := registry.Read(r)
		ends, err = append(ends, end), errors.Join(err, failed)
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}, err
}

// listenUnlessOff listens on an address, if it is one.
func (g *Gateway) listenUnlessOff(addr string) (net.Listener, error) {
	if addr == "" || addr == "off" {
		return nil, nil
	}
	return g.cfg.listen("tcp", addr)
}

// watchGrace is how long a drain leaves the gateway's own services alone. Health
// watches last as long as their clients like and must not hold it up; by then
// clients have been told to open no more calls, and other calls of these
// services are over in no time.
const watchGrace = 2 * time.Second

// drain follows the data's path: not ready, then no new calls, then the end.
func (g *Gateway) drain(lo *local) {
	g.draining.Store(true)
	lo.notReady()
	if g.cfg.DrainDelay > 0 {
		g.cfg.Logger.Info("draining: not ready, still taking calls", "for", g.cfg.DrainDelay)
		time.Sleep(g.cfg.DrainDelay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.DrainTimeout)
	defer cancel()
	g.cfg.Logger.Info("draining: no new calls", "under_way", g.relay.Calls())
	watches := time.AfterFunc(watchGrace, lo.stop)
	defer watches.Stop()
	if err := g.relay.Drain(ctx); err != nil {
		g.cfg.Logger.Warn("drain timed out, calls are cut off", "under_way", g.relay.Calls())
	}
}

// IsReady reports whether there is a routing state and no drain. It may be called
// at any time.
func (g *Gateway) IsReady() bool {
	s := g.director.snapshot.Load()
	return !g.draining.Load() && s != nil && s.table.Revision() > 0
}
