package gateway

import (
	"math"

	"sluice/telemetry"
	"sluice/telemetry/labels"
)

// labelGauges reads, when somebody asks for metrics, what labels say of versions. Classes are those of the routes.
type labelGauges struct{ monitor *labels.Monitor }

var (
	descLabels = telemetry.NewCounter("sluice_labels_total",
		"Labels that this gateway was told, by what became of them: counted, duplicate, or why they were refused.", "result")
	descLabelUnshared = telemetry.NewCounter("sluice_labels_unshared_total",
		"Labels that were taken without knowing whether another gateway has, because the store could not be asked.")
	descLabelPredictions = telemetry.NewGauge("sluice_label_predictions",
		"Predictions of the last max_age that were given an id, by all gateways.", "model", "version")
	descLabelCoverage = telemetry.NewGauge("sluice_label_coverage",
		"Share of the predictions of the last max_age that have a label.", "model", "version")
	descLabelDelay = telemetry.NewGauge("sluice_label_delay_seconds",
		"Median time from a prediction to its label, in the window under way.", "model", "version")
	descLabelWindow = telemetry.NewGauge("sluice_label_window_labels",
		"Labels in the window under way, of all gateways.", "model", "version")
	descLabelQuality = telemetry.NewGauge("sluice_label_quality",
		"What the labels of the window under way say of a version.", "model", "version", "measure")
	descLabelF1 = telemetry.NewGauge("sluice_label_f1",
		"F1 of a class in the window under way.", "model", "version", "class")
	descLabelUnread = telemetry.NewCounter("sluice_label_unread_total",
		"Answers of a version in which this gateway has found no prediction.", "model", "version")
	descLabelAlarms = telemetry.NewCounter("sluice_label_alarms_total",
		"Alarms of a version that errs more often than before.", "model", "version")
)

// Families implements [telemetry.Reader].
func (c labelGauges) Families() []*telemetry.Family {
	return []*telemetry.Family{descLabels, descLabelUnshared, descLabelPredictions, descLabelCoverage, descLabelDelay, descLabelWindow,
		descLabelQuality, descLabelF1, descLabelUnread, descLabelAlarms}
}

// Read implements [telemetry.Reader].
func (c labelGauges) Read(out *telemetry.Values) {
	counts := c.monitor.Counts()
	out.Add(descLabels, float64(counts.Counted), "counted")
	out.Add(descLabels, float64(counts.Duplicates), "duplicate")
	out.Add(descLabelUnshared, float64(counts.Unshared))
	for reason, n := range counts.Refused {
		out.Add(descLabels, float64(n), labels.Reason(reason).String())
	}
	for _, r := range c.monitor.Reports("") {
		out.Add(descLabelPredictions, float64(r.Predictions), r.Model, r.Version)
		if r.Predictions > 0 {
			out.Add(descLabelCoverage, float64(r.Labelled)/float64(r.Predictions), r.Model, r.Version)
		}
		out.Add(descLabelUnread, float64(r.Unread), r.Model, r.Version)
		out.Add(descLabelAlarms, float64(r.Alarms), r.Model, r.Version)
		m := &r.Current
		out.Add(descLabelWindow, float64(m.Labels), r.Model, r.Version)
		if m.Labels > 0 {
			out.Add(descLabelDelay, m.MedianDelay.Seconds(), r.Model, r.Version)
		}
		for _, q := range []struct {
			name  string
			value float64
		}{
			{"error_rate", m.ErrorRate}, {"accuracy", m.Accuracy}, {"macro_f1", m.MacroF1}, {"log_loss", m.LogLoss}, {"brier", m.Brier},
			{"auc", m.AUC}, {"calibration_error", m.CalibrationError}, {"rmse", m.RMSE}, {"mae", m.MAE}, {"bias", m.Bias}, {"reward", m.Reward},
		} {
			if !math.IsNaN(q.value) {
				out.Add(descLabelQuality, q.value, r.Model, r.Version, q.name)
			}
		}
		for _, k := range m.Classes {
			if !math.IsNaN(k.F1) {
				out.Add(descLabelF1, k.F1, r.Model, r.Version, k.Class)
			}
		}
	}
}
