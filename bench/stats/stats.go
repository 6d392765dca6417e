// Package stats condenses repeated measurements. Rounds on a shared machine
// have outliers on the slow side, so the median stands for them and the range
// says how far to trust it.
package stats

import (
	"fmt"
	"slices"
)

// Summary is a median with its range, in the unit of the samples.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Summarize returns the summary of samples, which must not be empty.
func Summarize(samples []float64) Summary {
	sorted := slices.Sorted(slices.Values(samples))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Summary{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1]}
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
