package breaker

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"
)

func TestOpensAfterConsecutiveFailures(t *testing.T) {
	b := newTestBreaker(Settings{Consecutive: 3})
	calls(t, b, 2, Failure)
	calls(t, b, 1, Success) // ends the row
	calls(t, b, 2, Failure)
	for _, o := range []Outcome{Excluded, Overloaded} { // neither ends nor lengthens it
		calls(t, b, 1, o)
	}
	wantState(t, b, Closed)
	calls(t, b, 1, Failure)
	if s := b.Status(time.Now()); s.State != Open || s.Cause != CauseConsecutive {
		t.Fatalf("%v (%v), want open (consecutive failures)", s.State, s.Cause)
	}
	if err := call(b, Success); err != ErrOpen { //nolint:errorlint // errors come as they stand
		t.Errorf("Allow while open: %v, want ErrOpen", err)
	}
}

func TestOpensAtFailureRatioWithMinimumCalls(t *testing.T) {
	b := newTestBreaker(Settings{FailureRatio: 0.5, MinCalls: 10})
	for range 4 {
		calls(t, b, 1, Failure)
		calls(t, b, 1, Success)
	}
	calls(t, b, 1, Success)
	calls(t, b, 1, Failure) // 5 of 10
	if s := b.Status(time.Now()); s.State != Open || s.Cause != CauseFailureRatio {
		t.Fatalf("%v (%v, %+v), want open (failure ratio)", s.State, s.Cause, s.Counts)
	}
}

func TestFewCallsHaveNoRatio(t *testing.T) {
	b := newTestBreaker(Settings{FailureRatio: 0.1, MinCalls: 10})
	calls(t, b, 1, Success)
	calls(t, b, 4, Failure)
	calls(t, b, 1, Success)
	calls(t, b, 3, Failure)
	wantState(t, b, Closed)
}

func TestOverloadCountsInTheRatioOnly(t *testing.T) {
	b := newTestBreaker(Settings{MinCalls: 20, Consecutive: 5})
	calls(t, b, 19, Overloaded)
	wantState(t, b, Closed)
	calls(t, b, 1, Overloaded)
	wantState(t, b, Open)
}

func TestSlowSuccessesOpen(t *testing.T) {
	for _, c := range []struct {
		slowCall time.Duration
		want     State
	}{{time.Second, Open}, {0, Closed}} {
		b := newTestBreaker(Settings{SlowCall: c.slowCall, SlowRatio: 0.8, MinCalls: 10})
		calls(t, b, 2, Success)
		calls(t, b, 8, Slow)
		if s := b.Status(time.Now()); s.State != c.want || (s.State == Open) != (s.Cause == CauseSlowRatio) {
			t.Errorf("slow_call %v: %v (%v), want %v", c.slowCall, s.State, s.Cause, c.want)
		}
	}
}

func TestBadInputNeverOpens(t *testing.T) {
	b := newTestBreaker(Settings{})
	calls(t, b, 10_000, Excluded)
	if s := b.Status(time.Now()); s.State != Closed || s.Counts != (Counts{}) {
		t.Errorf("%v, %+v after excluded results only", s.State, s.Counts)
	}
}

func TestOldFailuresAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{MinCalls: 20, Consecutive: 100})
		calls(t, b, 19, Failure)
		time.Sleep(windowBuckets * bucketLength)
		calls(t, b, 1, Failure)
		wantState(t, b, Closed)
		if c := b.Status(time.Now()).Counts; c.Calls != 1 || c.Consecutive != 20 {
			t.Errorf("%+v, want one call in the window and 20 in a row", c)
		}
	})
}

func TestProbeAdmittedOnceOpenForElapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{Consecutive: 2, OpenFor: 5 * time.Second})
		calls(t, b, 2, Failure)
		time.Sleep(5*time.Second - 1)
		if b.Ready(time.Now()) {
			t.Error("ready before open_for")
		}
		if err := call(b, Success); !errors.Is(err, ErrOpen) {
			t.Fatalf("Allow before open_for: %v, want ErrOpen", err)
		}
		time.Sleep(1)
		if !b.Ready(time.Now()) {
			t.Error("not ready after open_for")
		}
		p, err := b.Allow(time.Now())
		if err != nil {
			t.Fatalf("Allow after open_for: %v, want a probe", err)
		}
		wantState(t, b, HalfOpen)
		for range 100 {
			if err := call(b, Success); err != ErrProbing { //nolint:errorlint // errors come as they stand
				t.Fatalf("Allow while a probe is out: %v, want ErrProbing", err)
			}
		}
		p.Done(Result{Outcome: Success, At: time.Now()})
		wantState(t, b, Closed)
		calls(t, b, 1, Failure) // counts begin anew
		wantState(t, b, Closed)
	})
}

func TestOpenTimeGrowsWhileProbesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{OpenFor: 5 * time.Second, MaxOpenFor: 30 * time.Second})
		openTimes := func() (times []time.Duration) {
			calls(t, b, 5, Failure)
			for range 5 {
				s := b.Status(time.Now())
				times = append(times, s.OpenUntil.Sub(s.Since))
				time.Sleep(time.Until(s.OpenUntil) - 1)
				if err := call(b, Failure); !errors.Is(err, ErrOpen) {
					t.Fatalf("before the end of an open time: %v", err)
				}
				time.Sleep(1)
				calls(t, b, 1, Failure)
			}
			time.Sleep(time.Until(b.Status(time.Now()).OpenUntil))
			calls(t, b, 1, Success)
			wantState(t, b, Closed)
			return times
		}
		want := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second}
		if got := openTimes(); !slices.Equal(got, want) {
			t.Errorf("open times %v, want %v", got, want)
		}
		if got := openTimes(); !slices.Equal(got, want) {
			t.Errorf("open times %v after it was closed, want %v again", got, want)
		}
	})
}

// A probe decides alone, even when nothing of what led to the opening is left in the window.
func TestFailedProbeReopensWithAnEmptyWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{MinCalls: 2, Consecutive: 3, OpenFor: time.Minute})
		calls(t, b, 1, Success)
		calls(t, b, 1, Failure)
		time.Sleep(time.Minute)
		if c := b.Status(time.Now()).Counts; c.Calls != 0 {
			t.Fatalf("%+v after a minute", c)
		}
		calls(t, b, 1, Failure)
		if s := b.Status(time.Now()); s.State != Open || s.Cause != CauseProbeFailed {
			t.Errorf("%v (%v), want open again (probe failed)", s.State, s.Cause)
		}
		if m := b.machine.State(); m != gobreaker.StateOpen {
			t.Errorf("the machine is %v, want open", m)
		}
	})
}

func TestOpenTimesAreStretchedAtRandom(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 100 {
		b := newBreaker(Name{}, Settings{OpenFor: 5 * time.Second}, time.Now(), new(Events))
		calls(t, b, 5, Failure)
		s := b.Status(time.Now())
		d := s.OpenUntil.Sub(s.Since)
		if d < 5*time.Second || d > 6*time.Second {
			t.Fatalf("open for %v, want 5 s to 6 s", d)
		}
		seen[d] = true
	}
	if len(seen) < 90 {
		t.Errorf("%d different open times of 100", len(seen))
	}
	b := newBreaker(Name{}, Settings{OpenFor: 5 * time.Second, MaxOpenFor: 5 * time.Second}, time.Now(), new(Events))
	calls(t, b, 5, Failure)
	if s := b.Status(time.Now()); s.OpenUntil.Sub(s.Since) != 5*time.Second {
		t.Errorf("open for %v, want no more than max_open_for", s.OpenUntil.Sub(s.Since))
	}
}

func TestEveryBadProbeReopens(t *testing.T) {
	for _, o := range []Outcome{Failure, Overloaded, Slow} {
		synctest.Test(t, func(t *testing.T) {
			b := newTestBreaker(Settings{SlowCall: time.Second})
			calls(t, b, 5, Failure)
			time.Sleep(5 * time.Second)
			calls(t, b, 1, o)
			if s := b.Status(time.Now()); s.State != Open || s.Cause != CauseProbeFailed || s.Openings != 2 {
				t.Errorf("%v probe: %v (%v), %d openings", o, s.State, s.Cause, s.Openings)
			}
		})
	}
}

// Two that have both seen that a probe is due.
func TestSecondToAskForTheProbeGetsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		calls(t, b, 5, Failure)
		time.Sleep(5 * time.Second)
		first, ok := b.takeProbe(time.Now())
		if !ok {
			t.Fatal("no probe although it is due")
		}
		if _, ok := b.takeProbe(time.Now()); ok {
			t.Fatal("two probes at once")
		}
		first.Done(Result{Outcome: Success, At: time.Now()})
		if _, ok := b.takeProbe(time.Now()); ok {
			t.Fatal("a probe of a closed breaker")
		}
		wantState(t, b, Closed)
	})
}

func TestExcludedProbeIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		calls(t, b, 5, Failure)
		time.Sleep(5 * time.Second)
		calls(t, b, maxUnjudged-1, Excluded)
		wantState(t, b, HalfOpen)
		calls(t, b, 1, Success)
		wantState(t, b, Closed)
	})
}

