package breaker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Against a list of all results: the window holds those of the newest ten buckets.
func TestWindowHoldsTheLastTenSeconds(t *testing.T) {
	type result struct {
		at time.Duration
		o  Outcome
	}
	rapid.Check(t, func(t *rapid.T) {
		var w window
		var all []result
		var at time.Duration
		for range rapid.IntRange(1, 100).Draw(t, "n") {
			at += rapid.SampledFrom([]time.Duration{0, 1, 300 * time.Millisecond, time.Second, 9 * time.Second,
				10 * time.Second, time.Hour}).Draw(t, "wait")
			r := result{at, Outcome(rapid.IntRange(int(Success), int(Failure)).Draw(t, "outcome"))}
			if late := rapid.SampledFrom([]time.Duration{0, 0, 0, 2 * time.Second}).Draw(t, "late"); late > 0 {
				w.add(r.at-late, r.o) // counted as if it came in time
				at, r.at = w.head, w.head
			} else {
				w.add(r.at, r.o)
			}
			all = append(all, r)

			var want tally
			for _, r := range all {
				if r.at/bucketLength > at/bucketLength-windowBuckets {
					want.add(r.o)
				}
			}
			if w.total != want {
				t.Fatalf("at %v: %+v, want %+v", at, w.total, want)
			}
		}
	})
}
