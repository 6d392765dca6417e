package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel"
	"golang.org/x/sync/errgroup"

	"sluice/gateway"
	"sluice/gateway/admin"
	"sluice/gateway/relay"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/drift"
	"sluice/telemetry/labels"
	"sluice/telemetry/logqueue"
	"sluice/telemetry/payload"
)

// serveOptions are the flags of sluice serve.
type serveOptions struct {
	routes        string
	store         string
	stateDir      string
	captureDir    string
	listen        string
	admin         string
	tokenFile     string
	insecureAdmin bool
	metrics       string
	tlsCert       string
	tlsKey        string
	drainDelay    time.Duration
	drainTimeout  time.Duration
	logFormat     string
	logLevel      string
	telemetry     string
	labelKeys     string
	payloadDir    string
	payloadKeep   time.Duration
	payloadMiB    int64
	ioThreads     int // ioThreadsAuto leaves it to the relay
}

// ioThreadsAuto is the default of --io-threads.
const ioThreadsAuto = -1

func newServeCommand() *cobra.Command {
	var o serveOptions
	var config string
	cmd := &cobra.Command{
		Use:   "serve [--routes FILE] [--store STORE]",
		Short: "Run the gateway",
		Long: `Run the gateway.

It takes gRPC calls on the data address and sends each to a version of the model it
names, as the routing state says. That lives in a store:

  memory            for one gateway, gone with it; the file of routes is read again when
                    it changes and on SIGHUP, and a bad one leaves the last good one
  file:DIR          for one gateway, kept on disk
  redis://HOST      for any number of gateways; also rediss, redis+sentinel, redis+cluster

In a store that is kept, the file of routes is written once, if the store is empty;
sluice apply changes it afterwards. The admin address is for operators: sluice get,
weights, promote, rollback and others.

/metrics on the admin address is for Prometheus, /debug/ for people. Traces and metrics are
exported by OTLP where OTEL_EXPORTER_OTLP_ENDPOINT says; docs/tracing.md lists the variables that hold.

SIGTERM or SIGINT drains: the gateway says that it is not ready, waits, takes no new
calls, and lets those under way end. A second signal ends it at once.

Flags may also stand in a YAML file, by their names; the command line wins:

  listen: ":8001"
  store: redis://127.0.0.1:6379
  drain-delay: 10s`,
		Example: `  sluice serve --routes routes.yaml
  sluice serve --routes routes.yaml --store redis://127.0.0.1:6379
  sluice serve --config /etc/sluice/serve.yaml
  sluice serve --store file:/var/lib/sluice --listen :8001 --tls-cert tls.crt --tls-key tls.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config != "" {
				if err := readConfig(cmd, config); err != nil {
					return err
				}
			}
			if err := o.check(); err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			return serve(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.routes, "routes", "", "`file` with the routes (YAML)")
	f.StringVar(&o.store, "store", "memory", "`store` of the routing state: memory, file:DIR or redis://HOST")
	f.StringVar(&o.stateDir, "state-dir", "", "`folder` for copies of the last good state, to start without Redis (default $XDG_STATE_HOME/sluice)")
	f.StringVar(&o.captureDir, "capture-dir", "", "`folder` where calls are kept whose routes say so, for sluice replay (default: none are)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8001", "data `address`")
	f.StringVar(&o.admin, "admin", defaultAdmin, "`address` for operators, /metrics, /livez and /readyz, or \"off\"")
	f.StringVar(&o.tokenFile, "admin-token-file", "", "`file` with lines of a role (view or operate) and a token; needed off loopback")
	f.BoolVar(&o.insecureAdmin, "insecure-admin", false, "let tokens cross the network without TLS")
	f.StringVar(&o.metrics, "metrics-listen", "", "`address` that serves /metrics, /livez and /readyz and nothing else")
	f.StringVar(&o.tlsCert, "tls-cert", "", "certificate `file` (PEM) of the data address; read again when it changes")
	f.StringVar(&o.tlsKey, "tls-key", "", "key `file` (PEM) of the data address")
	f.IntVar(&o.ioThreads, "io-threads", ioThreadsAuto, "`threads` that read connections; 0 gives each connection a goroutine instead")
	f.Lookup("io-threads").DefValue = "half of the cores"
	f.DurationVar(&o.drainDelay, "drain-delay", 5*time.Second, "how long calls are still taken after not ready was said")
	f.DurationVar(&o.drainTimeout, "drain-timeout", 30*time.Second, "how long calls may then take to end")
	f.StringVar(&o.telemetry, "telemetry", "on", "on, or \"off\" to record nothing of calls and serve no /metrics")
	f.StringVar(&o.labelKeys, "label-key-file", "", "`file` with keys that sign ids of predictions, shared by all gateways; lines of openssl rand -hex 32")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.payloadDir, "payload-dir", "", "`folder` for samples of calls of routes with drift.payloads; empty writes none")
	f.DurationVar(&o.payloadKeep, "payload-keep", payload.DefaultKeep, "how long such a sample is kept")
	f.Int64Var(&o.payloadMiB, "payload-mib", payload.DefaultMaxBytes>>20, "how much room they may take, in `MiB`")
	registerConfig(cmd, &config)
	return cmd
}

// ballastSize is memory that is reserved and never touched, so it takes address
// space and no pages: 32 MiB. The collector counts it as alive and so waits for as
// much again to be allocated. Few bytes live long here and many die young, and
// without it a heap of a few megabytes is collected dozens of times a second;
// with a higher GOGC instead, a heap that clients' unread answers have filled would
// grow to a multiple of them.
const ballastSize = 32 << 20

// serve runs the gateway until ctx ends.
func serve(ctx context.Context, o serveOptions, stderr io.Writer) error {
	log, lines, err := openLog(stderr, o.logFormat, o.logLevel)
	if err != nil {
		return &usageError{err, "sluice serve"}
	}
	defer lines.Close(logPatience)
	// A log whose reader has ended must not end the gateway; commands in a pipeline still do as others do.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	warnOfThreads(log, o.ioThreads, runtime.GOMAXPROCS(0))
	ballast := make([]byte, ballastSize)
	defer runtime.KeepAlive(ballast)
	// In a container, collect garbage before its memory limit is reached.
	if _, err := memlimit.Set(); err != nil {
		log.Debug("no memory limit found", "error", err)
	}
	access, err := adminAccess(o, log)
	if err != nil {
		return &usageError{err, "sluice serve"}
	}
	router := routing.NewRouter()
	state, err := openState(ctx, stateOptions{routes: o.routes, store: o.store, stateDir: o.stateDir, listen: o.listen}, router, log)
	if err != nil {
		return err
	}
	defer state.close()
	tel, err := newTelemetry(ctx, o.telemetry, state.Status, log)
	if err != nil {
		return &usageError{err, "sluice serve"}
	}
	lines.OnDrop(func(why logqueue.Reason, n uint64) { tel.Dropped("logs", string(why), n) })
	taken, err := newLabels(o.labelKeys, state.store, log)
	if err != nil {
		return &usageError{fmt.Errorf("--label-key-file: %w", err), "sluice serve"}
	}
	payloads, err := o.newPayloads(log)
	if err != nil {
		return err
	}
	gw, err := newGateway(o, access, router, state, tel, newDrift(state.store, state.kind, payloads, log), taken, log)
	if err != nil {
		return err
	}

	serving, drain := context.WithCancel(ctx)
	defer drain()
	helpers, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, helpers := errgroup.WithContext(helpers)
	context.AfterFunc(helpers, drain) // a failed helper drains the gateway
	group.Go(func() error { return state.run(helpers) })
	group.Go(func() error {
		select {
		case <-gw.Ready():
			announce(log, gw, router)
			state.announce()
		case <-helpers.Done():
		}
		return nil
	})
	group.Go(func() error {
		defer stop() // helpers outlive the last call
		return gw.Run(serving)
	})
	return group.Wait()
}

// warnOfThreads tells of more threads that read connections than a machine has room for. A thread that waits for its
// connections in a system call holds a core's place in Go's scheduler until the scheduler notices, and with no place left
// beside those of such threads everything else waits for that.
func warnOfThreads(log *slog.Logger, threads, cores int) {
	if threads >= cores {
		log.Warn("--io-threads leaves no core to the rest: calls will take more CPU; try the default, half of the cores", "io-threads", threads, "cores", cores)
	}
}

// newPayloads makes what writes samples of calls down, nil if nobody has asked for that.
func (o *serveOptions) newPayloads(log *slog.Logger) (*payload.Sampler, error) {
	if o.payloadDir == "" {
		return nil, nil
	}
	return payload.New(payload.Config{Dir: o.payloadDir, Keep: o.payloadKeep, MaxBytes: o.payloadMiB << 20, Logger: log})
}

// newTelemetry makes what records of calls go to, nil if that is off.
func newTelemetry(ctx context.Context, mode string, status func() routing.Status, log *slog.Logger) (*telemetry.Telemetry, error) {
	switch mode {
	case "on":
	case "off":
		return nil, nil
	default:
		return nil, fmt.Errorf("--telemetry: got %q, want on or off", mode)
	}
	export, err := telemetry.ExportFromEnvironment(ctx, version())
	if err != nil {
		return nil, err
	}
	if export.Spans != nil {
		log.Info("traces are exported: those sampled, and of calls that fail, fall back, are slow or ask for a version",
			"sampled", export.Sampling.String())
	}
	if export.Metrics != nil {
		log.Info("metrics are exported")
	}
	// What is not delivered is counted and logged by telemetry; the rest of what the exporters say is for debugging.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Debug("opentelemetry", "error", err) }))
	tel := telemetry.New(telemetry.Config{Version: version(), Logger: log, Export: export})
	return tel, tel.Registry().Register(stateMetrics{status})
}

// routes is what follows the routing state and keeps things beside it, a [routing.Watcher].
type routes interface {
	admin.Watcher
	Shelf(name string) routing.Shelf
	Tell(f func(*routingv1.Change))
}

// newGateway makes the gateway and mounts the operators' service on it.
func newGateway(
	o serveOptions, access access, router *routing.Router, state routes, tel *telemetry.Telemetry, data *drift.Monitor,
	taken *labels.Monitor, log *slog.Logger,
) (*gateway.Gateway, error) {
	delay := o.drainDelay
	if delay == 0 {
		delay = -1 // the gateway's zero means its default
	}
	var limits relay.Config
	switch o.ioThreads {
	case ioThreadsAuto:
	case 0:
		limits.Loops = -1
	default:
		limits.Loops = o.ioThreads
	}
	gw, err := gateway.New(gateway.Config{
		Listen: o.listen, Admin: o.admin, AdminTLS: access.tls, Metrics: o.metrics,
		TLSCert: o.tlsCert, TLSKey: o.tlsKey,
		DrainDelay: delay, DrainTimeout: o.drainTimeout, Version: version(), Logger: log, Telemetry: tel, Drift: data, Labels: taken,
		Incidents: state.Shelf("incidents"), Name: gatewayName(o.listen), CaptureDir: o.captureDir,
		Relay: limits,
	}, router)
	if err != nil {
		return nil, err
	}
	if incidents := gw.Incidents(); incidents != nil {
		state.Tell(incidents.Follow)
	}
	service, err := admin.New(admin.Config{
		Watcher: state, Router: router, Gateway: gw, Drift: data, Labels: taken, Tokens: access.tokens, Version: version(), Logger: log,
		Incidents: gw.Incidents(), Failures: tel.Failures, Fallbacks: tel.Fallbacks,
	})
	if err != nil {
		return nil, err
	}
	gw.ServeAdmin(service.Handler())
	return gw, nil
}

// gatewayName tells a gateway from others that share its store.
func gatewayName(listen string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "gateway"
	}
	if _, port, err := net.SplitHostPort(listen); err == nil {
		return host + ":" + port
	}
	return host
}

// announce says what is bound where.
func announce(log *slog.Logger, gw *gateway.Gateway, router *routing.Router) {
	attrs := []any{"version", version(), "listen", gw.Addr().String(), "tls", gw.TLS() != nil}
	if a := gw.AdminAddr(); a != nil {
		attrs = append(attrs, "admin", a.String())
	}
	if a := gw.MetricsAddr(); a != nil {
		attrs = append(attrs, "metrics", a.String())
	}
	t := router.Current()
	log.Info("sluice serves", append(attrs, "models", t.Len(), "revision", t.Revision())...)
}

// sayUnits writes durations as in text, such as "12.3ms": a number would be one of nanoseconds, and not say so.
func sayUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// logPatience is how long a gateway that ends waits for whoever reads its log.
const logPatience = 2 * time.Second

// openLog makes a log that never holds up who logs, and the queue of its lines, to be closed at the end.
func openLog(w io.Writer, format, level string) (*slog.Logger, *logqueue.Queue, error) {
	direct, err := newLogger(w, format, level)
	if err != nil {
		return nil, nil, err
	}
	lines := logqueue.New(w, func(n uint64) {
		direct.Warn("log lines are missing: they came faster than they were read, or could not be written", "lines", n)
	})
	log, err := newLogger(lines, format, level)
	return log, lines, err
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: got %q, want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		o.ReplaceAttr = sayUnits
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format: got %q, want text or json", format)
}
