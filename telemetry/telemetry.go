package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// outcomeSlow is the outcome of a good answer that took too long.
const outcomeSlow = "slow"

// Config says what becomes of records. The zero value counts, and exports nothing.
type Config struct {
	// Version is what the program says of itself.
	Version string
	// Logger gets the lines about calls, default slog.Default().
	Logger *slog.Logger
	// Export says where spans and metrics are sent; the zero value sends nothing.
	Export Export
}

// Telemetry is where records go. A nil *Telemetry does nothing at all, for those who want to know what
// it costs. Safe for concurrent use.
type Telemetry struct {
	cfg      Config
	metrics  *metrics
	spans    *spanExport // nil: traces are off
	failures *failureLog
	// tail is of calls whose spans are kept although they were not sampled; mistakes of callers and refusals, which are many and
	// all alike, have their own.
	tail, lesserTail limiter

	mu      sync.Mutex
	series  map[seriesKey]*Series
	tallies map[string]*Tally // by model
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
	t := &Telemetry{cfg: cfg, metrics: newMetrics(cfg.Version), series: make(map[seriesKey]*Series), tallies: make(map[string]*Tally)}
	t.failures = newFailureLog(cfg.Logger, t.metrics)
	t.tail = limiter{every: time.Second / tailPerSecond, burst: tailBurst}
	t.lesserTail = limiter{every: time.Second / tailPerSecond, burst: tailBurst}
	if cfg.Export.Spans != nil {
		if cfg.Export.Sampling == nil {
			t.cfg.Export.Sampling = NewSampling(true, DefaultRatio)
		}
		t.spans = newSpanExport(&t.cfg.Export, t.metrics, cfg.Logger)
	} else {
		t.cfg.Export.Sampling = nil
	}
	t.unknown = newSeries(OtherModel, "", t.metrics, nil)
	t.local = newSeries(LocalModel, "", t.metrics, nil)
	return t
}

// Series returns the metrics of a version, which are made if there are none. With an empty version they
// are those of the model's calls for which none was chosen. Both names come from the routes, never from
// a caller.
func (t *Telemetry) Series(model, version string) *Series {
	if t == nil {
		return nil
	}
	if version == "" && model == LocalModel { // somebody has called a model so: series with the same labels are one
		return t.local
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := seriesKey{model, version}
	s := t.series[k]
	if s == nil {
		s = newSeries(model, version, t.metrics, t.tally(model))
		t.series[k] = s
	}
	return s
}

// Tally returns the counts of a model that is in the routes, else nil.
func (t *Telemetry) Tally(model string) *Tally {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tallies[model]
}

// tally returns those of a model, new ones if there are none. t.mu is held.
func (t *Telemetry) tally(model string) *Tally {
	n := t.tallies[model]
	if n == nil {
		n = new(Tally)
		t.tallies[model] = n
	}
	return n
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
	gone := make(map[*Series]bool)
	for k, s := range t.series {
		if !claimed(k.model, k.version) {
			delete(t.series, k)
			s.retire()
			gone[s] = true
		}
	}
	if len(gone) > 0 {
		for _, s := range t.series {
			s.forgetFallbacks(gone)
		}
	}
	for model := range t.tallies {
		if !claimed(model, "") {
			delete(t.tallies, model)
		}
	}
}

// Begin finds the place of a call that has an ID in a trace: the one that the caller's traceparent names, else a
// new one.
func (t *Telemetry) Begin(c *Call, traceparent string) {
	if t != nil {
		c.Trace = t.cfg.Export.Sampling.begin(c.ID, traceparent)
	}
}

// BeginAttempt draws the attempt's span, if there are traces, and returns the traceparent that names it to the
// model server, written into p; empty if the caller's own is to go on unchanged.
func (c *Call) BeginAttempt(a *Attempt, p *Traceparent) string {
	if !c.Trace.Span.IsValid() {
		return ""
	}
	a.Span = newSpanID()
	return p.Write(&c.Trace, a.Span)
}

// Calls that were not sampled and are worth keeping all the same: this many a second, and a burst; of those that failed by
// mistakes of their callers, or were refused at once, as many again.
const (
	tailPerSecond = 500
	tailBurst     = 1000
)

// Record takes the record of a call that is over. The caller may use it again afterwards.
func (t *Telemetry) Record(c *Call) {
	if t == nil {
		return
	}
	failed := c.failed()
	c.late = c.Series.isLate(c)
	c.why = c.worthKeeping()
	tail := &t.tail
	if failed && (!c.unanswered() || c.refusedAtOnce()) {
		tail = &t.lesserTail
	}
	if c.why > keptSampled && !tail.allow(c.Ended) {
		c.why = notKept
		t.metrics.drop(signalSpans, dropRate, c.count())
	}
	c.Series.call(c)
	switch {
	case failed:
		t.failures.offer(c)
	case c.FallbackReason != "":
		t.failures.noteFallback(c)
	case c.late:
		t.failures.noteLate(c)
	}
	if c.why != notKept {
		kept := *c
		t.spans.offer(&kept)
	}
}

// Failures returns the calls that failed last, the latest first; while many fail, some of them.
func (t *Telemetry) Failures() []Failure {
	if t == nil {
		return nil
	}
	return t.failures.recent()
}

// Fallbacks returns the calls that another version than the chosen one answered well last, the latest first; while
// many do, some of them.
func (t *Telemetry) Fallbacks() []Failure {
	if t == nil {
		return nil
	}
	return t.failures.fellBack.recent()
}

// Late returns the calls that took longer than their model's objective for latency says last, the latest first; while many
// do, some of them.
func (t *Telemetry) Late() []Failure {
	if t == nil {
		return nil
	}
	return t.failures.late.recent()
}

// Run writes and delivers what is recorded, until ctx ends, and then what is left, within a few seconds. It
// is called once, and ends after the last Record.
func (t *Telemetry) Run(ctx context.Context) {
	if t == nil {
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { t.failures.run(ctx) })
	if t.spans != nil {
		running.Go(func() { t.spans.run(ctx) })
	}
	if t.cfg.Export.Metrics != nil {
		running.Go(func() { exportMetrics(ctx, &t.cfg.Export, t.metrics, t.cfg.Logger) })
	}
}

// Registry is where others register collectors of what they know.
func (t *Telemetry) Registry() *Registry { return t.metrics.registry }
