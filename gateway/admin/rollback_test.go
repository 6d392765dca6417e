package admin_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"pgregory.net/rapid"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// rollback undoes the last change of a model, or with a revision of 0 or more
// returns there.
func (r *rig) rollback(model string, to int) (*adminv1.RollbackResponse, error) {
	req := &adminv1.RollbackRequest{Intent: by("anna"), Model: model}
	if to >= 0 {
		revision := uint64(to)
		req.ToRevision = &revision
	}
	return r.client.Rollback(r.t.Context(), req)
}

func TestRollbackUndoesTheLastChangeOfTheModel(t *testing.T) {
	r := newRig(t)
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1})) // 2
	other := &routingv1.Route{Model: "other", Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{r.alive}}}, Weights: map[string]uint32{"v1": 1}}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("berta"), Document: &routingv1.Document{Routes: []*routingv1.Route{other}}}); err != nil { // 3
		t.Fatal(err)
	}
	for _, step := range []struct {
		model  string
		undone []uint64
		split  map[string]uint32
	}{
		{"fraud", []uint64{2}, map[string]uint32{"v7": 95, "v8": 5}}, // 4
		{"fraud", []uint64{4}, map[string]uint32{"v8": 1}},           // 5: again is anew
		{"other", []uint64{3}, map[string]uint32{"v8": 1}},           // 6: gone
		{"", []uint64{6}, map[string]uint32{"v8": 1}},                // 7: back
	} {
		resp, err := r.rollback(step.model, -1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(resp.GetUndone(), step.undone) || !maps.Equal(r.split(), step.split) {
			t.Errorf("rollback of %q: undone %v, split %v; want %v, %v", step.model, resp.GetUndone(), r.split(), step.undone, step.split)
		}
	}
	if _, _, ok := r.watcher.Entry("other"); !ok {
		t.Error("the model other is not back")
	}
}

// TestRollbackReturnsToAnyRevision makes changes at random, returns to one of the
// revisions and compares with what was there.
func TestRollbackReturnsToAnyRevision(t *testing.T) {
	r := newRig(t)
	rapid.Check(t, func(rt *rapid.T) {
		was := map[uint64]string{}
		picture := func() (revision uint64) {
			at := r.watcher.State()
			text := ""
			for _, route := range at.Document().GetRoutes() {
				text += fmt.Sprint(route.GetModel(), route.GetWeights()["v7"], " ")
			}
			was[at.Revision] = text
			return at.Revision
		}
		first := picture()
		for range rapid.IntRange(1, 4).Draw(rt, "changes") {
			req := &adminv1.ApplyRequest{Intent: by("anna")}
			route := r.fraud()
			route.Model = rapid.SampledFrom([]string{"fraud", "b", "c"}).Draw(rt, "model")
			_, _, exists := r.watcher.Entry(route.GetModel())
			if exists && rapid.Bool().Draw(rt, "delete") {
				req.Delete = []string{route.GetModel()}
			} else {
				route.Weights = map[string]uint32{"v7": rapid.Uint32Range(1, 3).Draw(rt, "weight")}
				req.Document = &routingv1.Document{Routes: []*routingv1.Route{route}}
			}
			if _, err := r.client.Apply(t.Context(), req); err != nil {
				rt.Fatal(err)
			}
			picture()
		}
		last := r.watcher.Status().Revision
		to := rapid.Uint64Range(first, last).Draw(rt, "to")
		if _, err := r.rollback("", int(to)); err != nil {
			rt.Fatal(err)
		}
		if now := picture(); was[now] != was[to] {
			rt.Fatalf("back at %d: %q, want %q", to, was[now], was[to])
		}
	})
}

func TestRollbackToOneModelLeavesTheOthers(t *testing.T) {
	r := newRig(t)
	b := r.fraud()
	b.Model = "b"
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("anna"), Document: &routingv1.Document{Routes: []*routingv1.Route{b}}}); err != nil {
		t.Fatal(err)
	}
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1}))
	if _, err := r.rollback("fraud", 1); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := r.watcher.Entry("b"); !ok || r.split()["v7"] != 95 {
		t.Errorf("split %v, b there: %v; want fraud as of revision 1 and b as it is", r.split(), ok)
	}
	if resp, err := r.rollback("b", 1); err != nil || len(resp.GetUndone()) != 1 {
		t.Errorf("b as of revision 1: %v, %v; want it gone", resp, err)
	}
	if _, _, ok := r.watcher.Entry("b"); ok {
		t.Error("b is there, though it was not at revision 1")
	}
}

