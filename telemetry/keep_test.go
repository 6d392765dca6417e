package telemetry

import (
	"testing"
	"time"
)

// A limiter lets its burst through at once, and then one at a time.
func TestLimiterLetsRateAndBurstThrough(t *testing.T) {
	l := limiter{every: 100 * time.Millisecond, burst: 5}
	now := time.Unix(1_000_000, 0)
	count := func() (n int) {
		for l.allow(now) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		wait time.Duration
		want int
	}{{0, 5}, {99 * time.Millisecond, 0}, {time.Millisecond, 1}, {250 * time.Millisecond, 2}, {50 * time.Millisecond, 1}, {time.Hour, 5}} {
		now = now.Add(c.wait)
		if got := count(); got != c.want {
			t.Errorf("after %v: got %d, want %d", c.wait, got, c.want)
		}
	}
}
