package stat

import (
	"math"
	"slices"
)

// MaxBins is the most bins that are learnt. 120 counters of four bytes leave room for a feature's other counters
// within eight cache lines, and the loss of power against the values themselves is at most the mass of one bin.
const MaxBins = 120

// MaxValues is the most different values of which each gets a bin of its own.
const MaxValues = 20

// Bins divide the numbers at ascending edges. Bin i holds the values above edge i-1 up to and including
// edge i. The first and the last bin are open-ended and hold what lies outside of the reference.
type Bins struct {
	// Edges are ascending and finite; there is one more bin than edges.
	Edges []float64
	// Mean and SD are those of the reference's values, SD dividing by n.
	Mean, SD float64
	// Discrete says that every value of the reference has a bin of its own.
	Discrete bool
}

// LearnBins returns at most most bins, at least three, divided at quantiles of the values; if there are no more
// than [MaxValues] different values and bins enough, each has its own. Values that are not finite are left
// out. It returns false if none is finite.
//
// Edges lie between values, in the middle of the gap: what the reference says in decimal comes back from
// requests as FP32 or less, a little above or below.
func LearnBins(values []float64, most int) (Bins, bool) {
	sorted := slices.DeleteFunc(slices.Clone(values), func(v float64) bool {
		return math.IsNaN(v) || math.IsInf(v, 0)
	})
	if len(sorted) == 0 {
		return Bins{}, false
	}
	slices.Sort(sorted)
	var b Bins
	b.Mean, b.SD = meanAndSD(sorted)
	inner := max(most, 3) - 2
	n := len(sorted)
	b.Discrete = len(slices.Compact(slices.Clone(sorted))) <= min(MaxValues, inner)
	b.Edges = append(b.Edges, below(sorted))
	wanted := 1 // quantile, of inner
	for i := 1; i < n; i++ {
		if sorted[i] == sorted[i-1] {
			continue
		}
		if b.Discrete || i*inner >= wanted*n {
			// Where the gap is as small as a gap can be, its middle is one of the two.
			edge := sorted[i-1] + (sorted[i]/2 - sorted[i-1]/2)
			if edge <= b.Edges[len(b.Edges)-1] {
				continue // of neighbours that are as near as numbers can be
			}
			b.Edges = append(b.Edges, edge)
			wanted = i*inner/n + 1
		}
	}
	b.Edges = append(b.Edges, above(sorted))
	return b, true
}

// below returns where the reference begins: a little below its smallest value, by what a number may lose in FP16,
// unless the next value is nearer.
func below(sorted []float64) float64 {
	first := sorted[0]
	margin := math.Abs(first) / 1024
	if next := slices.IndexFunc(sorted, func(v float64) bool { return v != first }); next > 0 {
		margin = min(margin, sorted[next]/2-first/2)
	}
	return max(-math.MaxFloat64, min(first-margin, math.Nextafter(first, math.Inf(-1))))
}

// above returns where the reference ends. A value that equals an edge lies within.
func above(sorted []float64) float64 {
	mirrored := slices.Clone(sorted)
	slices.Reverse(mirrored)
	for i := range mirrored {
		mirrored[i] = -mirrored[i]
	}
	return -below(mirrored)
}

// meanAndSD sums scaled values, so that squares of large numbers do not overflow.
func meanAndSD(sorted []float64) (mean, sd float64) {
	scale := max(math.Abs(sorted[0]), math.Abs(sorted[len(sorted)-1]))
	if scale == 0 {
		return 0, 0
	}
	n := float64(len(sorted))
	for _, v := range sorted {
		mean += v / scale / n
	}
	for _, v := range sorted {
		d := v/scale - mean
		sd += d * d / n
	}
	return mean * scale, math.Sqrt(sd) * scale
}

// Len returns the number of bins.
func (b Bins) Len() int { return len(b.Edges) + 1 }

// Index returns the bin of a value, which must not be NaN. Infinities fall into the outer bins.
func (b Bins) Index(v float64) int {
	// By hand: the search is the whole cost of a value, and through a function it takes twice as long.
	lo, hi := 0, len(b.Edges)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if b.Edges[mid] < v {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Min and Max bound the reference: all its values lie from Min to Max.
func (b Bins) Min() float64 { return b.Edges[0] }

// Max is described with Min.
func (b Bins) Max() float64 { return b.Edges[len(b.Edges)-1] }

// Groups join neighbouring cells into larger ones. Element i is the group of cell i.
type Groups []int

// GroupEvenly joins neighbouring cells into at most most groups of about the same reference mass, in
// order. Statistics with a fixed threshold, such as [PSI], are defined on few cells: their chance value
// grows with the number of cells.
func GroupEvenly(ref []uint64, most int) Groups {
	total := Total(ref)
	groups := make(Groups, len(ref))
	var before uint64
	group, last := -1, -1
	for i, c := range ref {
		if c > 0 {
			// A cell belongs where its middle lies.
			at := int(float64(most) * (float64(before) + float64(c)/2) / float64(total))
			if at > last {
				group, last = group+1, at
			}
			before += c
		}
		groups[i] = max(group, 0) // a cell without mass joins its neighbour
	}
	return groups
}

// Sum returns the counts of the groups.
func (g Groups) Sum(counts []uint64) []uint64 {
	sameLen(len(g), len(counts))
	if len(g) == 0 {
		return nil
	}
	sums := make([]uint64, g[len(g)-1]+1)
	for i, c := range counts {
		sums[g[i]] += c
	}
	return sums
}
