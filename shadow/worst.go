package shadow

import (
	"cmp"
	"slices"
	"strings"
	"sync"
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
	// Of an output that differs, if one does:
	Output              string
	MaxAbs, MaxRel      float64
	Excess              float64 // error in proportion to what is allowed
	Elements, Differing int

	// Call is what may be shown of the call, nil if nothing.
	Call *Remembered
}

// Of each output, and of each way to differ that is of none, maxAlike examples are kept;
// of no more than maxKinds of both: the names of outputs come from servers.
const (
	maxAlike = 3
	maxKinds = 16
)

// worst keeps the calls that differ most, of each kind by how far values are off; of equal
// ones, the earliest.
type worst struct{ kinds []kind }

type kind struct {
	difference compare.Difference // for those of no output; else None
	output     string
	all        []Example
}

// add takes in a call that differs. remember is asked what may be shown of it, if it is
// kept.
func (w *worst) add(c *Copy, a Attempt, r *compare.Result, remember func() *Remembered) {
	remember = sync.OnceValue(remember)
	e := Example{RequestID: c.RequestID, At: a.Ended, Version: c.Version, Difference: r.Difference, Why: clip(r.Why)}
	found := false
	for i := range r.Outputs {
		if o := &r.Outputs[i]; o.Difference != compare.None {
			found = found || o.Difference == r.Difference
			e := e
			e.Difference, e.Output, e.MaxAbs, e.MaxRel, e.Excess = o.Difference, clip(o.Name), o.MaxAbs, o.MaxRel, o.Excess
			e.Elements, e.Differing = o.Elements, o.Differing
			w.keep(compare.None, &e, remember)
		}
	}
	if !found {
		w.keep(r.Difference, &e, remember)
	}
}

// keep keeps an example if it is one of the worst of its kind.
func (w *worst) keep(difference compare.Difference, e *Example, remember func() *Remembered) {
	k := w.kind(difference, e.Output)
	if k == nil {
		return
	}
	if n := len(k.all); n == maxAlike {
		if compareExamples(e, &k.all[n-1]) >= 0 {
			return
		}
		k.all = k.all[:n-1]
	}
	e.Call = remember()
	e.RequestID, e.Output = strings.Clone(e.RequestID), k.output
	k.all = append(k.all, *e)
	slices.SortStableFunc(k.all, func(a, b Example) int { return compareExamples(&a, &b) })
}

// kind returns where examples of a kind are, nil if there is no room for another one.
func (w *worst) kind(difference compare.Difference, output string) *kind {
	for i := range w.kinds {
		if k := &w.kinds[i]; k.difference == difference && k.output == output {
			return k
		}
	}
	if len(w.kinds) == maxKinds {
		return nil
	}
	w.kinds = append(w.kinds, kind{difference: difference, output: strings.Clone(output)})
	return &w.kinds[len(w.kinds)-1]
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

// read returns the examples: those of no output first, then by output.
func (w *worst) read() []Example {
	kinds := slices.Clone(w.kinds)
	slices.SortFunc(kinds, func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.output, b.output), cmp.Compare(a.difference, b.difference))
	})
	var all []Example
	for _, k := range kinds {
		all = append(all, k.all...)
	}
	return all
}