// Callers with too little patience are not all probes, one after the other.
func TestExcludedProbesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		calls(t, b, 5, Failure)
		probes := 0
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			if call(b, Excluded) == nil {
				probes++
			}
		}
		if probes != maxUnjudged { // for 5 s it was open, and then nearly as long it was not probed
			t.Errorf("%d probes within two open times, want %d", probes, maxUnjudged)
		}
		time.Sleep(time.Second)
		calls(t, b, 1, Success)
		wantState(t, b, Closed)
	})
}

// A permit that is never settled would keep the breaker half-open for good.
func TestLostProbeIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{MaxOpenFor: 20 * time.Second})
		calls(t, b, 5, Failure)
		time.Sleep(5 * time.Second)
		lost, err := b.Allow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20*time.Second - 1)
		if err := call(b, Success); !errors.Is(err, ErrProbing) {
			t.Fatalf("Allow within the probe's time: %v, want ErrProbing", err)
		}
		time.Sleep(1)
		p, err := b.Allow(time.Now())
		if err != nil {
			t.Fatalf("Allow after the probe's time: %v, want another probe", err)
		}
		lost.Done(Result{Outcome: Failure, At: time.Now()})
		if s := b.Status(time.Now()); s.State != HalfOpen || s.Stale != 1 {
			t.Fatalf("%v with %d stale results; the lost probe decided", s.State, s.Stale)
		}
		p.Done(Result{Outcome: Success, At: time.Now()})
		wantState(t, b, Closed)
	})
}

func TestStreamIsAProbeUntilItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		calls(t, b, 5, Failure)
		time.Sleep(5 * time.Second)
		p, err := b.Allow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p.Answering(time.Now())
		wantState(t, b, Closed)
		if !p.Held() {
			t.Error("Answering has settled the permit")
		}
		p.Answering(time.Now())
		p.Done(Result{Outcome: Failure, At: time.Now()})
		if s := b.Status(time.Now()); s.Counts != (Counts{}) || s.Stale+s.Repeated != 0 {
			t.Errorf("the stream's end counted: %+v", s)
		}
	})
}

func TestResultsOfAnEarlierGenerationDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		var late []Permit
		for range 10 {
			p, err := b.Allow(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			late = append(late, p)
		}
		calls(t, b, 5, Failure)
		late[0].Done(Result{Outcome: Success, At: time.Now()}) // open
		time.Sleep(5 * time.Second)
		p, err := b.Allow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		late[1].Done(Result{Outcome: Success, At: time.Now()}) // half-open: not the probe
		wantState(t, b, HalfOpen)
		p.Done(Result{Outcome: Success, At: time.Now()})
		for i := range late[2:] { // closed again
			late[2+i].Done(Result{Outcome: Failure, At: time.Now()})
		}
		if s := b.Status(time.Now()); s.State != Closed || s.Counts != (Counts{}) || s.Stale != 10 {
			t.Errorf("%v, %+v, %d stale; want closed, nothing counted, 10 stale", s.State, s.Counts, s.Stale)
		}
	})
}

func TestSecondDoneIsIgnoredAndCounted(t *testing.T) {
	b := newTestBreaker(Settings{})
	p, err := b.Allow(time.Now())
	if err != nil || !p.Held() {
		t.Fatal(err, p.Held())
	}
	for range 3 {
		p.Done(Result{Outcome: Failure, At: time.Now()})
	}
	if s := b.Status(time.Now()); s.Counts.Failures != 1 || s.Repeated != 2 || p.Held() {
		t.Errorf("%d failures and %d repeated, want 1 and 2", s.Counts.Failures, s.Repeated)
	}
	var none Permit
	none.Done(Result{Outcome: Failure})
	none.Answering(time.Now())
	if none.Held() {
		t.Error("the zero permit is held")
	}
}

func TestForcedOpenUntilReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, dryRun := range []bool{false, true} {
			b := newTestBreaker(Settings{DryRun: dryRun})
			p, err := b.Allow(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			b.ForceOpen(time.Now())
			b.ForceOpen(time.Now())
			p.Done(Result{Outcome: Success, At: time.Now()})
			time.Sleep(1000 * time.Hour)
			if err := call(b, Success); err != ErrForced { //nolint:errorlint // errors come as they stand
				t.Errorf("forced open, dry run %v: %v", dryRun, err)
			}
			if s := b.Status(time.Now()); s.State != Open || !s.Forced || !s.OpenUntil.IsZero() || b.Ready(time.Now()) {
				t.Errorf("forced open: %+v", s)
			}
			b.Reset(time.Now())
			if s := b.Status(time.Now()); s.State != Closed || s.Forced || s.Cause != CauseReset {
				t.Errorf("reset: %+v", s)
			}
			calls(t, b, 1, Success)
		}
	})
}

