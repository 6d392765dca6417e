package e2e

import (
	"slices"
	"testing"
	"time"

	"sluice/bench/stats"
)

// halfRounds is how many rounds a comparison has.
const halfRounds = 12

// compareHalves compares, in rounds of two halves, how long calls take while nothing else happens with how long they
// take while something does. It reports the medians of the rounds' ratios and the highest p99 of either.
func compareHalves(b *testing.B, busy string, measure func(busy bool) []time.Duration) {
	quantiles := func(took []time.Duration) (p50, p99 float64) {
		slices.Sort(took)
		return float64(took[len(took)/2]), float64(took[len(took)*99/100])
	}
	for b.Loop() {
		var quiet50, quiet99, busy50, busy99 []float64
		for range halfRounds {
			p50, p99 := quantiles(measure(false))
			quiet50, quiet99 = append(quiet50, p50), append(quiet99, p99)
			p50, p99 = quantiles(measure(true))
			busy50, busy99 = append(busy50, p50), append(busy99, p99)
		}
		for name, series := range map[string][2][]float64{"p50": {busy50, quiet50}, "p99": {busy99, quiet99}} {
			ratio, err := stats.Ratios(series[0], series[1])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(ratio.Median, name+"-ratio")
			b.Logf("%s: %+v", name, ratio)
		}
		b.ReportMetric(slices.Max(quiet99)/1e6, "quiet-p99-max-ms")
		b.ReportMetric(slices.Max(busy99)/1e6, busy+"-p99-max-ms")
	}
}
