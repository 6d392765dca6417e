package incident

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/routing/memstore"
)

// mitigation is since when the only incident is mitigated, as a time since began; negative if it is not.
func mitigation(t *testing.T, shelf Shelf, began time.Time) time.Duration {
	t.Helper()
	synctest.Wait()
	in := all(t, shelf)
	if len(in) != 1 {
		t.Fatalf("%d incidents, want one: %v", len(in), in)
	}
	if in[0].GetMitigated() == nil {
		return -1
	}
	return in[0].GetMitigated().AsTime().Sub(began)
}

// TestHelpThatCallersDoNotNoticeIsNone: a remedy counts while calls do not fail, and from then on if they stop to.
func TestHelpThatCallersDoNotNoticeIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		began := time.Now()
		run := func(looks int, failed uint64) { // of 1000 calls in each
			for range looks {
				g.calls.Add(1000)
				g.failed.Add(failed)
				time.Sleep(interval)
			}
		}
		g.Begin(breakerOpens("v8"))
		g.Mitigate("fraud", "v8 has lost its weight", began)
		time.Sleep(interval / 2) // between two looks
		for i, step := range []struct {
			looks  int
			failed uint64
			want   time.Duration
		}{
			{1, 500, 0},                // those under way when help came
			{4, 9, 0},                  // less than 1 of 100 is no outage
			{1, 1000, 0},               // a single look
			{1, 0, 0},                  //
			{2, 10, -1},                // it is one
			{1, 0, 9 * interval},       // and is over
			{3, 0, 9 * interval},       // for good
			{2, 500, -1},               // but for another one
			{1, 0, (9 + 6) * interval}, // that ends, too
		} {
			run(step.looks, step.failed)
			if got := mitigation(t, shelf, began); got != step.want {
				t.Errorf("step %d: mitigated after %v, want %v", i, got, step.want)
			}
		}
		r := Reliability(all(t, shelf), nil, began.Add(-time.Hour), time.Now())[0]
		if want := 1 - float64(3*time.Second+15*interval)/float64(time.Since(began)+time.Hour); r.GetUptime() < want-1e-6 || r.GetUptime() > want+1e-6 {
			t.Errorf("uptime %v, want %v: until help came for good", r.GetUptime(), want)
		}
	})
}

// TestNobodyWhoAnswersIsNoHelp, from the moment in which that is known.
func TestNobodyWhoAnswersIsNoHelp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		began := time.Now()
		g.Begin(breakerOpens("v8"))
		g.Mitigate("fraud", "v7 answers", began)
		time.Sleep(time.Millisecond)
		if got := mitigation(t, shelf, began); got != 0 {
			t.Fatalf("mitigated after %v, want at once", got)
		}
		g.Worsen("fraud", "v7 is cut off as well", time.Now())
		time.Sleep(time.Millisecond)
		if got := mitigation(t, shelf, began); got >= 0 {
			t.Errorf("mitigated after %v while nobody answers", got)
		}
		g.sees.Store(&sight{help: Helpless})
		time.Sleep(3 * interval)
		g.sees.Store(&sight{help: Helped})
		time.Sleep(interval)
		back := mitigation(t, shelf, began)
		if back < 3*interval || back > 4*interval+time.Second {
			t.Errorf("mitigated after %v, want when somebody answered again", back)
		}
		g.sees.Store(&sight{help: Helpless})
		time.Sleep(interval)
		if got := mitigation(t, shelf, began); got >= 0 {
			t.Errorf("mitigated after %v while nobody answers again", got)
		}
	})
}

// TestBudgetThatGoesOnBurningRefutesARemedy, which is believed no more.
func TestBudgetThatGoesOnBurningRefutesARemedy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		began := time.Now()
		g.Begin(breakerOpens("v8"))
		g.sees.Store(&sight{help: Helped})
		time.Sleep(2 * interval)
		if got := mitigation(t, shelf, began); got < 0 {
			t.Fatal("not mitigated though somebody answers")
		}
		now := time.Now()
		g.Begin(Trouble{Model: "fraud", Name: "budget for latency", Trigger: BurnRate, At: now, Onset: now.Add(-time.Second)})
		time.Sleep(3 * interval)
		if got := mitigation(t, shelf, began); got >= 0 {
			t.Errorf("mitigated after %v, though calls are late since then", got)
		}
	})
}

