package telemetry

import "testing"

// The last calls are remembered, the latest first.
func TestLatestCallsAreRemembered(t *testing.T) {
	for _, n := range []int{1, lastCalls, 2*lastCalls + 7} {
		l := new(latest)
		for i := range n {
			l.remember(Failure{Attempts: i})
		}
		recent := l.recent()
		if len(recent) != min(n, lastCalls) {
			t.Fatalf("%d of %d are remembered, want %d at most", len(recent), n, lastCalls)
		}
		for i, f := range recent {
			if want := n - 1 - i; f.Attempts != want {
				t.Fatalf("of %d, number %d is remembered at %d, want %d", n, f.Attempts, i, want)
			}
		}
	}
}
