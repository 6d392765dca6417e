package admin_test

import (
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
