package drift

import (
	"gonum.org/v1/gonum/stat/distuv"

	"sluice/telemetry/drift/change"
	"sluice/telemetry/drift/stat"
)

// RateKind is what is counted as a share of rows.
type RateKind uint8

// The kinds of rates.
const (
	Absent   RateKind = iota // the request or answer has no such value
	NaN                      // it is not a number
	Infinite                 // it is an infinite number
	Outside                  // it is below or above all of the reference, or a category that is not in it
	rateKinds
)

// String returns the name of the rate.
func (k RateKind) String() string {
	return [...]string{Absent: "absent", NaN: "nan", Infinite: "infinite", Outside: "outside"}[k]
}

// Rate is how often something was so.
type Rate struct {
	Kind RateKind
	// Count of Rows were so, in this window.
	Count, Rows uint64
	// Bound is what the reference allows for: the true share may be as large, with a confidence of 99 %.
	Bound float64
	// Alarm says that it has grown, by the detector of package change.
	Alarm bool
}

// rates counts what cells do not tell.
func rates(f *feature, c *counts) []Rate {
	_, n := c.wide()
	rows := n + uint64(c.absent) + uint64(c.nan) + uint64(c.inf)
	all := make([]Rate, rateKinds)
	for k := range rateKinds {
		all[k] = Rate{Kind: k, Count: c.rate(f, k), Rows: rows, Bound: f.bounds[k]}
	}
	return all
}

func (c *counts) rate(f *feature, k RateKind) uint64 {
	last := len(c.cells) - 1
	switch {
	case k == Absent:
		return uint64(c.absent)
	case k == NaN:
		return uint64(c.nan)
	case k == Infinite:
		return uint64(c.inf)
	case f.embedding != nil:
		return 0 // rows have no outside
	case f.isNumber():
		return uint64(c.cells[0]) + uint64(c.cells[last])
	}
	return uint64(c.cells[last])
}

// rateBound is an upper bound, with a confidence of 99 %, of the true rate behind the reference's (Clopper and
// Pearson). The share of a distribution outside of n values drawn from it counts as one event of n: it is a
// Beta(2, n−1) variable if the distribution is continuous, and smaller if not.
func (f *feature) rateBound(k RateKind) float64 {
	rows := f.doc.GetRows()
	var events uint64
	switch k {
	case Absent:
		events = f.doc.GetAbsent() // none, of files: a row has a field for each column
		rows += events
	case NaN:
		events = f.doc.GetMissing()
	case Infinite:
		events = f.doc.GetInfinite()
	case Outside:
		if f.embedding != nil || f.doc.GetCategories().GetUnlisted() {
			return 1
		}
		counts := f.doc.GetCounts()
		rows = stat.Total(counts)
		if events = counts[len(counts)-1]; f.isNumber() {
			events += counts[0] + 1
		} else {
			events += f.singles()
		}
	}
	if events >= rows {
		return 1
	}
	return distuv.Beta{Alpha: float64(events + 1), Beta: float64(rows - events)}.Quantile(0.99)
}

// singles estimates how many of the reference's rows would be of a category never seen before: as many as there
// are categories seen once (Good and Turing).
func (f *feature) singles() uint64 {
	names := len(f.names)
	var n uint64
	for _, c := range f.doc.GetCounts()[:names] {
		if c == 1 {
			n++
		}
	}
	return n + uint64(len(f.others))
}

// watch holds a detector for each rate of each feature; nil where the reference allows for everything.
type watch [][rateKinds]*change.ESR

// newWatch makes detectors of which, all together, one is expected to be wrong after steps slots.
func newWatch(r *reference, steps float64) watch {
	w := make(watch, len(r.features))
	limit := steps * float64(len(r.features)) * float64(rateKinds)
	for i, f := range r.features {
		for k := range rateKinds {
			w[i][k], _ = change.NewESR(f.bounds[k], max(limit, 2), change.RareFactors)
		}
	}
	return w
}

// next tells the detectors what a slot has counted; alarm is called for each that raises one. Features that no call has had since
// it was counted by this reference are left alone, which seen knows: training data has columns that no model is asked about.
func (w watch) next(r *reference, t *tally, seen []bool, alarm func(feature int, rate Rate)) {
	for i, f := range r.features {
		all := rates(f, &t.features[i])
		if seen[i] = seen[i] || all[Absent].Count < all[Absent].Rows; !seen[i] {
			continue
		}
		for _, rate := range all {
			if d := w[i][rate.Kind]; d != nil && rate.Rows > 0 && d.Add(rate.Count, rate.Rows) {
				rate.Alarm = true
				alarm(i, rate)
			}
		}
	}
}
