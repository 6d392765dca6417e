package breaker

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newTestBreaker makes a breaker whose open times are not stretched.
func newTestBreaker(s Settings) *Breaker {
	b := newBreaker(Name{Version: "fraud v8"}, s, time.Now(), new(Events))
	b.stretch = func() float64 { return 0 }
	b.machine = b.newMachine()
	return b
}

// call makes one attempt that ends at once.
func call(b *Breaker, o Outcome) error {
	p, err := b.Allow(time.Now())
	if err != nil {
		return err
	}
	p.Done(Result{Outcome: o, At: time.Now()})
	return nil
}

// calls makes n attempts, all of which must be admitted.
func calls(t testing.TB, b *Breaker, n int, o Outcome) {
	t.Helper()
	for i := range n {
		if err := call(b, o); err != nil {
			t.Fatalf("attempt %d of %d (%v): %v", i+1, n, o, err)
		}
	}
}

func wantState(t testing.TB, b *Breaker, want State) {
	t.Helper()
	if got := b.Status(time.Now()); got.State != want {
		t.Fatalf("state is %v (%v), want %v", got.State, got.Cause, want)
	}
}
