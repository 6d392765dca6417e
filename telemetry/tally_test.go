package telemetry

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestCountsSinceASecond: what callers have noticed since then, and nothing that was before.
func TestCountsSinceASecond(t *testing.T) {
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	s, tally := tel.Series("fraud", "v7"), tel.Tally("fraud")
	noon := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	at := func(second float64) time.Time { return noon.Add(time.Duration(second * float64(time.Second))) }
	end := func(second float64, code codes.Code) {
		tel.Record(&Call{Series: s, Opened: noon, Ended: at(second), Code: uint32(code)})
	}
	if got := tally.Since(at(0)); got != (Tallied{}) {
		t.Errorf("before the first call: %+v", got)
	}
	end(1.2, codes.OK)
	end(1.8, codes.Internal)
	end(3.1, codes.Internal)
	end(1.9, codes.OK) // was counted late
	end(7.5, codes.OK)
	for _, c := range []struct {
		since         float64
		calls, failed uint64
	}{{0, 5, 2}, {1.7, 5, 2}, {2, 3, 1}, {3.9, 3, 1}, {4, 1, 0}, {7.9, 1, 0}, {8, 0, 0}} {
		if got := tally.Since(at(c.since)); got.Calls != c.calls || got.Failed != c.failed {
			t.Errorf("since second %v: %+v, want %d calls, %d failed", c.since, got, c.calls, c.failed)
		}
	}
	for i := range tallyMarks + 1 {
		end(float64(10+i), codes.OK)
	}
	if got := tally.Since(at(0)); got.Calls != tallyMarks {
		t.Errorf("since longer than is remembered: %d calls, want those of the last %d seconds", got.Calls, tallyMarks)
	}
}

// TestCountsSinceASecondUnderConcurrency: callers do not wait for who reads, and no call is counted twice.
func TestCountsSinceASecondUnderConcurrency(t *testing.T) {
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	s, tally := tel.Series("fraud", "v7"), tel.Tally("fraud")
	begin := time.Unix(1000, 0)
	var callers sync.WaitGroup
	const each = 2000
	for range 4 {
		callers.Go(func() {
			for i := range each {
				tel.Record(&Call{Series: s, Opened: begin, Ended: begin.Add(time.Duration(i) * 5 * time.Millisecond)})
				if i%50 == 0 {
					tally.Since(begin)
				}
			}
		})
	}
	callers.Wait()
	if all, n := tally.Read().Calls, tally.Since(begin).Calls; all != 4*each || n > all || n < all-4*200 {
		t.Errorf("%d calls, %d of them since the first second; want %d and nearly as many", all, n, 4*each)
	}
}
