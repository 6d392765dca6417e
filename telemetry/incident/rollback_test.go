package incident

import (
	"testing"
	"testing/synctest"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing/memstore"
)

// rollback is a change that was made just now.
func rollback(revision uint64) *routingv1.Change {
	return &routingv1.Change{
		Revision: revision, Time: stamp(time.Now()), Actor: "anna", Reason: "v8 is slow", Rollback: true,
		Routes: []*routingv1.RouteChange{{Model: "fraud"}},
	}
}

// TestRollbackHelpsTheWholeFleet: one gateway was asked, all follow, sooner or later, and the incident has one mitigation at the
// time of the change and tells of it once.
func TestRollbackHelpsTheWholeFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := memstore.New(memstore.Config{}).Shelf("incidents")
		a, b := startFleet(t, shelf)
		a.Begin(breakerOpens("v8"))
		b.Begin(breakerOpens("v8"))
		settle()
		other := rollback(6)
		other.Rollback = false
		b.Follow(other)
		time.Sleep(time.Second)
		c := rollback(7)
		a.Follow(c)
		a.BeginRollback(c)
		settle()
		if in := all(t, shelf); len(in) != 1 || in[0].GetMitigated() != nil {
			t.Errorf("%v, want nobody helped while b has not heard of it", in)
		}
		b.Follow(c)
		settle()
		in := all(t, shelf)
		if len(in) != 1 || in[0].GetMitigation() != "rolled back: v8 is slow" || !in[0].GetMitigated().AsTime().Equal(c.GetTime().AsTime()) {
			t.Fatalf("%v, want it mitigated by the rollback at %v", in, c.GetTime().AsTime())
		}
		told := 0
		for _, e := range in[0].GetEvents() {
			if e.GetKind() == Rollback && e.GetRevision() == 7 && e.GetActor() == "anna" {
				told++
			}
		}
		if told != 1 || len(in[0].GetEvents()) != 3 {
			t.Errorf("the rollback is told %d times, want once, beside two breakers: %v", told, in[0].GetEvents())
		}
	})
}

// TestRollbackHelpsWhatIsFoundLater, if it began before. What begins after a rollback is not helped by
// it, but by what is done next.
func TestRollbackHelpsWhatIsFoundLater(t *testing.T) {
	for name, test := range map[string]struct {
		onset time.Duration // from the rollback
		help  string
	}{"began before": {-10 * time.Second, "rolled back: v8 is slow"}, "began after": {time.Second, "v8 lost its weight"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shelf := memstore.New(memstore.Config{}).Shelf("incidents")
				g := startGateway(t, "b", shelf)
				c := rollback(7)
				rolledBack := c.GetTime().AsTime()
				g.Follow(c)
				time.Sleep(20 * time.Second)
				g.Begin(Trouble{Model: "fraud", Name: "breaker v7", Trigger: Breaker, At: time.Now(), Onset: rolledBack.Add(test.onset)})
				settle()
				at := time.Now()
				g.Mitigate("fraud", "v8 lost its weight", at)
				settle()
				if test.help != "v8 lost its weight" {
					at = rolledBack
				}
				in := all(t, shelf)
				if len(in) != 1 || in[0].GetMitigation() != test.help || !in[0].GetMitigated().AsTime().Equal(at) {
					t.Errorf("%v, want it mitigated at %v: %s", in, at, test.help)
				}
			})
		})
	}
}
