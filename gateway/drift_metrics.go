package gateway

import (
	"math"

	"sluice/telemetry"
	"sluice/telemetry/drift"
)

// driftGauges reads, when somebody asks for metrics, how the data of versions stands. Features are those of
// references, of which a version has no more than [drift.MaxFeatures]; names that were only seen in calls label
// nothing.
type driftGauges struct{ monitor *drift.Monitor }

var (
	descDriftSamples = telemetry.NewCounter("sluice_drift_samples_total",
		"Calls of a version that this gateway has looked at.", "model", "version")
	descDriftUnreadable = telemetry.NewCounter("sluice_drift_unreadable_total",
		"Samples of a version whose tensors were not understood.", "model", "version")
	descDriftAlarms = telemetry.NewCounter("sluice_drift_alarms_total",
		"Alarms about the data of a version.", "model", "version")
	descDriftPSI = telemetry.NewGauge("sluice_drift_psi",
		"Population stability index of a feature in the last whole window; absent without enough values.", "model", "version", "feature")
	descDriftMMD = telemetry.NewGauge("sluice_drift_mmd",
		"How far the rows of a wide tensor have moved in the last whole window, in standard deviations; absent without enough rows.", "model", "version", "feature")
	descDriftState = telemetry.NewGauge("sluice_drift_state",
		"What is to be thought of a feature: 0 insufficient, 1 ok, 2 suspect, 3 drift.", "model", "version", "feature")
	descPayloads = telemetry.NewCounter("sluice_payload_samples_total",
		"Calls that were to be written down, by whether they were: written or dropped.", "result")
	descDriftDropped = telemetry.NewCounter("sluice_drift_dropped_total",
		"Samples that were not looked at because too many waited.")
)

// Families implements [telemetry.Reader].
func (c driftGauges) Families() []*telemetry.Family {
	return []*telemetry.Family{descDriftSamples, descDriftUnreadable, descDriftAlarms, descDriftPSI, descDriftMMD, descDriftState, descDriftDropped, descPayloads}
}

// Read implements [telemetry.Reader].
func (c driftGauges) Read(out *telemetry.Values) {
	out.Add(descDriftDropped, float64(c.monitor.Dropped()))
	if written, dropped, on := c.monitor.Payloads(); on {
		out.Add(descPayloads, float64(written), "written")
		out.Add(descPayloads, float64(dropped), "dropped")
	}
	for _, r := range c.monitor.Reports("") {
		out.Add(descDriftSamples, float64(r.Sampled), r.Model, r.Version)
		out.Add(descDriftUnreadable, float64(r.Unreadable), r.Model, r.Version)
		out.Add(descDriftAlarms, float64(r.Alarms), r.Model, r.Version)
		for _, f := range r.Findings {
			out.Add(descDriftState, float64(f.State), r.Model, r.Version, f.Label)
			if !math.IsNaN(f.PSI.Value) {
				out.Add(descDriftPSI, f.PSI.Value, r.Model, r.Version, f.Label)
			}
			if !math.IsNaN(f.MMD.Value) {
				out.Add(descDriftMMD, f.MMD.Value, r.Model, r.Version, f.Label)
			}
		}
	}
}