func TestRollbackRefusals(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		model  string
		to     int
		reason string
		text   string
	}{
		{"nope", -1, admin.ReasonModelNotFound, `no route for model "nope"`},
		{"nope", 0, admin.ReasonModelNotFound, `no route for model "nope"`},
		{"fraud", 7, admin.ReasonNoHistory, "revision 7 does not exist yet: the routing state is at 1"},
	} {
		_, err := r.rollback(test.model, test.to)
		if got := refusalOf(t, err); got.code != connect.CodeNotFound || got.reason != test.reason || !strings.Contains(got.text, test.text) {
			t.Errorf("rollback of %q to %d: %+v, want %s and %q", test.model, test.to, got, test.reason, test.text)
		}
	}
	// Undoing the first change of all leaves no routes, and that can be undone.
	if _, err := r.rollback("", -1); err != nil || len(r.watcher.State().Document().GetRoutes()) != 0 {
		t.Errorf("undoing the seed: %v, %v", err, r.watcher.State().Document())
	}
	if _, err := r.rollback("", -1); err != nil || r.split()["v7"] != 95 {
		t.Errorf("undoing that: %v, %v", err, r.split())
	}
}

// TestRollbackToALostRevisionIsRefused: the history does not lead through it, so
// what was served then is not known, and nothing else will do.
func TestRollbackToALostRevisionIsRefused(t *testing.T) {
	r := newRig(t)
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1}))
	_, err := r.watcher.Update(t.Context(), &routing.Update{ // as after a failover that has lost 3 to 6
		Expected: 2, Actor: routing.ActorFailover,
		NewEpoch: &routing.NewEpoch{Above: routing.Position{Revision: 6, ID: "x", Epoch: 1}, Lost: []*routingv1.LostChange{{Revision: 6, Id: "x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.must(r.weights(by("anna"), map[string]uint32{"v7": 1})) // 8
	for _, model := range []string{"fraud", ""} {
		for _, lost := range []int{3, 6} {
			_, err := r.rollback(model, lost)
			want := fmt.Sprintf("the store has lost revision %d, as revision 7 says: the one before that is 2", lost)
			if got := refusalOf(t, err); got.reason != admin.ReasonNoHistory || !strings.Contains(got.text, want) {
				t.Errorf("rollback of %q to %d: %+v, want %q", model, lost, got, want)
			}
		}
	}
	if !maps.Equal(r.split(), map[string]uint32{"v7": 1}) {
		t.Errorf("split %v, want it as it was", r.split())
	}
	if _, err := r.rollback("fraud", 2); err != nil || !maps.Equal(r.split(), map[string]uint32{"v8": 1}) {
		t.Errorf("rollback to 2, before the loss: %v, split %v", err, r.split())
	}
}

// TestRollbackPassesOverWhatChangedNothing: that a route was written back to the
// store is no change that an operator can mean.
func TestRollbackPassesOverWhatChangedNothing(t *testing.T) {
	r := newRig(t)
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1}))
	found, err := r.watcher.History(t.Context(), routing.HistoryQuery{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	served := found[0].GetRoutes()[0].GetAfter()
	gone := r.fraud()
	gone.Model = "gone"
	for _, u := range []*routing.Update{
		{Expected: 2, Actor: routing.ActorFailover, Restore: true, Set: []*routingv1.Route{gone}},
		{Expected: 3, Actor: routing.ActorFailover, Delete: []string{"tombstone"}},
	} {
		if _, err := r.watcher.Update(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	for model, reason := range map[string]string{"gone": admin.ReasonNoHistory, "tombstone": admin.ReasonNoHistory} {
		if _, err := r.rollback(model, -1); refusalOf(t, err).reason != reason {
			t.Errorf("rollback of %q: %v, want %s", model, err, reason)
		}
	}
	if _, err := r.rollback("gone", 2); err != nil {
		t.Errorf("return to when the route was served: %v", err)
	}
	if entry, _, _ := r.watcher.Entry("gone"); entry.GetRoute() == nil {
		t.Error("a rollback has deleted a route that was served all the time")
	}
	resp, err := r.rollback("", -1)
	if err != nil || !slices.Equal(resp.GetUndone(), []uint64{2}) {
		t.Errorf("rollback of all: %v, %v, want the last change that made a difference, to %v, undone", resp, err, served)
	}
}

// TestRollbacksAtOnceDoNotUndoEachOther: one of them is told that the other was
// faster.
func TestRollbacksAtOnceDoNotUndoEachOther(t *testing.T) {
	held := make(chan struct{})
	looked := make(chan struct{}, 2)
	r := newRig(t, func(c *admin.Config) { c.Watcher = &heldHistory{c.Watcher, looked, held} })
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1}))
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- second(r.rollback("fraud", -1)) }()
	}
	<-looked // both have found what to undo, and nobody has undone it
	<-looked
	close(held)
	a, b := <-errs, <-errs
	if a == nil {
		a, b = b, a
	}
	if got := refusalOf(t, a); b != nil || got.code != connect.CodeAborted || got.reason != admin.ReasonConflict {
		t.Errorf("got %v and %v, want one to be made and one told that the other was faster", a, b)
	}
	if !maps.Equal(r.split(), map[string]uint32{"v7": 95, "v8": 5}) {
		t.Errorf("split %v, want the change undone once", r.split())
	}
}

// heldHistory is a state whose history is read, and told a little later.
type heldHistory struct {
	admin.Watcher
	looked chan struct{}
	held   chan struct{}
}

func (h *heldHistory) History(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	found, err := h.Watcher.History(ctx, q)
	select {
	case h.looked <- struct{}{}:
	default:
	}
	<-h.held
	return found, err
}
