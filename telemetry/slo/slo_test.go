package slo_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/telemetry/slo"
)

// begin is the start of an hour, so that tests know where steps begin.
var begin = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// feed adds events every second for d, of which share are bad.
type feed struct {
	series slo.Series
	now    time.Time
	sum    slo.Counts
	owed   float64
}

func (f *feed) run(d time.Duration, perSecond uint64, share float64) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(time.Second)
		f.second(perSecond, share)
	}
}

func (f *feed) second(n uint64, share float64) {
	f.owed += float64(n) * share
	bad := math.Floor(f.owed)
	f.owed -= bad
	f.sum.Total += n
	f.sum.Bad += uint64(bad)
	f.series.Add(f.now, f.sum)
}

// TestTotalOutagePagesWithinAMinute: at 99.9 %, an outage has spent 14.4 times an hour's
// budget after 0.001 * 14.4 * 3600 s = 51.84 s (Workbook, chapter 5).
func TestTotalOutagePagesWithinAMinute(t *testing.T) {
	f := feed{now: begin}
	f.run(7*time.Hour, 10, 0)
	if v := slo.Judge(&f.series, 0.999); v.Severity != slo.Fine {
		t.Fatalf("while all is well: %+v", v)
	}
	for s := 1; ; s++ {
		f.run(time.Second, 10, 1)
		if v := slo.Judge(&f.series, 0.999); v.Severity == slo.Page {
			if s < 51 || s > 53 {
				t.Errorf("paged after %d s, want 52 s", s)
			}
			if onset, want := f.series.Onset(0.999, v.Rule.Rate), begin.Add(7*time.Hour); !onset.Equal(want) {
				t.Errorf("onset %v, want %v", onset, want)
			}
			return
		}
		if s > 120 {
			t.Fatal("a total outage of two minutes has not paged")
		}
	}
}

// TestOnsetAndEndOfABurn: an outage goes on over steps in which nobody calls, and not over good ones; it is over at the end of
// the last step in which it burnt.
func TestOnsetAndEndOfABurn(t *testing.T) {
	f := feed{now: begin}
	f.run(10*time.Minute, 10, 0)
	f.run(slo.Step, 10, 1) // an earlier one
	f.run(2*slo.Step, 10, 0)
	began := f.now
	f.run(slo.Step, 10, 1)
	f.run(3*slo.Step, 0, 0)
	f.run(slo.Step, 10, 1)
	over := f.now
	if got := f.series.Onset(0.999, 14.4); !got.Equal(began) {
		t.Errorf("onset %v, want %v, when a step began", got, began)
	}
	f.run(5*time.Minute, 10, 0)
	if got, want := f.series.LastBurn(0.999, 14.4), over.Add(slo.Step); !got.Equal(want) {
		t.Errorf("last burn %v, want the end of the step in which the last call failed, %v", got, want)
	}
	if got := f.series.Onset(0.999, 14.4); !got.IsZero() {
		t.Errorf("onset %v of what is over", got)
	}
}

// TestPageEndsSoonAfterTheTrouble, though its long window still burns.
func TestPageEndsSoonAfterTheTrouble(t *testing.T) {
	f := feed{now: begin}
	f.run(7*time.Hour, 10, 0)
	f.run(3*time.Minute, 10, 1)
	if v := slo.Judge(&f.series, 0.999); v.Severity != slo.Page {
		t.Fatalf("three minutes without an answer: %+v, want a page", v)
	}
	f.run(5*time.Minute, 10, 0)
	if v := slo.Judge(&f.series, 0.999); v.Rule == slo.Rules[0] && v.Severity == slo.Page {
		t.Errorf("five good minutes later: %+v, want the short window to end it", v)
	}
	f.run(26*time.Minute, 10, 0)
	if v := slo.Judge(&f.series, 0.999); v.Severity == slo.Page {
		t.Errorf("half an hour later: %+v, want no page", v)
	}
}

// TestSeveritiesByBurnRate: each rule holds a little above its rate and not a little
// below, once its windows are full.
func TestSeveritiesByBurnRate(t *testing.T) {
	const target = 0.99
	for _, c := range []struct {
		rate float64
		want slo.Severity
	}{{0.9, slo.Fine}, {1.1, slo.Ticket}, {5.5, slo.Ticket}, {6.5, slo.Page}, {15, slo.Page}} {
		var s slo.Series
		var sum slo.Counts
		for now, end := begin, begin.Add(73*time.Hour); now.Before(end); now = now.Add(slo.Step) {
			sum.Total += 10_000
			sum.Bad += uint64(10_000 * (1 - target) * c.rate)
			s.Add(now, sum)
		}
		v := slo.Judge(&s, target)
		if v.Severity != c.want {
			t.Errorf("at %v times the budget's rate: %v by %+v, want %v", c.rate, v.Severity, v.Rule, c.want)
		}
	}
}

