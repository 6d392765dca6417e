package shadow

import (
	"slices"
	"strings"
	"time"

	"sluice/shadow/compare"
)

// Example is one call whose answers differ.
type Example struct {
	RequestID  string
	At         time.Time // when the shadow had answered
	Version    string    // who answered the caller
	Difference compare.Difference
	Why        string // in words, if the numbers do not say it
	// Of the output that differs most, if one does:
	Output              string
	MaxAbs, MaxRel      float64
	Excess              float64 // error in proportion to what is allowed
	Elements, Differing int

	// Call is what may be shown of the call, nil if nothing.
	Call *Remembered
}

// maxExamples is how many of the worst calls are kept.
const maxExamples = 10

// worst keeps the calls that differ most: those in which more is wrong than values
// first, then by how far values are off; of equal ones, the earliest.
type worst struct{ all []Example }

// add takes in a call that differs. remember is asked what may be shown of it, if it is
// kept.
func (w *worst) add(c *Copy, a Attempt, r *compare.Result, remember func() *Remembered) {
	e := Example{RequestID: c.RequestID, At: a.Ended, Version: c.Version, Difference: r.Difference, Why: clip(r.Why)}
	for i := range r.Outputs {
		if o := &r.Outputs[i]; o.Difference == r.Difference && (e.Output == "" || o.Excess > e.Excess) {
			e.Output, e.MaxAbs, e.MaxRel, e.Excess = o.Name, o.MaxAbs, o.MaxRel, o.Excess
			e.Elements, e.Differing = o.Elements, o.Differing
		}
	}
	if len(w.all) == maxExamples {
		if compareExamples(&e, &w.all[maxExamples-1]) >= 0 {
			return
		}
		w.all = w.all[:maxExamples-1]
	}
	e.Call = remember()
	e.RequestID, e.Output = strings.Clone(e.RequestID), strings.Clone(clip(e.Output))
	w.all = append(w.all, e)
	slices.SortStableFunc(w.all, func(a, b Example) int { return compareExamples(&a, &b) })
}

func compareExamples(a, b *Example) int {
	switch {
	case a.Difference != b.Difference:
		return int(a.Difference) - int(b.Difference)
	case a.Excess != b.Excess:
		return sign(b.Excess - a.Excess)
	case a.MaxAbs != b.MaxAbs:
		return sign(b.MaxAbs - a.MaxAbs)
	}
	return b.Differing - a.Differing
}

func sign(v float64) int {
	if v < 0 {
		return -1
	}
	return 1
}

// clip keeps what comes from servers short, and valid UTF-8.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "") }

func (w *worst) read() []Example { return slices.Clone(w.all) }
