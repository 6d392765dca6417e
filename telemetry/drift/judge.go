package drift

import (
	"math"
	"time"

	"sluice/telemetry/drift/stat"
)

// Least numbers of values below which a statistic means nothing.
const (
	leastForPSI = 500 // and Jensen-Shannon, Wasserstein and MMD
	leastForKS  = 100
)

// State is what is to be thought of a feature.
type State uint8

// The states.
const (
	// Insufficient: there are too few values to tell.
	Insufficient State = iota
	// OK: nothing that chance could not explain, or too small to matter.
	OK
	// Suspect: too large for chance and large enough to matter, in this window.
	Suspect
	// Drift: suspect in two of the last three windows.
	Drift
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{Insufficient: "insufficient", OK: "ok", Suspect: "suspect", Drift: "drift"}[s]
}

// Finding is what one window says of one feature.
type Finding struct {
	Feature string
	// Label is what metrics call the feature. It is made of configuration alone.
	Label string
	State State
	// Values is how many were counted in cells.
	Values uint64
	// PSI and ChiSquare are computed on tenths of the reference, on single values or on categories, KS and
	// Wasserstein on all bins and for numbers only. A statistic that is not defined, or for which there are
	// too few values, is NaN.
	PSI, KS, ChiSquare stat.Result
	// MMD is how far the rows of an embedding have moved, in standard deviations of the reference's. An embedding
	// has no other statistic.
	MMD stat.Result
	// Wasserstein, in standard deviations of the reference, and JensenShannon have a P only if the reference is
	// calibrated.
	Wasserstein, JensenShannon stat.Result
	LInfinity, Hellinger       float64
	// Effect is the PSI from which on a change of the feature matters; of an embedding, the MMD.
	Effect float64
	// P is that of the feature's test, PSI's for numbers, MMD's for embeddings and χ²'s for others; Adjusted is P corrected for
	// the number of features (Holm), Ranked that by which features are listed (Benjamini and Hochberg).
	P, Adjusted, Ranked float64
	// Rates are the shares of rows without a cell, and of values outside of the reference.
	Rates []Rate
	// Reference and Current are the shares of the groups.
	Reference, Current []float64
}

// Policy says when a feature has drifted.
type Policy struct {
	// Window is the length of a window; ExpectedRun the mean time between two false alarms of a version.
	Window, ExpectedRun time.Duration
	// Effect is the PSI from which on a change matters.
	Effect float64
}

// Level is the probability of a false alarm that one window may have.
func (p Policy) Level() float64 { return min(1, p.Window.Seconds()/p.ExpectedRun.Seconds()) }

// judge compares a window with the reference.
func judge(r *reference, t *tally, p Policy) []Finding {
	found := make([]Finding, len(r.features))
	ps := make([]float64, len(found))
	for i, f := range r.features {
		found[i] = compare(f, &t.features[i])
		ps[i] = found[i].P
	}
	adjusted, ranked := stat.Holm(ps), stat.BenjaminiHochberg(ps)
	for i := range found {
		f := &found[i]
		f.Effect = r.features[i].effect(p.Effect)
		f.Adjusted, f.Ranked = adjusted[i], ranked[i]
		switch {
		case math.IsNaN(f.P):
			f.State = Insufficient
		case f.Adjusted <= p.Level() && f.size() >= f.Effect:
			f.State = Suspect
		default:
			f.State = OK
		}
	}
	return found
}

// size is what is set against Effect.
func (f *Finding) size() float64 {
	if math.IsNaN(f.PSI.Value) {
		return f.MMD.Value
	}
	return f.PSI.Value
}

// compare computes the statistics of one feature.
func compare(f *feature, c *counts) Finding {
	cells, n := c.wide()
	ref := f.doc.GetCounts()
	m := stat.Total(ref)
	none := stat.Result{Value: math.NaN(), P: math.NaN()}
	found := Finding{
		Feature: f.doc.GetName(), Values: n, Rates: rates(f, c),
		PSI: none, KS: none, ChiSquare: none, MMD: none, Wasserstein: none, JensenShannon: none,
		LInfinity: math.NaN(), Hellinger: math.NaN(), P: math.NaN(),
	}
	if f.embedding != nil {
		if min(n, m) >= leastForPSI {
			found.MMD.Value = stat.NormalisedMMD(f.rows, *c.rows)
			found.MMD.P = f.null.mmd.P(stat.SquaredMMD(f.rows, *c.rows), m, n)
			found.P = found.MMD.P
		}
		return found
	}
	refGroups, curGroups := f.groups.Sum(ref), f.groups.Sum(cells)
	found.Reference, found.Current = share(refGroups, m), share(curGroups, n)
	if f.isNumber() && min(n, m) >= leastForKS {
		found.KS = stat.KS(ref, cells)
	}
	if min(n, m) < leastForPSI {
		return found
	}
	found.PSI, found.ChiSquare = stat.PSI(refGroups, curGroups), stat.ChiSquare(refGroups, curGroups)
	found.LInfinity, found.Hellinger = stat.LInfinity(refGroups, curGroups), stat.Hellinger(refGroups, curGroups)
	found.JensenShannon.Value = stat.JensenShannon(refGroups, curGroups)
	found.JensenShannon.P = f.null.jensenShannon.P(found.JensenShannon.Value, m, n)
	found.P = found.ChiSquare.P
	if f.isNumber() {
		found.Wasserstein.Value = stat.NormalisedWasserstein(f.bins,
			stat.Spread{Counts: ref, Min: f.bins.Min(), Max: f.bins.Max()}, stat.Spread{Counts: cells, Min: c.min, Max: c.max})
		found.Wasserstein.P = f.null.wasserstein.P(found.Wasserstein.Value, m, n)
		if !f.bins.Discrete {
			found.P = found.PSI.P
		}
	}
	if math.IsNaN(found.P) {
		found.P = found.PSI.P // a single category, of which χ² can say nothing
	}
	return found
}

func share(counts []uint64, n uint64) []float64 {
	s := make([]float64, len(counts))
	for i, c := range counts {
		if n > 0 {
			s[i] = float64(c) / float64(n)
		}
	}
	return s
}

// recent remembers in which of the last windows a feature was suspect.
type recent struct {
	suspect, before bool
	drifted         bool
}

// next takes the verdict of the next window and returns it, or drift: suspect in it and in one of the two before. A
// window that has too few values says nothing, and changes nothing.
func (r *recent) next(s State) State {
	if s == Insufficient {
		return s
	}
	r.drifted = s == Suspect && (r.suspect || r.before)
	r.suspect, r.before = s == Suspect, r.suspect
	if r.drifted {
		return Drift
	}
	return s
}
