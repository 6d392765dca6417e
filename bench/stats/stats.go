// Package stats condenses repeated measurements. Rounds on a shared machine
// have outliers on the slow side, so the median stands for them, with bounds that
// say how far to trust it.
package stats

import (
	"fmt"
	"math"
	"slices"
)

// Summary is a median with its bounds, in the unit of the samples.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`

	// Low and High enclose the median of what was sampled with the probability Sure, at
	// least 0.95 if there are six samples or more: the narrowest pair of samples that does,
	// or the range. It holds whatever the distribution is, for samples independent of each
	// other (the interval of the sign test).
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	Sure float64 `json:"sure"`
	N    int     `json:"n"`
}

// wanted is the least probability that Low and High should have.
const wanted = 0.95

// bounds returns which samples, in order and counted from 0, enclose the median, the second
// counted from the end, and how surely.
func bounds(n int) (rank int, sure float64) {
	// The median lies outside of the k smallest and k largest of n samples unless fewer
	// than k of n coin tosses are heads, or fewer than k tails.
	term := math.Pow(0.5, float64(n)) // one head less than k: binomial(n, k) / 2^n
	outside := term
	sure = 1 - 2*outside
	for k := 1; k < n/2; k++ {
		term *= float64(n-k+1) / float64(k)
		outside += term
		if 1-2*outside < wanted {
			break
		}
		rank, sure = k, 1-2*outside
	}
	return rank, sure
}

// Summarize returns the summary of samples, which must not be empty.
func Summarize(samples []float64) Summary {
	sorted := slices.Sorted(slices.Values(samples))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	rank, sure := bounds(len(sorted))
	return Summary{
		Median: median, Min: sorted[0], Max: sorted[len(sorted)-1],
		Low: sorted[rank], High: sorted[len(sorted)-1-rank], Sure: max(0, sure), N: len(sorted),
	}
}

// Ratios divides round by round, which cancels whatever slowed a whole round
// down, and summarizes the quotients. Both must have one sample per round and
// no divisor may be zero.
func Ratios(dividends, divisors []float64) (Summary, error) {
	if len(dividends) != len(divisors) || len(dividends) == 0 {
		return Summary{}, fmt.Errorf("ratio: got %d and %d rounds, want as many of each and at least one", len(dividends), len(divisors))
	}
	quotients := make([]float64, len(dividends))
	for i := range dividends {
		if divisors[i] == 0 {
			return Summary{}, fmt.Errorf("ratio: round %d: cannot divide by zero", i+1)
		}
		quotients[i] = dividends[i] / divisors[i]
	}
	return Summarize(quotients), nil
}