// TestRefutedRemedyIsBelievedAgain once no budget burns any more, from when one burnt last, if by then calls did not fail, either.
func TestRefutedRemedyIsBelievedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		began := time.Now()
		expect := func(when string, want time.Duration) {
			t.Helper()
			if got := mitigation(t, shelf, began); got != want {
				t.Errorf("%s: mitigated after %v, want %v (negative: it is not)", when, got, want)
			}
		}
		run := func(looks int, failed uint64) {
			for range looks {
				g.calls.Add(1000)
				g.failed.Add(failed)
				settle()
			}
		}
		burn := func(objective string, seen Effect) {
			now := time.Now()
			g.Begin(Trouble{Model: "fraud", Name: "budget for " + objective, Trigger: BurnRate, At: now, Onset: now.Add(-time.Second), Seen: seen})
		}
		g.Begin(breakerOpens("v8"))
		g.Mitigate("fraud", "v8 has lost its weight", began) // which is told once
		run(2, 0)
		expect("all is well", 0)

		burn("availability", Effect{Calls: 100, Failed: 1})
		run(2, 0)
		burn("latency", Effect{Calls: 100, Late: 90})
		run(2, 0)
		expect("two budgets burn", -1)
		last := time.Now()
		run(2, 0)
		g.End("fraud", "budget for latency", "it burns no more", last)
		run(2, 0)
		expect("one of them burns", -1)
		g.End("fraud", "budget for availability", "it burns no more", last.Add(-interval))
		run(1, 0)
		expect("neither burns", last.Sub(began))

		burn("latency", Effect{Calls: 100, Late: 90})
		run(2, 0)
		last = time.Now()
		run(3, 500)
		failed := time.Now()
		run(3, 0)
		g.End("fraud", "budget for latency", "it burns no more", last)
		run(1, 0)
		if got, want := mitigation(t, shelf, began), failed.Sub(began); got < want-interval || got > want {
			t.Errorf("calls failed for longer than the budget burnt: mitigated after %v, want %v at the latest look", got, want)
		}

		burn("latency", Effect{Calls: 100, Late: 90})
		run(1, 0)
		g.End("fraud", "breaker v8", "closed", time.Now())
		run(2, 0)
		g.End("fraud", "budget for latency", "it burns no more", time.Now())
		run(2, 0)
		expect("there is nothing left to be helped against", -1)
	})
}

// TestPageAboutCallsThatFailedDoesNotOutlastThem: the looks have taken the remedy back and give it back, whether or not the budget's
// windows still hold those calls. Late ones, they do not see.
func TestPageAboutCallsThatFailedDoesNotOutlastThem(t *testing.T) {
	for name, test := range map[string]struct {
		objective string
		seen      Effect
		mitigated bool
	}{
		"failed": {Availability, Effect{Calls: 100, Failed: 20}, true},
		"late":   {Latency, Effect{Calls: 100, Late: 20}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shelf := memstore.New(memstore.Config{}).Shelf("incidents")
				g := startGateway(t, "a", shelf)
				began := time.Now()
				run := func(looks int, failed uint64) {
					for range looks {
						g.calls.Add(1000)
						g.failed.Add(failed)
						time.Sleep(interval)
					}
				}
				g.sees.Store(&sight{help: Helped}) // for as long as v8 is cut off
				g.Begin(breakerOpens("v8"))
				time.Sleep(interval / 2) // between two looks
				run(2, 0)
				onset := time.Now()
				run(12, 200)
				g.Begin(Trouble{
					Model: "fraud", Name: "budget for " + test.objective, Trigger: BurnRate, At: time.Now(), Onset: onset, Seen: test.seen,
				})
				over := time.Now()
				run(3, 0)
				if got := mitigation(t, shelf, began); got >= 0 != test.mitigated {
					t.Errorf("while it pages: mitigated after %v, want it to be mitigated: %v", got, test.mitigated)
				}
				g.End("fraud", "budget for "+test.objective, "it burns no more", over)
				run(12*60*3, 0) // v8 is cut off for three hours in which no call fails
				if got, want := mitigation(t, shelf, began), over.Sub(began); got < want-interval || got > want+interval {
					t.Errorf("at last: mitigated after %v, want about %v", got, want)
				}
				r := Reliability(all(t, shelf), nil, began.Add(-time.Hour), time.Now())[0]
				if r.GetUptime() < 0.99 {
					t.Errorf("uptime %v, want little more than a minute of more than four hours off", r.GetUptime())
				}
			})
		})
	}
}

// TestCallersOfAllGatewaysHaveToBeHelped; the last one counts, and one that is gone says nothing.
func TestCallersOfAllGatewaysHaveToBeHelped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a, b, c := startGateway(t, "a", shelf), startGateway(t, "b", shelf), startGateway(t, "c", shelf)
		began := time.Now()
		for _, g := range []*gateway{a, b, c} {
			g.Begin(breakerOpens("v8"))
		}
		a.Mitigate("fraud", "v7 answers", began)
		settle()
		if got := mitigation(t, shelf, began); got >= 0 {
			t.Errorf("mitigated after %v, but at one of three gateways", got)
		}
		c.stop()
		at := time.Now()
		b.Mitigate("fraud", "v7 answers here, too", at)
		settle()
		if got := mitigation(t, shelf, began); got >= 0 {
			t.Errorf("mitigated after %v, but the third may come back", got)
		}
		time.Sleep(stale)
		if got := mitigation(t, shelf, began); got != at.Sub(began) {
			t.Errorf("mitigated after %v, want when the second gateway was, %v", got, at.Sub(began))
		}
	})
}
