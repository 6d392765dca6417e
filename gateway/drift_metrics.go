package gateway

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/telemetry/drift"
)

// driftGauges reads, when somebody asks for metrics, how the data of versions stands. Features are those of
// references, of which a version has no more than [drift.MaxFeatures]; names that were only seen in calls label
// nothing.
type driftGauges struct{ monitor *drift.Monitor }

var (
	descDriftSamples = desc("sluice_drift_samples_total",
		"Calls of a version that this gateway has looked at.", "model", "version")
	descDriftUnreadable = desc("sluice_drift_unreadable_total",
		"Samples of a version whose tensors were not understood.", "model", "version")
	descDriftAlarms = desc("sluice_drift_alarms_total",
		"Alarms about the data of a version.", "model", "version")
	descDriftPSI = desc("sluice_drift_psi",
		"Population stability index of a feature in the last whole window; absent without enough values.", "model", "version", "feature")
	descDriftMMD = desc("sluice_drift_mmd",
		"How far the rows of a wide tensor have moved in the last whole window, in standard deviations; absent without enough rows.", "model", "version", "feature")
	descDriftState = desc("sluice_drift_state",
		"What is to be thought of a feature: 0 insufficient, 1 ok, 2 suspect, 3 drift.", "model", "version", "feature")
	descPayloads = desc("sluice_payload_samples_total",
		"Calls that were to be written down, by whether they were: written or dropped.", "result")
	descDriftDropped = desc("sluice_drift_dropped_total",
		"Samples that were not looked at because too many waited.")
)

// Describe implements [prometheus.Collector].
func (c driftGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDriftSamples, descDriftUnreadable, descDriftAlarms, descDriftPSI, descDriftMMD, descDriftState, descDriftDropped, descPayloads} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c driftGauges) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch}
	out.counter(descDriftDropped, float64(c.monitor.Dropped()))
	if written, dropped, on := c.monitor.Payloads(); on {
		out.counter(descPayloads, float64(written), "written")
		out.counter(descPayloads, float64(dropped), "dropped")
	}
	for _, r := range c.monitor.Reports("") {
		out.counter(descDriftSamples, float64(r.Sampled), r.Model, r.Version)
		out.counter(descDriftUnreadable, float64(r.Unreadable), r.Model, r.Version)
		out.counter(descDriftAlarms, float64(r.Alarms), r.Model, r.Version)
		for _, f := range r.Findings {
			out.gauge(descDriftState, float64(f.State), r.Model, r.Version, f.Label)
			if !math.IsNaN(f.PSI.Value) {
				out.gauge(descDriftPSI, f.PSI.Value, r.Model, r.Version, f.Label)
			}
			if !math.IsNaN(f.MMD.Value) {
				out.gauge(descDriftMMD, f.MMD.Value, r.Model, r.Version, f.Label)
			}
		}
	}
}