// TestFewBadEventsAlertNobody: nine failures at night are no incident.
func TestFewBadEventsAlertNobody(t *testing.T) {
	for bad, want := range map[uint64]slo.Severity{slo.MinBad - 1: slo.Fine, slo.MinBad: slo.Page} {
		var s slo.Series
		s.Add(begin, slo.Counts{Total: 12, Bad: bad})
		if v := slo.Judge(&s, 0.999); v.Severity != want {
			t.Errorf("%d of 12 calls failed: %v, want %v", bad, v.Severity, want)
		}
	}
}

func TestBurnRateAndBudget(t *testing.T) {
	for _, c := range []struct {
		counts     slo.Counts
		target     float64
		rate, left float64
	}{
		{slo.Counts{}, 0.999, 0, 1},
		{slo.Counts{Total: 1000, Bad: 1}, 0.999, 1, 0},
		{slo.Counts{Total: 1000, Bad: 10}, 0.99, 1, 0},
		{slo.Counts{Total: 10_000, Bad: 2}, 0.999, 0.2, 0.8},
		{slo.Counts{Total: 100, Bad: 100}, 0.999, 1000, -999},
	} {
		if got := slo.BurnRate(c.counts, c.target); math.Abs(got-c.rate) > 1e-9*max(1, c.rate) {
			t.Errorf("BurnRate(%+v, %v) = %v, want %v", c.counts, c.target, got, c.rate)
		}
		if got := slo.BudgetLeft(c.counts, c.target); math.Abs(got-c.left) > 1e-9*max(1, c.rate) {
			t.Errorf("BudgetLeft(%+v, %v) = %v, want %v", c.counts, c.target, got, c.left)
		}
	}
}

// TestWindowsAgreeWithAPlainList: whatever is added when, a window holds just what was
// added in its steps.
func TestWindowsAgreeWithAPlainList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type event struct {
			at  time.Time
			new slo.Counts
		}
		var s slo.Series
		var sum slo.Counts
		var all []event
		now := begin
		for range rapid.IntRange(1, 60).Draw(t, "adds") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int64{
				0, int64(time.Second), int64(29 * time.Second), int64(time.Minute), int64(time.Hour), int64(7 * time.Hour), int64(40 * 24 * time.Hour),
			}).Draw(t, "pause")))
			n := rapid.Uint64Range(0, 1000).Draw(t, "total")
			e := event{now, slo.Counts{Total: n, Bad: rapid.Uint64Range(0, n).Draw(t, "bad")}}
			all = append(all, e)
			sum.Total += e.new.Total
			sum.Bad += e.new.Bad
			s.Add(now, sum)
		}
		for _, d := range []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 6 * time.Hour, 72 * time.Hour, slo.Period} {
			step := slo.Step
			if d > 6*time.Hour {
				step = time.Hour
			}
			from := now.Truncate(step).Add(step - d)
			var want slo.Counts
			for _, e := range all {
				if !e.at.Before(from) {
					want.Total += e.new.Total
					want.Bad += e.new.Bad
				}
			}
			if got := s.Last(d); got != want {
				t.Fatalf("Last(%v) = %+v, want %+v", d, got, want)
			}
		}
	})
}

// TestCountersThatBeginAnew, as after a route was deleted and came back, count from zero.
func TestCountersThatBeginAnew(t *testing.T) {
	var s slo.Series
	s.Add(begin, slo.Counts{Total: 100, Bad: 10})
	s.Add(begin, slo.Counts{Total: 5, Bad: 1})
	if got, want := s.Last(time.Hour), (slo.Counts{Total: 105, Bad: 11}); got != want {
		t.Errorf("Last = %+v, want %+v", got, want)
	}
}

func BenchmarkAdd(b *testing.B) {
	b.ReportAllocs()
	var s slo.Series
	now := begin
	var sum slo.Counts
	for b.Loop() {
		now = now.Add(5 * time.Second)
		sum.Total += 100
		s.Add(now, sum)
	}
}
