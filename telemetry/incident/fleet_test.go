package incident

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/routing/memstore"
)

// startFleet starts gateways that look at different moments, two seconds apart.
func startFleet(t *testing.T, shelf Shelf) (a, b *gateway) {
	t.Helper()
	a = startGateway(t, "a", shelf)
	time.Sleep(2 * time.Second)
	return a, startGateway(t, "b", shelf)
}

// TestOutageOfAFleetIsOneIncident: the gateway that finds last that all is well finds the incident closed by another one, and
// opens none for what is over.
func TestOutageOfAFleetIsOneIncident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a, b := startFleet(t, shelf)
		for range 5 { // whenever in a look's time it is over
			first := len(all(t, shelf))
			a.Begin(breakerOpens("v8"))
			b.Begin(breakerOpens("v8"))
			time.Sleep(20*time.Second + time.Second)
			a.End("fraud", "breaker v8", "closed", time.Now())
			b.End("fraud", "breaker v8", "closed", time.Now())
			over := time.Now()
			time.Sleep(2 * calm)
			synctest.Wait()
			in := all(t, shelf)
			if len(in) != first+1 || !in[0].GetRecovered().AsTime().Equal(over) || len(in[0].GetGateways()) != 2 {
				t.Fatalf("%d more incidents, want one of both gateways that was over at %v: %v", len(in)-first, over, in)
			}
			if a.Stats().Open != 0 || b.Stats().Open != 0 {
				t.Errorf("open are %d and %d, want none", a.Stats().Open, b.Stats().Open)
			}
		}
	})
}

// TestTroubleAfterTheEndIsAnIncidentOfItsOwn, with its own onset and calls, at a gateway that has not found out yet that the one
// before is over, too.
func TestTroubleAfterTheEndIsAnIncidentOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a, b := startFleet(t, shelf)
		a.Begin(breakerOpens("v8"))
		b.Begin(breakerOpens("v8"))
		time.Sleep(10*time.Second + 500*time.Millisecond)
		b.calls.Add(1000)
		b.End("fraud", "breaker v8", "closed", time.Now())
		time.Sleep(2 * time.Second)
		a.End("fraud", "breaker v8", "closed", time.Now())
		over := time.Now()
		for len(all(t, shelf)) == 1 && all(t, shelf)[0].GetRecovered() == nil && time.Since(over) < 2*calm {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		late := a
		if b.Stats().Open > 0 {
			late = b
		}
		if late.Stats().Open == 0 {
			t.Fatal("both gateways know at once that it is over: nothing is tested")
		}
		tr := breakerOpens("v8")
		late.Begin(tr)
		settle()
		in := all(t, shelf)
		if len(in) != 2 || !in[0].GetOnset().AsTime().Equal(tr.Onset) || in[0].GetRecovered() != nil || !in[1].GetRecovered().AsTime().Equal(over) {
			t.Fatalf("%v, want a second incident since %v, and the first one over at %v", in, tr.Onset, over)
		}
		for name, g := range in[0].GetGateways() {
			if e := g.GetEffect(); e.GetCalls() != tr.Seen.Calls || e.GetFailed() != tr.Seen.Failed {
				t.Errorf("the effect at %s is %v, want that of the second incident alone", name, e)
			}
		}
	})
}

// TestGatewayThatWasNotHeardOf: others have closed the incident meanwhile, with its last word. It says when it was over, or that
// it is not.
func TestGatewayThatWasNotHeardOf(t *testing.T) {
	for name, well := range map[string]bool{"to which all is well": true, "which is in trouble still": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shelf := memstore.New(memstore.Config{}).Shelf("incidents")
				away := &failing{Shelf: shelf}
				a := startGateway(t, "a", away)
				startGateway(t, "b", shelf)
				a.Begin(breakerOpens("v8"))
				settle()
				away.down.Store(true)
				time.Sleep(stale + 2*sweepEvery)
				synctest.Wait()
				if in := all(t, shelf); len(in) != 1 || in[0].GetRecovered() == nil {
					t.Fatalf("%v, want it closed by b", in)
				}
				if !well {
					away.down.Store(false)
					settle()
					if in := all(t, shelf); len(in) != 1 || in[0].GetRecovered() != nil {
						t.Fatalf("%v, want it open again", in)
					}
				}
				a.End("fraud", "breaker v8", "closed", time.Now())
				over := time.Now()
				away.down.Store(false)
				time.Sleep(2 * calm)
				synctest.Wait()
				in := all(t, shelf)
				if len(in) != 1 || !in[0].GetRecovered().AsTime().Equal(over) || len(in[0].GetEvents()) != 2 {
					t.Errorf("%v, want one incident with its end, at %v", in, over)
				}
				if e := effectOn(t, shelf, "a"); e.GetCalls() != 7 {
					t.Errorf("effect %v, want its 7 calls once", e)
				}
			})
		})
	}
}
