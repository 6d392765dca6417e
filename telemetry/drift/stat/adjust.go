package stat

import (
	"cmp"
	"math"
	"slices"
)

// Holm adjusts the P values of several tests so that comparing each with α wrongly rejects any at all with
// a probability of at most α, however the tests depend on each other (Holm 1979). NaN stays NaN and does not
// count as a test.
func Holm(p []float64) []float64 {
	adjusted, order := ascending(p)
	var largest float64
	for rank, i := range order {
		largest = max(largest, min(1, p[i]*float64(len(order)-rank)))
		adjusted[i] = largest
	}
	return adjusted
}

// BenjaminiHochberg adjusts the P values of several tests so that of those at most q, a share of at most q
// is wrong on average, if the tests are independent or positively dependent (Benjamini and Hochberg 1995).
// NaN is treated as by [Holm].
func BenjaminiHochberg(p []float64) []float64 {
	adjusted, order := ascending(p)
	least := 1.0
	for rank := len(order) - 1; rank >= 0; rank-- {
		i := order[rank]
		least = min(least, p[i]*float64(len(order))/float64(rank+1))
		adjusted[i] = least
	}
	return adjusted
}

// ascending returns a copy to adjust and the indices of the P values that are numbers, smallest first.
func ascending(p []float64) (adjusted []float64, order []int) {
	for i, v := range p {
		if !math.IsNaN(v) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	return slices.Clone(p), order
}
