package incident

import (
	"testing"
	"testing/synctest"
	"time"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing/memstore"
)

func effectOn(t *testing.T, shelf Shelf, gateway string) *adminv1.Effect {
	t.Helper()
	in := all(t, shelf)
	if len(in) != 1 {
		t.Fatalf("%d incidents, want one: %v", len(in), in)
	}
	return in[0].GetGateways()[gateway].GetEffect()
}

// TestCountsThatBeginAnewAreAddedUp: those of a route that was deleted, and came back.
func TestCountsThatBeginAnewAreAddedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		g.calls.Store(1000)
		g.Begin(breakerOpens("v8"))
		settle()
		g.calls.Store(1100)
		settle()
		for _, c := range []struct{ counts, want uint64 }{{0, 107}, {30, 137}, {35, 142}} {
			g.calls.Store(c.counts)
			settle()
			if e := effectOn(t, shelf, "a"); e.GetCalls() != c.want || e.GetFailed() != 5 {
				t.Errorf("with %d calls counted: %v, want %d calls of which 5 failed", c.counts, e, c.want)
			}
		}
	})
}

// TestEffectEndsWithTheLastTrouble: calls that go well while it is seen whether it stays calm are no part of it, unless it does
// not; nor are those of the time in which a budget was not known yet to burn no more.
func TestEffectEndsWithTheLastTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		calls := func(n int) { // one a second
			synctest.Wait()
			for range n {
				g.calls.Add(1)
				time.Sleep(time.Second)
			}
		}
		g.Begin(breakerOpens("v8"))
		calls(20)
		g.End("fraud", "breaker v8", "closed", time.Now())
		calls(30)
		if e := effectOn(t, shelf, "a"); e.GetCalls() != 7+20 {
			t.Errorf("calm for 30 s: %v, want 7+20 calls", e)
		}
		g.Begin(breakerOpens("v8"))
		calls(20)
		over := time.Now()
		calls(10 * 60)
		g.End("fraud", "breaker v8", "was over for ten minutes", over)
		time.Sleep(calm + 2*interval)
		synctest.Wait()
		if e := effectOn(t, shelf, "a"); e.GetCalls() < 7+20+30+20 || e.GetCalls() > 7+20+30+20+5 || all(t, shelf)[0].GetRecovered() == nil {
			t.Errorf("%v, recovered %v; want 7+70 calls, or those of the next five seconds too", e, all(t, shelf)[0].GetRecovered())
		}
	})
}

// TestEffectOutlastsItsGateway: one that leaves an incident and joins it again, or is restarted meanwhile, adds to what callers
// had noticed before; also if the store has taken its first words without saying so.
func TestEffectOutlastsItsGateway(t *testing.T) {
	for name, away := range map[string]func(*testing.T, Shelf, *gateway) *gateway{
		"it was calm for a while": func(_ *testing.T, _ Shelf, a *gateway) *gateway {
			a.End("fraud", "breaker v8", "closed", time.Now())
			time.Sleep(calm + 2*interval)
			return a
		},
		"it was restarted": func(t *testing.T, shelf Shelf, a *gateway) *gateway {
			a.stop()
			return startGateway(t, "a", shelf)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shelf := &failing{Shelf: memstore.New(memstore.Config{}).Shelf("incidents")}
				a, b := startGateway(t, "a", shelf), startGateway(t, "b", shelf)
				a.Begin(breakerOpens("v8"))
				b.Begin(breakerOpens("v8")) // keeps it open
				settle()
				a.calls.Store(5000)
				a.failed.Store(5000)
				a.late.Store(70)
				a.budget.Store(50)
				settle()
				a = away(t, shelf, a)
				shelf.late.Store(true)
				a.Begin(breakerOpens("v8"))
				settle()
				shelf.late.Store(false)
				settle()
				a.calls.Add(10)
				a.late.Add(3)
				settle()
				e := effectOn(t, shelf, "a")
				if e.GetCalls() != 5024 || e.GetFailed() != 5010 || e.GetLate() != 73 {
					t.Errorf("%v, want 7+5000 and 7+10 calls, of which 5+5000 and 5 failed, and 70 and 3 were late", e)
				}
				if e.GetBudgetBefore() != 1 || e.GetLateBudgetBefore() != -1 || e.GetLateBudgetAfter() != e.GetBudgetAfter()-2 {
					t.Errorf("%v, want the budgets of before the first of them, and of now", e)
				}
			})
		})
	}
}

// TestEffectEndsWithATroubleThatIsKnownToBeOverLate: half an hour later, when a budget no longer pages.
func TestEffectEndsWithATroubleThatIsKnownToBeOverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		g := startGateway(t, "a", shelf)
		g.Begin(breakerOpens("v8"))
		settle()
		over := time.Now()
		for range int(31 * time.Minute / time.Second) {
			time.Sleep(time.Second)
			g.calls.Add(1)
		}
		g.End("fraud", "breaker v8", "was over for half an hour", over)
		time.Sleep(calm + 2*interval)
		synctest.Wait()
		if e := effectOn(t, shelf, "a"); e.GetCalls() > 7+uint64(interval/time.Second)+1 {
			t.Errorf("%v, want 7 calls, and those of the next five seconds", e)
		}
	})
}
