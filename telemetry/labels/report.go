package labels

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/telemetry/labels/score"
)

// Report is what labels say of one version. Numbers are of all gateways that share the store, if not said otherwise.
type Report struct {
	Key
	Settings Settings
	// Current is the window under way, Last the one before.
	Current, Last Measures
	// Predictions of the last max_age, and how many of them have a label.
	Predictions, Labelled uint64
	// Baseline is the share of errors that is usual; NaN while that is not known, or not needed.
	Baseline float64
	// Learnt of ToLearn labels have been seen to know it; ToLearn is 0 if it need not be learnt.
	Learnt, ToLearn uint64
	// Unread answers of this gateway had no prediction that was understood.
	Unread uint64
	// Alarms counts those of this gateway.
	Alarms uint64

	arm score.Moments // of both windows
}

// Measures are what the labels of a window say. Those that cannot be computed are NaN.
type Measures struct {
	From, To       time.Time
	Labels, Errors uint64
	// ErrorRate is the share of errors; NaN where nothing counts as one.
	ErrorRate                                        float64
	Accuracy, MacroF1, LogLoss, Brier, AUC, AUCBound float64
	// CalibrationError is the expected calibration error.
	CalibrationError float64
	// AUCError is the standard error of AUC, of two classes.
	AUCError        float64
	RMSE, MAE, Bias float64
	Reward          float64
	MedianDelay     time.Duration
	Classes         []ClassMeasure
}

// ClassMeasure says how well one class is told apart.
type ClassMeasure struct {
	Class  string
	Labels uint64
	F1     float64
}

// Comparison says how the losses of a version differ from those of another: its mean loss minus the other's.
type Comparison struct {
	Version, With string
	Difference    float64
	// Interval has the true difference, with a confidence of 95 % for all comparisons of a model together;
	// score.Unknown if there are too few labels.
	Interval score.Interval
}

// Reports returns what is known of the versions of a model, or of all if it is empty, in the order of their names.
func (m *Monitor) Reports(model string) []Report {
	var all []Report
	for _, v := range m.all() {
		if model == "" || v.key.Model == model {
			r := v.report(time.Now())
			r.Alarms = m.alarms.count(v.key)
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Report) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), strings.Compare(a.Version, b.Version))
	})
	return all
}

// Alarms returns the last alarms of a model's versions, the newest first.
func (m *Monitor) Alarms(model string) []Alarm { return m.alarms.of(model) }

// Compare compares the versions of one model with the one that has the most labels, by calls that the split has sent
// to them, in the two windows of each.
func Compare(reports []Report) (all []Comparison) {
	with := -1
	for i, r := range reports {
		if r.arm.N > 0 && (with < 0 || r.arm.N > reports[with].arm.N) {
			with = i
		}
	}
	for i, r := range reports {
		if i != with && r.arm.N > 0 {
			all = append(all, Comparison{Version: r.Version, With: reports[with].Version})
		}
	}
	for i := range all {
		c := &all[i]
		at := slices.IndexFunc(reports, func(r Report) bool { return r.Version == c.Version })
		s := &reports[at].Settings
		c.Difference, c.Interval = score.Difference(reports[with].arm, reports[at].arm, indicator(s.countsErrors()), 0.05/float64(len(all)))
	}
	return all
}

func (v *Version) report(now time.Time) Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance(now)
	current, last := v.merged(0), v.merged(1)
	r := Report{
		Key: v.key, Settings: v.settings, Current: v.measures(current, v.current), Last: v.measures(last, v.current-1),
		Baseline: v.change.baseline, Learnt: min(v.change.learning.labels, v.change.learn), ToLearn: v.change.learn, Unread: v.unread.Load(),
	}
	r.arm.Merge(current.arm)
	r.arm.Merge(last.arm)
	oldest := v.settings.cohort(now.Add(-v.settings.MaxAge))
	for _, c := range v.cohorts {
		r.Predictions += c.predictions
		r.Labelled += c.labels
	}
	for _, t := range v.others {
		for _, c := range t.GetCohorts() {
			if c.GetNumber() >= oldest {
				r.Predictions += c.GetPredictions()
				r.Labelled += c.GetLabels()
			}
		}
	}
	return r
}

// merged is what all gateways have counted in the window under way, or, with back 1, in the one before. v.mu is held.
func (v *Version) merged(back int) *window {
	sum := newWindow(&v.settings)
	sum.merge(v.windows[back])
	for _, t := range v.others {
		for _, p := range t.GetWindows() {
			if p.GetNumber() != v.current-int64(back) {
				continue
			}
			if w, ok := decodeWindow(&v.settings, p); ok {
				sum.merge(w)
			}
		}
	}
	return sum
}

// measures computes what a window says. v.mu is held.
func (v *Version) measures(w *window, number int64) Measures {
	s := &v.settings
	none := math.NaN()
	m := Measures{
		From: time.Unix(0, number*int64(s.Window)), To: time.Unix(0, (number+1)*int64(s.Window)), Labels: w.labels, Errors: w.errors,
		ErrorRate: none, Accuracy: none, MacroF1: none, LogLoss: none, Brier: none, AUC: none, AUCBound: none, AUCError: none, CalibrationError: none,
		RMSE: w.numbers.RMSE(), MAE: w.numbers.MAE(), Bias: w.numbers.Bias(), Reward: w.reward.Average(), MedianDelay: w.medianDelay(),
	}
	if s.countsErrors() && w.labels > 0 {
		m.ErrorRate = float64(w.errors) / float64(w.labels)
	}
	c := w.classes
	if c == nil {
		return m
	}
	m.Accuracy, m.MacroF1, m.LogLoss, m.Brier = c.Accuracy(), c.MacroF1(), c.LogLoss.Average(), c.Brier.Average()
	m.AUC, m.AUCBound = c.AUC()
	m.CalibrationError = c.Calibration.Error()
	if c.Len() == 2 {
		of, others := c.Ranks[0].Sums()
		m.AUCError = score.AUCError(m.AUC, of, others)
	}
	for k, name := range s.Classes {
		var n uint64
		for _, x := range c.Confusion[k*c.Len():][:c.Len()] {
			n += x
		}
		m.Classes = append(m.Classes, ClassMeasure{Class: name, Labels: n, F1: c.F1(k)})
	}
	return m
}
