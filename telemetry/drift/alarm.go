package drift

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Alarm tells that the data of a version has moved.
type Alarm struct {
	Key
	Feature string
	// Reason is "distribution", or the kind of a rate that has grown.
	Reason string
	// Text says it in words, with the numbers.
	Text string
	// Window is where it was found, At when.
	Window Span
	At     time.Time
	// Finding is what was found, of a distribution; Rate, of a rate.
	Finding *Finding
	Rate    *Rate
}

// ofDrift is the alarm of a feature that has drifted. v.mu is held.
func (v *Version) ofDrift(f Finding) Alarm {
	statistic := "PSI"
	if math.IsNaN(f.PSI.Value) {
		statistic = "MMD"
	}
	return Alarm{
		Key: v.key, Feature: f.Feature, Reason: "distribution", Window: v.last, Finding: &f,
		Text: fmt.Sprintf("%s %.3f >= %.3g, P %.2g <= %.2g, in 2 of 3 windows", statistic, f.size(), f.Effect, f.Adjusted, v.settings.Policy.Level()),
	}
}

// ofRate is the alarm of a rate that has grown. v.mu is held.
func (v *Version) ofRate(i int, r Rate, at Span) Alarm {
	return Alarm{
		Key: v.key, Feature: v.ref.features[i].doc.GetName(), Reason: r.Kind.String(), Window: at, Rate: &r,
		Text: fmt.Sprintf("%d of %d values are %v, where the reference allows for a share of %.2g", r.Count, r.Rows, r.Kind, r.Bound),
	}
}

// maxAlarms is how many alarms are remembered.
const maxAlarms = 200

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
func (a *alarms) of(model string) []Alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Alarm
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
