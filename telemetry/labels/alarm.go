package labels

import (
	"fmt"
	"math"
	"sync"
	"time"

	labelsv1 "sluice/proto/sluice/labels/v1"
	"sluice/telemetry/drift/change"
)

// Alarm tells that a version errs more often than before.
type Alarm struct {
	Key
	At       time.Time
	Detector string
	// Labels of the window under way, of all gateways, and how many of them are errors.
	Labels, Errors uint64
	// Baseline is the share of errors that is usual; NaN if the detector does not need to know.
	Baseline float64
	// Text says it in words.
	Text string
}

func rateBefore(b *labelsv1.Baseline) float64 {
	return change.RateBefore(min(b.GetErrors(), b.GetLabels()), b.GetLabels())
}

// look judges what all gateways have counted. An alarm that goes on is told once in a window.
func (v *Version) look(now time.Time) (a Alarm, raised bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance(now)
	sums := map[string]totals{"": v.total}
	for gateway, t := range v.others {
		sums[gateway] = totals{t.GetTotal().GetLabels(), t.GetTotal().GetErrors()}
	}
	if !v.change.look(sums) || v.change.alarmed == v.current {
		return Alarm{}, false
	}
	v.change.alarmed = v.current
	w := v.merged(0)
	a = Alarm{Key: v.key, At: now, Detector: v.settings.Detector, Labels: w.labels, Errors: w.errors, Baseline: v.change.baseline}
	a.Text = fmt.Sprintf("%d of %d labels in this window are errors (%.3g %%)", w.errors, w.labels, 100*float64(w.errors)/float64(max(1, w.labels)))
	if !math.IsNaN(a.Baseline) {
		a.Text += fmt.Sprintf(", where at most %.3g %% are usual", 100*a.Baseline)
	}
	return a, true
}

// raise tells everybody of an alarm.
func (m *Monitor) raise(a Alarm) {
	m.alarms.add(a)
	m.cfg.Logger.Warn("labels: a version errs more often than before", "model", a.Model, "version", a.Version, "detector", a.Detector,
		"labels", a.Labels, "errors", a.Errors, "text", a.Text)
	if m.cfg.Alarmed != nil {
		m.cfg.Alarmed(a)
	}
}

// maxAlarms is how many alarms are remembered.
const maxAlarms = 100

// alarms remembers the last ones, and counts all.
type alarms struct {
	mu    sync.Mutex
	ring  []Alarm // the oldest first
	total map[Key]uint64
}

func (a *alarms) add(x Alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ring) == maxAlarms {
		a.ring = append(a.ring[:0], a.ring[1:]...)
	}
	a.ring = append(a.ring, x)
	if a.total == nil {
		a.total = make(map[Key]uint64)
	}
	a.total[x.Key]++
}

// of returns the alarms of a model's versions, the newest first.
func (a *alarms) of(model string) (all []Alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.ring) - 1; i >= 0; i-- {
		if a.ring[i].Model == model {
			all = append(all, a.ring[i])
		}
	}
	return all
}

func (a *alarms) count(k Key) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total[k]
}

func (a *alarms) retain(keep func(Key) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.total {
		if !keep(k) {
			delete(a.total, k)
		}
	}
}
