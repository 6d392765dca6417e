package breaker

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// takeAll spends what there is.
func takeAll(b *Budget, now time.Time) (n int) {
	for b.Take(now) {
		n++
	}
	return n
}

func TestBudgetStartsFull(t *testing.T) {
	now := time.Now()
	b := NewBudget(now)
	if n := takeAll(b, now); n != 10 {
		t.Errorf("%d attempts, want a burst of 10", n)
	}
}

func TestBudgetEarnsWithTime(t *testing.T) {
	now := time.Now()
	b := NewBudget(now)
	takeAll(b, now)
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{200*time.Millisecond - 1, 0}, {1, 1}, {time.Second, 5}, {time.Hour, 10}} {
		now = now.Add(c.after)
		if n := takeAll(b, now); n != c.want {
			t.Errorf("%d attempts after %v more, want %d", n, c.after, c.want)
		}
	}
}

func TestBudgetEarnsWithCalls(t *testing.T) {
	now := time.Now()
	b := NewBudget(now)
	takeAll(b, now)
	for _, c := range []struct{ calls, want int }{{9, 0}, {1, 1}, {25, 2}, {5, 1}, {1_000_000, 10}} {
		for range c.calls {
			b.Call(now)
		}
		if n := takeAll(b, now); n != c.want {
			t.Errorf("%d attempts for %d more calls, want %d", n, c.calls, c.want)
		}
	}
}

func TestBudgetStatus(t *testing.T) {
	now := time.Now()
	b := NewBudget(now)
	takeAll(b, now)
	b.Call(now)
	if s := b.Status(now.Add(time.Second)); s != (BudgetStatus{Left: 5.1, Taken: 10, Short: 1}) {
		t.Errorf("%+v, want 5.1 left, 10 taken, 1 short", s)
	}
	if s := b.Status(now.Add(time.Hour)); s.Left != 10 {
		t.Errorf("%v left after an hour, want 10", s.Left)
	}
}

// In every stretch of a run, second attempts are at most a tenth of the calls, plus five a second, plus
// the burst.
func TestBudgetBoundsEveryStretch(t *testing.T) {
	type moment struct {
		at           time.Duration
		calls, taken int
	}
	rapid.Check(t, func(t *rapid.T) {
		start := time.Now()
		b := NewBudget(start)
		var at time.Duration
		var calls, taken int
		moments := []moment{{}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			at += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "wait"))
			for range rapid.IntRange(0, 60).Draw(t, "calls") {
				b.Call(start.Add(at))
				calls++
				if rapid.Bool().Draw(t, "wanted") && b.Take(start.Add(at)) {
					taken++
				}
			}
			moments = append(moments, moment{at, calls, taken})
		}
		for i, from := range moments {
			for _, to := range moments[i+1:] {
				most := float64(to.calls-from.calls)/10 + 5*(to.at-from.at).Seconds() + 10
				if got := to.taken - from.taken; float64(got) > most {
					t.Fatalf("%d second attempts from %v to %v, want at most %.1f", got, from.at, to.at, most)
				}
			}
		}
	})
}

func TestBudgetBoundUnderConcurrency(t *testing.T) {
	now := time.Now()
	b := NewBudget(now)
	takeAll(b, now)
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 8 {
		wg.Go(func() {
			n := 0
			for range 5000 {
				b.Call(now)
				if b.Take(now) {
					n++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			taken += n
		})
	}
	wg.Wait()
	if taken != 8*5000/10 {
		t.Errorf("%d second attempts for 40,000 calls at one moment, want 4,000", taken)
	}
}
