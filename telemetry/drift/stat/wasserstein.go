package stat

import (
	"math"
	"slices"
)

// Spread is a sample of a number: its counts, and where its outer bins end.
type Spread struct {
	Counts []uint64
	// Min and Max are the smallest and the largest value. They matter only for values outside of the
	// reference.
	Min, Max float64
}

// Wasserstein is the area between two cumulative distributions, ∫|F−G|, in the unit of the values: how far
// they have to be moved on average to turn one sample into the other. Within a bin, values are taken as
// spread evenly; the outer bins end at a sample's own smallest and largest value.
//
// It has no P by formula; see [Calibrate].
func Wasserstein(b Bins, ref, cur Spread) float64 {
	sameLen(b.Len(), len(ref.Counts))
	sameLen(b.Len(), len(cur.Counts))
	f, ok := newCDF(b, ref)
	g, ok2 := newCDF(b, cur)
	if !ok || !ok2 {
		return math.NaN()
	}
	ends := slices.Concat(b.Edges, []float64{f.low, f.high, g.low, g.high})
	slices.Sort(ends)
	var area float64
	for i := 1; i < len(ends); i++ {
		if from, to := ends[i-1], ends[i]; from < to {
			f0, f1 := f.between(from, to)
			g0, g1 := g.between(from, to)
			area += (to - from) * meanAbs(f0-g0, f1-g1)
		}
	}
	return area
}

// minSD is the least standard deviation to divide by: a constant reference is no reason for infinities.
const minSD = 0.001

// NormalisedWasserstein is [Wasserstein] in standard deviations of the reference, the scale of Evidently's
// threshold of 0.1.
func NormalisedWasserstein(b Bins, ref, cur Spread) float64 {
	return Wasserstein(b, ref, cur) / max(b.SD, minSD)
}

// cdf is a cumulative distribution that is linear within the bins.
type cdf struct {
	edges     []float64
	upTo      []float64 // share at each edge
	low, high float64   // where the outer bins end
}

func newCDF(b Bins, s Spread) (cdf, bool) {
	n := float64(Total(s.Counts))
	if n == 0 {
		return cdf{}, false
	}
	c := cdf{edges: b.Edges, low: b.Min(), high: b.Max(), upTo: make([]float64, len(b.Edges))}
	var sum uint64
	for i := range c.upTo {
		sum += s.Counts[i]
		c.upTo[i] = float64(sum) / n
	}
	if s.Counts[0] > 0 {
		c.low = min(c.low, s.Min)
	}
	if s.Counts[len(s.Counts)-1] > 0 {
		c.high = max(c.high, s.Max)
	}
	return c, true
}

// between returns the heights at both ends of an interval that no edge and no end lies within: where the
// distribution jumps at an end, the height on the interval's side.
func (c cdf) between(from, to float64) (left, right float64) {
	i, _ := slices.BinarySearch(c.edges, to) // the bin that ends there
	lo, hi, f, g := c.low, c.high, 0.0, 1.0
	if i > 0 {
		lo, f = c.edges[i-1], c.upTo[i-1]
	}
	if i < len(c.edges) {
		hi, g = c.edges[i], c.upTo[i]
	}
	if to <= lo { // before the first value
		return f, f
	}
	if from >= hi {
		return g, g
	}
	slope := (g - f) / (hi - lo)
	return f + (from-lo)*slope, f + (to-lo)*slope
}

// meanAbs returns the mean of |y| where y goes straight from a to b.
func meanAbs(a, b float64) float64 {
	if a*b >= 0 {
		return math.Abs(a+b) / 2
	}
	return (a*a + b*b) / (2 * (math.Abs(a) + math.Abs(b)))
}
