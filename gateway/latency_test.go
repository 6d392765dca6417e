package gateway

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const ms = time.Millisecond

func TestPeakIsTakenAtOnceAndFades(t *testing.T) {
	var e peakEWMA
	now := epoch
	e.answered(now, 5*ms)
	e.answered(now, 500*ms)
	if got := e.load(now, 0); got != 0.5 {
		t.Errorf("after a peak of 500 ms: got %v s", got)
	}
	e.answered(now, 5*ms)
	if got := e.load(now, 0); got != 0.5 {
		t.Errorf("a fast answer in the same instant: got %v s, want the peak", got)
	}
	now = now.Add(latencyDecay)
	if got, want := e.load(now, 0), 0.5/math.E; math.Abs(got-want) > 1e-9 {
		t.Errorf("nothing for %v: got %v s, want %v", latencyDecay, got, want)
	}
	e.answered(now, 5*ms)
	if got, want := e.load(now, 0), 0.5/math.E+0.005*(1-1/math.E); math.Abs(got-want) > 1e-9 {
		t.Errorf("a fast answer after %v: got %v s, want %v", latencyDecay, got, want)
	}
}

// Between two readers' clocks lies a little: time may seem to go backwards.
func TestClocksMayDisagree(t *testing.T) {
	var e peakEWMA
	e.answered(epoch, 10*ms)
	e.answered(epoch.Add(-time.Millisecond), 5*ms)
	if got := e.load(epoch.Add(-time.Hour), 0); got != 0.01 {
		t.Errorf("got %v s, want 0.01", got)
	}
}

func TestNeverAskedIsTriedByOneCall(t *testing.T) {
	var e peakEWMA
	if got := e.load(epoch, 0); got != 0 {
		t.Errorf("never asked, idle: got %v, want 0", got)
	}
	if got := e.load(epoch, 1); got != 2*unknownCost.Seconds() {
		t.Errorf("never asked, one call: got %v, want much", got)
	}
	e.answered(epoch, 5*ms)
	if got := e.load(epoch, 0); got != 0.005 {
		t.Errorf("after the first answer: got %v, want its latency", got)
	}
	e.forget()
	if got := e.load(epoch, 0); got != 0 {
		t.Errorf("forgotten: got %v, want 0", got)
	}
}

// An endpoint that answers quickly, but with a status that says nothing about it,
// such as NOT_FOUND where the model is missing, must not look like a fast one; nor
// does one bad request spoil an endpoint for long.
func TestStatusesThatSayNothingMakeNobodyAttractive(t *testing.T) {
	var e peakEWMA
	e.tookAtLeast(epoch, ms/10)
	if got := e.load(epoch, 0); got < unknownCost.Seconds() {
		t.Errorf("never served, one quick refusal: got %v s, want what is assumed of the unknown", got)
	}
	e.answered(epoch, 5*ms)
	if got := e.load(epoch, 0); got != 0.005 {
		t.Errorf("then served: got %v s, want its latency", got)
	}
	e.tookAtLeast(epoch, ms/10)
	if got := e.load(epoch, 0); got != 0.005 {
		t.Errorf("a quick refusal later: got %v s, want no change", got)
	}
	e.tookAtLeast(epoch, time.Second)
	if got := e.load(epoch, 0); got != 1 {
		t.Errorf("a deadline of 1 s that passed: got %v s, want 1", got)
	}
}

func TestFailuresAddAPenalty(t *testing.T) {
	var e peakEWMA
	e.answered(epoch, 5*ms)
	e.failed(epoch, ms/10)
	if got := e.load(epoch, 0); got != failurePenalty.Seconds() {
		t.Errorf("after a quick failure: got %v s, want the penalty", got)
	}
	e.failed(epoch, 3*time.Second)
	e.failed(epoch, ms/10)
	if got := e.load(epoch, 0); got != 3 {
		t.Errorf("a quick failure after a slow one: got %v s, want the slow one still", got)
	}
}

// Whatever is observed: a load is never negative or no number, grows with the
// calls in flight, decays while nothing happens, never below what has just been
// seen, and never above all that has ever been seen.
func TestLatencyProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e peakEWMA
		now, most := epoch, unknownCost.Seconds()
		for range rapid.IntRange(1, 50).Draw(t, "observations") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pause")))
			d := time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "latency"))
			most = max(most, d.Seconds())
			switch rapid.IntRange(0, 3).Draw(t, "outcome") {
			case 0:
				e.answered(now, d)
			case 1:
				e.failed(now, d)
				if got := e.load(now, 0); got < failurePenalty.Seconds() {
					t.Fatalf("after a failure: load %v s", got)
				}
			case 2:
				e.tookAtLeast(now, d)
			default:
				continue
			}
			got := e.load(now, 0)
			if got < d.Seconds()-1e-9 || got > most+1e-9 || math.IsNaN(got) {
				t.Fatalf("after %v: load %v s, at most %v s was ever seen", d, got, most)
			}
			if busy := e.load(now, 3); math.Abs(busy-4*got) > 1e-9 {
				t.Fatalf("load %v s idle, %v s with three calls", got, busy)
			}
			if later := e.load(now.Add(time.Second), 0); later > got || (got > 0 && later <= 0) {
				t.Fatalf("load %v s now, %v s in a second", got, later)
			}
		}
	})
}
