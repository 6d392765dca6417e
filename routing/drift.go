package routing

import (
	"slices"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Drift says how the data of a route's versions is watched.
type Drift struct {
	// PerSecond is how many calls of a version each gateway looks at, at most.
	PerSecond float64
	// Window is the time whose samples are judged together, ExpectedRun the mean time
	// between two false alarms of a version.
	Window, ExpectedRun time.Duration
	// Effect is the population stability index from which on a change matters.
	Effect float64
	// Learn is the number of samples from which features without a reference are learnt;
	// 0 learns nothing.
	Learn int
	// Columns are the names of the columns of input tensors, by tensor.
	Columns map[string][]string
	// Payloads says what of which calls is written down; nil means nothing of any.
	Payloads *Payloads
}

// Payloads says which calls are written down, and what of them.
type Payloads struct {
	PerSecond float64
	// MaxBytes bounds what is written of one call.
	MaxBytes int
	// Redact names what is not written, and Keep exceptions from that.
	Redact, Keep []string
}

// What holds where a route does not say otherwise.
const (
	driftPerSecond = 50
	driftWindow    = time.Hour
	driftRun       = 720 // windows
	driftEffect    = 0.2
	driftLearn     = 10_000

	payloadsPerSecond = 1
	payloadBytes      = 64 << 10
)

// newDrift completes the settings of a document.
func newDrift(doc *routingv1.Drift) *Drift {
	if doc == nil {
		return nil
	}
	d := &Drift{PerSecond: driftPerSecond, Window: driftWindow, Effect: driftEffect, Learn: driftLearn, Columns: make(map[string][]string)}
	if doc.PerSecond != nil {
		d.PerSecond = doc.GetPerSecond()
	}
	if w := doc.GetWindow(); w != nil {
		d.Window = w.AsDuration()
	}
	d.ExpectedRun = driftRun * d.Window
	if e := doc.GetExpectedRun(); e != nil {
		d.ExpectedRun = e.AsDuration()
	}
	if doc.Effect != nil {
		d.Effect = doc.GetEffect()
	}
	if doc.Learn != nil {
		d.Learn = int(doc.GetLearn())
	}
	for _, c := range doc.GetColumns() {
		d.Columns[c.GetTensor()] = c.GetNames()
	}
	d.Payloads = newPayloads(doc.GetPayloads())
	return d
}

func newPayloads(doc *routingv1.Payloads) *Payloads {
	if doc == nil {
		return nil
	}
	p := &Payloads{PerSecond: payloadsPerSecond, MaxBytes: payloadBytes, Redact: slices.Clone(doc.GetRedact()), Keep: slices.Clone(doc.GetKeep())}
	if doc.PerSecond != nil {
		p.PerSecond = doc.GetPerSecond()
	}
	if doc.MaxBytes != nil {
		p.MaxBytes = int(doc.GetMaxBytes())
	}
	if len(p.Redact) == 0 {
		p.Redact = []string{"*"} // nothing is written because somebody forgot to say so
	}
	return p
}

// drift wants names that are unique, since features are told apart by them, and a run
// that is longer than what is judged at once.
func (r *rules) drift(at path, d *routingv1.Drift) {
	tensors, names := owners{}, owners{}
	for i, c := range d.GetColumns() {
		at := at.field("columns").index(i)
		r.distinct(tensors, at.field("tensor"), c.GetTensor(), "a tensor that is listed once")
		for j, name := range c.GetNames() {
			r.distinct(names, at.field("names").index(j), name, "a name that no other column has")
		}
	}
	settings := newDrift(d)
	if d.GetExpectedRun() != nil && settings.ExpectedRun < settings.Window {
		r.report(at.field("expected_run"), settings.ExpectedRun.String(), "at least the window, %v", settings.Window)
	}
}