func TestOrdersWhileAProbeIsOut(t *testing.T) {
	orders := map[string]func(*Breaker){
		"reset":             func(b *Breaker) { b.Reset(time.Now()) },
		"force, then reset": func(b *Breaker) { b.ForceOpen(time.Now()); b.Reset(time.Now()) },
	}
	for name, order := range orders {
		synctest.Test(t, func(t *testing.T) {
			b := newTestBreaker(Settings{})
			calls(t, b, 5, Failure)
			time.Sleep(5 * time.Second)
			p, err := b.Allow(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			order(b)
			p.Done(Result{Outcome: Failure, At: time.Now()})
			if s := b.Status(time.Now()); s.State != Closed || s.Counts != (Counts{}) {
				t.Errorf("%s: %v, %+v; the old probe counted", name, s.State, s.Counts)
			}
			calls(t, b, 5, Failure)
			if s := b.Status(time.Now()); s.OpenUntil.Sub(s.Since) != 5*time.Second {
				t.Errorf("%s: open for %v, want open_for from its beginning", name, s.OpenUntil.Sub(s.Since))
			}
		})
	}
}

func TestResetOfAClosedBreakerForgets(t *testing.T) {
	b := newTestBreaker(Settings{})
	calls(t, b, 4, Failure)
	b.Reset(time.Now())
	calls(t, b, 4, Failure)
	wantState(t, b, Closed)
	calls(t, b, 1, Failure)
	wantState(t, b, Open)
}

func TestDryRunReportsAndRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{DryRun: true})
		sub := b.events.Subscribe(10)
		calls(t, b, 50, Failure)
		if s := b.Status(time.Now()); s.State != Open || s.Refused != 45 || s.Counts.Calls != 5 {
			t.Errorf("%v, %d would be refused, %d counted; want open, 45, 5", s.State, s.Refused, s.Counts.Calls)
		}
		if !b.Ready(time.Now()) {
			t.Error("not ready in a dry run")
		}
		time.Sleep(5 * time.Second)
		calls(t, b, 1, Success) // the probe
		wantState(t, b, Closed)
		sub.Close()
		for e := range sub.C() {
			if !e.DryRun {
				t.Errorf("%v: not marked as dry run", e)
			}
		}
	})
}

func TestBypassProbesButRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		bypass := func(o Outcome) {
			p := b.Bypass(time.Now())
			p.Done(Result{Outcome: o, At: time.Now()})
		}
		for range 20 {
			bypass(Failure)
		}
		if s := b.Status(time.Now()); s.State != Open || s.Counts.Calls != 5 || s.Refused != 0 {
			t.Errorf("%v, %d counted, %d refused; want open, 5, 0", s.State, s.Counts.Calls, s.Refused)
		}
		time.Sleep(5 * time.Second)
		bypass(Success)
		wantState(t, b, Closed)
	})
}

func TestUpdateKeepsState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{})
		calls(t, b, 4, Failure)
		p, err := b.Allow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b.update(Settings{OpenFor: time.Second})
		if s := b.Status(time.Now()); s.Counts.Failures != 4 {
			t.Errorf("%+v after new settings", s.Counts)
		}
		p.Done(Result{Outcome: Failure, At: time.Now()}) // of before the change, and counts
		s := b.Status(time.Now())
		if s.State != Open || s.OpenUntil.Sub(s.Since) != time.Second {
			t.Fatalf("%v for %v, want open for the new open_for", s.State, s.OpenUntil.Sub(s.Since))
		}
		b.update(Settings{OpenFor: time.Minute})
		wantState(t, b, Open)
		time.Sleep(time.Second)
		calls(t, b, 1, Failure)
		if s := b.Status(time.Now()); s.OpenUntil.Sub(s.Since) != time.Minute {
			t.Errorf("open for %v, want max_open_for raised to the new open_for", s.OpenUntil.Sub(s.Since))
		}
		b.update(Settings{DryRun: true})
		if err := call(b, Success); err != nil {
			t.Errorf("dry run switched on while open: %v", err)
		}
	})
}

// A long answer that goes bad counts when it does, once, and not again when it ends.
func TestFailingCountsAtOnceAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{Consecutive: 2})
		var permits [2]Permit
		for i := range permits {
			p, err := b.Allow(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			permits[i] = p
		}
		bad := Result{Outcome: Failure, At: time.Now()}
		permits[0].Failing(bad)
		permits[0].Failing(bad)
		if !b.Ready(time.Now()) {
			t.Fatal("one answer that repeats its error has opened the breaker")
		}
		permits[0].Done(bad)
		if !b.Ready(time.Now()) {
			t.Fatal("its end has counted again")
		}
		permits[1].Failing(bad)
		if b.Ready(time.Now()) {
			t.Error("the second bad answer has not opened the breaker while it goes on")
		}
		if !permits[1].Held() {
			t.Error("Failing has settled the permit")
		}
		permits[1].Done(Result{At: time.Now()})
	})
}
