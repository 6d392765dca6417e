package stat

import (
	"fmt"
	"math"
)

// Result is what a comparison found.
type Result struct {
	// Value is the statistic; NaN if there is none.
	Value float64
	// P is the probability of a value at least this large if both samples came from one distribution;
	// NaN if there is no value, or no formula.
	P float64
}

var none = Result{math.NaN(), math.NaN()}

// Total returns how many values were counted.
func Total(counts []uint64) uint64 {
	var n uint64
	for _, c := range counts {
		n += c
	}
	return n
}

// Add adds the counts of another part of a sample.
func Add(to, part []uint64) {
	sameLen(len(to), len(part))
	for i, c := range part {
		to[i] += c
	}
}

// shares returns the relative frequencies of counts whose total is n, which is not 0.
func shares(counts []uint64, n float64) []float64 {
	s := make([]float64, len(counts))
	for i, c := range counts {
		s[i] = float64(c) / n
	}
	return s
}

// noise is the variance, in units of that of one value, of a difference between means of n and m values:
// 1/n + 1/m. Statistics of squares grow with it, and distances with its root.
func noise(n, m float64) float64 { return 1/n + 1/m }

func sameLen(a, b int) {
	if a != b {
		panic(fmt.Sprintf("stat: rows of %d and %d counts are not of the same partition", a, b))
	}
}
