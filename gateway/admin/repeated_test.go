package admin_test

import (
	"errors"
	"maps"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// TestRepeatedRequestsAreToldWhatTheFirstHasDone: each kind of change was made and its answer
// was lost; before it is repeated, somebody has changed the route so that the same request
// would be refused now, or would mean something else.
func TestRepeatedRequestsAreToldWhatTheFirstHasDone(t *testing.T) {
	without := func(r *rig, version int) *routingv1.Route {
		entry, _, _ := r.watcher.Entry("fraud")
		route := proto.CloneOf(entry.GetRoute())
		name := route.Versions[version].GetName()
		route.Versions = append(route.Versions[:version], route.Versions[version+1:]...)
		delete(route.Weights, name)
		route.Weights["v7"] = 1
		route.Fallback, route.CutOff = nil, nil
		return route
	}
	type answer interface{ GetOutcome() *adminv1.Outcome }
	for name, test := range map[string]struct {
		before func(r *rig)
		ask    func(r *rig) (answer, error)
		check  func(t *testing.T, a answer)
	}{
		"rollback": {
			before: func(r *rig) { r.must(r.weights(by("berta"), map[string]uint32{"v7": 1})) },
			ask: func(r *rig) (answer, error) {
				return r.client.Rollback(t.Context(), &adminv1.RollbackRequest{Intent: by("anna", key("k"), expecting(2)), Model: "fraud"})
			},
			check: func(t *testing.T, a answer) {
				if undone := a.(*adminv1.RollbackResponse).GetUndone(); len(undone) > 0 {
					t.Errorf("undone %v, which it has not", undone)
				}
			},
		},
		"rollback without a condition": {
			before: func(r *rig) { r.must(r.weights(by("berta"), map[string]uint32{"v7": 1})) },
			ask: func(r *rig) (answer, error) {
				return r.client.Rollback(t.Context(), &adminv1.RollbackRequest{Intent: by("anna", key("k")), Model: "fraud"})
			},
			check: func(t *testing.T, a answer) {
				if undone := a.(*adminv1.RollbackResponse).GetUndone(); len(undone) > 0 {
					t.Errorf("undone %v, which it has not", undone)
				}
			},
		},
		"promote": {
			ask: func(r *rig) (answer, error) {
				return r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("anna", key("k")), Model: "fraud", Version: "v8"})
			},
			check: func(t *testing.T, a answer) {
				if previous := a.(*adminv1.PromoteResponse).GetPrevious(); previous != "v7" {
					t.Errorf("previous %q, want v7 as it was then", previous)
				}
			},
		},
		"open": {
			ask: func(r *rig) (answer, error) {
				return r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{Intent: by("anna", key("k")), Model: "fraud", Version: "v8"})
			},
		},
		"reset": {
			before: func(r *rig) {
				if _, err := r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{Intent: by("berta"), Model: "fraud", Version: "v8"}); err != nil {
					t.Fatal(err)
				}
			},
			ask: func(r *rig) (answer, error) {
				return r.breaker.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Intent: by("anna", key("k")), Model: "fraud", Version: "v8"})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if test.before != nil {
				test.before(r)
			}
			first, err := test.ask(r)
			if err != nil || first.GetOutcome().GetChange() == nil {
				t.Fatalf("%v, %v, want a change", first, err)
			}
			doc := &routingv1.Document{Routes: []*routingv1.Route{without(r, 1)}}
			if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("berta", force), Document: doc}); err != nil {
				t.Fatal(err)
			}
			at := r.watcher.Status().Revision
			again, err := test.ask(r)
			if err != nil || again.GetOutcome().GetChange().GetId() != first.GetOutcome().GetChange().GetId() {
				t.Fatalf("repeated: %v, %v, want the change of revision %d", again, err, first.GetOutcome().GetChange().GetRevision())
			}
			if test.check != nil {
				test.check(t, again)
			}
			if now := r.watcher.Status().Revision; now != at || again.GetOutcome().GetRevision() != first.GetOutcome().GetRevision() {
				t.Errorf("at revision %d, want %d; told %d, want %d, for what came then nobody has looked at",
					now, at, again.GetOutcome().GetRevision(), first.GetOutcome().GetRevision())
			}
		})
	}
}

// TestAnOrderThatWasFollowedIsNotRefused for the words of its reason, of which nothing is left.
func TestAnOrderThatWasFollowedIsNotRefused(t *testing.T) {
	r := newRig(t)
	if _, err := r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{Intent: by("berta"), Model: "fraud", Version: "v8"}); err != nil {
		t.Fatal(err)
	}
	blank := by("anna", func(in *adminv1.Intent) { in.Reason = "\n" })
	resp, err := r.breaker.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Intent: blank, Model: "fraud", Version: "v8"})
	if entry, _, _ := r.watcher.Entry("fraud"); len(entry.GetRoute().GetCutOff()) > 0 || err != nil || resp.GetOutcome().GetChange() == nil {
		t.Errorf("%v, %v; cut off %v", resp, err, entry.GetRoute().GetCutOff())
	}
}

var errGone = errors.New("connection refused")

// lagging is a gateway that has not seen the latest changes yet, until the store has told it
// so once.
type lagging struct {
	admin.Watcher
	old atomic.Pointer[routing.State]
}

func (l *lagging) State() *routing.State {
	if old := l.old.Swap(nil); old != nil {
		return old
	}
	return l.Watcher.State()
}

// TestNothingToChangeIsForTheStoreToSay: who sets weights back to what an old gateway still
// serves has not had them set already.
func TestNothingToChangeIsForTheStoreToSay(t *testing.T) {
	old := map[string]uint32{"v7": 95, "v8": 5}
	for name, intent := range map[string]*adminv1.Intent{"without a key": by("anna"), "with a key": by("anna", key("k"))} {
		l := new(lagging)
		r := newRig(t, func(c *admin.Config) { l.Watcher = c.Watcher; c.Watcher = l })
		before := r.watcher.State()
		r.must(r.weights(by("berta"), map[string]uint32{"v7": 1}))

		l.old.Store(before)
		told := proto.CloneOf(intent)
		since(1)(told)
		told.RequestKey = ""
		if got := refusalOf(t, second(r.weights(told, old))); got.reason != admin.ReasonConflict {
			t.Errorf("%s, after a look at what is old: %+v, want %s", name, got, admin.ReasonConflict)
		}
		l.old.Store(before)
		if o := r.must(r.weights(intent, old)); o.GetChange().GetRevision() != 3 || !maps.Equal(r.split(), old) {
			t.Errorf("%s: %v, split %v, want it set back by revision 3", name, o, r.split())
		}
	}

	broken := new(brokenState)
	r := newRig(t, func(c *admin.Config) { broken.Watcher = c.Watcher; c.Watcher = broken })
	broken.set(&routing.UnavailableError{Store: "redis://r", Err: errGone})
	if got := refusalOf(t, second(r.weights(by("anna"), old))); got.reason != admin.ReasonStoreUnavailable {
		t.Errorf("without a store: %+v, want %s", got, admin.ReasonStoreUnavailable)
	}
}
