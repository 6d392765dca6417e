package telemetry

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Buckets of the classic histograms, in seconds. Calls have them from 100 us to 100 s, twice to thrice
// per decade and a little more between 1 ms and 1 s, where objectives are; attempts have half as many.
// Both are native histograms as well, with buckets 9 % wide at most, for a Prometheus that asks for them.
var (
	callBuckets = []float64{
		.0001, .0002, .0005, .001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .075,
		.1, .15, .2, .3, .5, .75, 1, 2, 3, 5, 10, 20, 50, 100,
	}
	attemptBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 100}
)

const (
	nativeFactor = 1.1
	// nativeBuckets bounds a native histogram; over it, its buckets get twice as wide.
	nativeBuckets = 100
)

// metrics are the families that calls and attempts feed, and those about telemetry itself. What others
// know anyway is read by collectors of theirs when somebody asks; see [Telemetry.Registry].
type metrics struct {
	registry *Registry

	calls       *histograms
	refused     *counters
	fallbacks   *counters
	requests    *counters
	answers     *counters
	durations   *histograms
	attempts    *counters
	refusals    *counters
	transitions *counters
	faults      *counters

	dropped  *prometheus.CounterVec
	exported *prometheus.CounterVec
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: newRegistry()}
	m.calls = m.histogram("sluice_call_duration_seconds", callBuckets,
		"Time from a call's header fields to its end, by who answered and with which status.", "model", "version", "code")
	m.refused = m.counter("sluice_refused_calls_total",
		"Calls that ended with a status of the gateway's own, by its reason.", "model", "version", "reason")
	m.fallbacks = m.counter("sluice_fallbacks_total",
		"Calls for which another version than the one chosen was asked at last, answered or not, by what was wrong with that.", "model", "from", "to", "reason")
	m.requests = m.counter("sluice_request_bytes_total",
		"Bytes of request bodies received.", "model", "version")
	m.answers = m.counter("sluice_answer_bytes_total",
		"Bytes of answer bodies received from model servers.", "model", "version")
	m.durations = m.histogram("sluice_attempt_duration_seconds", attemptBuckets,
		"Time an attempt took, by what it says about the version.", "model", "version", "outcome")
	m.attempts = m.counter("sluice_attempts_total",
		"Attempts, by why they were made and how they ended.", "model", "version", "kind", "outcome", "reason")
	m.refusals = m.counter("sluice_version_refusals_total",
		"Times that a version could not be asked; the call moved on or was refused.", "model", "version", "reason")
	m.transitions = m.counter("sluice_breaker_transitions_total",
		"Changes of breakers' states, those of endpoints summed up by version.", "model", "version", "scope", "to", "cause")
	m.faults = m.counter("sluice_faults_injected_total",
		"Attempts that a fault was injected into, by what it does.", "model", "version", "kind")
	m.dropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_telemetry_dropped_total", Help: "Spans, log lines and metric exports that were given up.",
	}, []string{"signal", "reason"})
	m.exported = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_telemetry_exported_total", Help: "Spans and metric exports that were delivered.",
	}, []string{"signal"})
	m.registry.MustRegister(
		m.dropped, m.exported,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_build_info", Help: "1, with what this program was built from.",
			ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	return m
}

// The signals and reasons of telemetry that is given up.
const (
	signalSpans   = "spans"
	signalLogs    = "logs"
	signalMetrics = "metrics"

	dropQueueFull = "queue_full"
	dropRate      = "rate_limit"
	dropExport    = "export_failed"
)

func (m *metrics) drop(signal, reason string, n int) {
	m.dropped.WithLabelValues(signal, reason).Add(float64(n))
}

func (m *metrics) counter(name, help string, labels ...string) *counters {
	c := newCounters(name, help, labels...)
	m.registry.MustRegister(c)
	return c
}

func (m *metrics) histogram(name string, bounds []float64, help string, labels ...string) *histograms {
	h := newHistograms(name, help, bounds, labels...)
	m.registry.MustRegister(h)
	return h
}
