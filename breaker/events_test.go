package breaker

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestEventsTellTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBreaker(Settings{Consecutive: 2})
		sub := b.events.Subscribe(10)
		settle := func(o Outcome, id string) {
			p, err := b.Allow(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			p.Done(Result{Outcome: o, At: time.Now(), RequestID: id})
		}
		settle(Success, "a")
		settle(Failure, "b")
		bad := time.Now()
		time.Sleep(time.Second)
		settle(Failure, "c")
		if s := b.Status(time.Now()); s.Sample != "c" {
			t.Errorf("sample is %q, want c", s.Sample)
		}
		opened := time.Now()
		time.Sleep(5 * time.Second)
		settle(Failure, "d")
		time.Sleep(10 * time.Second)
		settle(Success, "e")
		b.ForceOpen(time.Now())
		b.Reset(time.Now())
		sub.Close()
		sub.Close()

		name := Name{Version: "fraud v8"}
		failed := Counts{Calls: 3, Failures: 2, Consecutive: 2}
		old := Counts{Consecutive: 2} // of before; the window is over
		at := func(d time.Duration) time.Time { return opened.Add(d) }
		want := []Event{
			{name, at(0), Closed, Open, CauseConsecutive, failed, at(5 * time.Second), "c", false, bad},
			{name, at(5 * time.Second), Open, HalfOpen, CauseProbeDue, failed, time.Time{}, "", false, bad},
			{name, at(5 * time.Second), HalfOpen, Open, CauseProbeFailed, failed, at(15 * time.Second), "d", false, bad},
			{name, at(15 * time.Second), Open, HalfOpen, CauseProbeDue, old, time.Time{}, "", false, bad},
			{name, at(15 * time.Second), HalfOpen, Closed, CauseProbeSucceeded, Counts{}, time.Time{}, "e", false, time.Time{}},
			{name, at(15 * time.Second), Closed, Open, CauseForced, Counts{}, time.Time{}, "", false, time.Time{}},
			{name, at(15 * time.Second), Open, Closed, CauseReset, Counts{}, time.Time{}, "", false, time.Time{}},
		}
		i := 0
		for got := range sub.C() {
			if i >= len(want) || got != want[i] {
				t.Errorf("event %d: %+v", i, got)
			}
			i++
		}
		if i != len(want) {
			t.Errorf("%d events, want %d", i, len(want))
		}
		const line = "fraud v8: closed -> open: consecutive failures (calls 3, failures 2, overloaded 0, slow 0, in a row 2) request c"
		if got := want[0].String(); got != line {
			t.Errorf("as a line: %s\nwant: %s", got, line)
		}
	})
}

func TestSubscriberWhoDoesNotReadLosesEvents(t *testing.T) {
	b := newTestBreaker(Settings{})
	lazy, eager := b.events.Subscribe(3), b.events.Subscribe(100)
	for range 5 {
		b.ForceOpen(time.Now())
		b.Reset(time.Now())
	}
	lazy.Close()
	b.ForceOpen(time.Now())
	if len(lazy.C()) != 3 || lazy.Dropped() != 7 {
		t.Errorf("%d kept and %d dropped, want 3 and 7", len(lazy.C()), lazy.Dropped())
	}
	if len(eager.C()) != 11 || eager.Dropped() != 0 {
		t.Errorf("%d kept and %d dropped, want 11 and 0", len(eager.C()), eager.Dropped())
	}
}

// Whoever is told of a change may ask the breaker about it: nothing is locked.
func TestSubscribersMayCallBack(t *testing.T) {
	b := newTestBreaker(Settings{})
	sub := b.events.Subscribe(1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range sub.C() {
			b.Status(time.Now())
			b.Reset(time.Now())
		}
	})
	for range 1000 {
		b.ForceOpen(time.Now())
	}
	sub.Close()
	wg.Wait()
	b.Reset(time.Now())
	if _, err := b.Allow(time.Now()); errors.Is(err, ErrOpen) {
		t.Error(err)
	}
}

// Each event begins where the one before ended, whoever caused it.
func TestEventsKeepTheirOrder(t *testing.T) {
	b := newTestBreaker(Settings{Consecutive: 1})
	sub := b.events.Subscribe(100_000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if call(b, Failure) != nil {
					b.Reset(time.Now())
				}
			}
		})
	}
	wg.Wait()
	sub.Close()
	state, n := Closed, 0
	for e := range sub.C() {
		if e.From != state {
			t.Fatalf("event %d begins %v, the one before ended %v", n, e.From, state)
		}
		state = e.To
		n++
	}
	if n == 0 || sub.Dropped() > 0 {
		t.Fatalf("%d events, %d dropped", n, sub.Dropped())
	}
}
