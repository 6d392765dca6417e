package stat

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// JensenShannon is the Jensen-Shannon distance of base 2, from 0 to 1: the square root of the divergence, as
// scipy and NannyML threshold it, not the divergence itself, as TFDV and Vertex do. It is a metric.
//
// It has no P by formula; see [Calibrate].
func JensenShannon(ref, cur []uint64) float64 {
	p, q, ok := bothShares(ref, cur)
	if !ok {
		return math.NaN()
	}
	// Rounding may leave something below 0 for equal shares.
	return math.Sqrt(max(0, stat.JensenShannon(p, q)/math.Ln2))
}

// LInfinity is the largest difference between the shares of one cell, from 0 to 1.
func LInfinity(ref, cur []uint64) float64 {
	p, q, ok := bothShares(ref, cur)
	if !ok {
		return math.NaN()
	}
	return floats.Distance(p, q, math.Inf(1))
}

// Hellinger is the Hellinger distance √(½Σ(√p−√q)²), from 0 to 1. It is a metric.
func Hellinger(ref, cur []uint64) float64 {
	p, q, ok := bothShares(ref, cur)
	if !ok {
		return math.NaN()
	}
	// Not stat.Hellinger, which takes the root of 1 − Σ√(pq): near 0, rounding is all that is left.
	var sum float64
	for i := range p {
		d := math.Sqrt(p[i]) - math.Sqrt(q[i])
		sum += d * d
	}
	return math.Sqrt(sum / 2)
}

func bothShares(ref, cur []uint64) (p, q []float64, ok bool) {
	sameLen(len(ref), len(cur))
	n, m := float64(Total(ref)), float64(Total(cur))
	if n == 0 || m == 0 {
		return nil, nil, false
	}
	return shares(ref, n), shares(cur, m), true
}
