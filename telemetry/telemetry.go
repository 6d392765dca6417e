package telemetry

import (
	"log/slog"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// outcomeSlow is the outcome of a good answer that took too long.
const outcomeSlow = "slow"

// Config says what becomes of records. The zero value counts, and exports nothing.
type Config struct {
	// Version is what the program says of itself.
	Version string
	// Logger gets the lines about calls, default slog.Default().
	Logger *slog.Logger
}

// Telemetry is where records go. A nil *Telemetry does nothing at all, for those who want to know what
// it costs. Safe for concurrent use.
type Telemetry struct {
	cfg     Config
	metrics *metrics

	mu     sync.Mutex
	series map[seriesKey]*Series
	// unknown and local are the series of calls that belong to no route.
	unknown, local *Series
}

type seriesKey struct{ model, version string }

// Models that stand in labels for calls without a route: those for a model that nobody has configured,
// and those that the gateway answers by itself.
const (
	OtherModel = other
	LocalModel = "_LOCAL"
)

// New returns telemetry. Nothing but metrics comes of it before [Telemetry.Run].
func New(cfg Config) *Telemetry {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	t := &Telemetry{cfg: cfg, metrics: newMetrics(cfg.Version), series: make(map[seriesKey]*Series)}
	t.unknown = &Series{Model: OtherModel, metrics: t.metrics}
	t.local = &Series{Model: LocalModel, metrics: t.metrics}
	return t
}

// Series returns the metrics of a version, which are made if there are none. With an empty version they
// are those of the model's calls for which none was chosen. Both names come from the routes, never from
// a caller.
func (t *Telemetry) Series(model, version string) *Series {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := seriesKey{model, version}
	s := t.series[k]
	if s == nil {
		s = &Series{Model: model, Version: version, metrics: t.metrics}
		t.series[k] = s
	}
	return s
}

// Known returns the metrics of a version that is in the routes, else nil.
func (t *Telemetry) Known(model, version string) *Series {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.series[seriesKey{model, version}]
}

// Dropped counts n pieces of a signal that were given up, and why. Both are from fixed lists.
func (t *Telemetry) Dropped(signal, reason string, n uint64) {
	if t != nil {
		t.metrics.dropped.WithLabelValues(signal, reason).Add(float64(n))
	}
}

// Unknown returns the metrics of calls that no route is known for.
func (t *Telemetry) Unknown() *Series {
	if t == nil {
		return nil
	}
	return t.unknown
}

// Local returns the metrics of calls that the gateway answers by itself.
func (t *Telemetry) Local() *Series {
	if t == nil {
		return nil
	}
	return t.local
}

// Retain forgets the series that the function does not claim; version is empty for those of a model.
// Calls that still use them count for nothing.
func (t *Telemetry) Retain(claimed func(model, version string) bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range t.series {
		if !claimed(k.model, k.version) {
			delete(t.series, k)
			s.retire()
		}
	}
}

// Record takes the record of a call that is over. The caller may use it again afterwards.
func (t *Telemetry) Record(c *Call) {
	if t == nil {
		return
	}
	c.Series.call(c)
}

// Registry is where others register collectors of what they know.
func (t *Telemetry) Registry() *prometheus.Registry { return t.metrics.registry }

// scrapes is how many requests for metrics are answered at once. Each gathers everything.
const scrapes = 2

// Handler answers Prometheus, in the format that it asks for: text, OpenMetrics with exemplars, or
// protobuf with native histograms.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.metrics.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: scrapes,
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(t.cfg.Logger.Handler(), slog.LevelWarn),
	})
}
