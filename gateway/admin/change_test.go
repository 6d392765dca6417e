package admin_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

func asConnect(err error, target **connect.Error) bool { return errors.As(err, target) }

func TestSetWeightsReplacesTheWholeSplit(t *testing.T) {
	r := newRig(t)
	in := by("anna", func(in *adminv1.Intent) { in.Reason = "v8 is better" })
	o := r.must(r.weights(in, map[string]uint32{"v8": 10, "v7": 0}))
	if want := map[string]uint32{"v8": 10}; !maps.Equal(r.split(), want) || o.GetRevision() != 2 {
		t.Errorf("split %v at revision %d, want %v at 2", r.split(), o.GetRevision(), want)
	}
	c := o.GetChange()
	if c.GetActor() != "anna" || c.GetReason() != "v8 is better" || c.GetId() == "" || c.GetForced() ||
		c.GetRoutes()[0].GetBefore().GetWeights()["v7"] != 95 {
		t.Errorf("change %v, want who, why and what was before", c)
	}
	again := r.must(r.weights(in, map[string]uint32{"v8": 10}))
	if again.GetChange() != nil || again.GetRevision() != 2 {
		t.Errorf("the same split again: %v, want no change", again)
	}
}

// TestRefusals lists what is refused, and that nothing has happened then.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("a", 200)
	type weights = map[string]uint32
	for _, test := range []struct {
		name   string
		ask    func() error
		code   connect.Code
		reason string
		text   string
		field  string
	}{
		{"unknown version", func() error { _, err := r.weights(by("a"), weights{"v10": 1}); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, `got "v10", want one of the route's versions (v7, v8, v9)`, "weights.v10"},
		{"unknown version, forced", func() error { _, err := r.weights(by("a", force), weights{"v10": 1}); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, `got "v10"`, "weights.v10"},
		{"empty split", func() error { _, err := r.weights(by("a"), nil); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, "got nothing, want a weight above 0", "weights"},
		{"split of zeros", func() error { _, err := r.weights(by("a"), weights{"v7": 0}); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, "want a weight above 0", "weights"},
		{"unreachable version", func() error { _, err := r.weights(by("a"), weights{"v7": 50, "v9": 50}); return err },
			connect.CodeFailedPrecondition, admin.ReasonUnreachable, `version "v9" of model "fraud" has no endpoint that can be reached`, ""},
		{"unreachable version, dry run", func() error { _, err := r.weights(by("a", dryRun), weights{"v9": 50}); return err },
			connect.CodeFailedPrecondition, admin.ReasonUnreachable, "connection refused", ""},
		{"no actor", func() error { _, err := r.weights(by(""), weights{"v7": 1}); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, "want 1 to 128 bytes", "intent.actor"},
		{"no intent", func() error { _, err := r.weights(nil, weights{"v7": 1}); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, "want 1 to 128 bytes", "intent.actor"},
		{"long actor", func() error { _, err := r.weights(by(long), weights{"v7": 1}); return err },
			connect.CodeInvalidArgument, admin.ReasonInvalid, "want 1 to 128 bytes", "intent.actor"},
		{"unknown model", func() error {
			_, err := r.client.SetWeights(t.Context(), &adminv1.SetWeightsRequest{Intent: by("a"), Model: "frud", Weights: weights{"v7": 1}})
			return err
		}, connect.CodeNotFound, admin.ReasonModelNotFound, `no route for model "frud"`, ""},
		{"no model", func() error {
			_, err := r.client.SetWeights(t.Context(), &adminv1.SetWeightsRequest{Intent: by("a"), Weights: weights{"v7": 1}})
			return err
		}, connect.CodeInvalidArgument, admin.ReasonInvalid, "model: got nothing, want the name of a model", "model"},
		{"promotion of an unknown version", func() error {
			_, err := r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("a"), Model: "fraud", Version: "v1"})
			return err
		}, connect.CodeInvalidArgument, admin.ReasonInvalid, `got "v1", want one of the route's versions (v7, v8, v9)`, "version"},
		{"promotion of an unreachable version", func() error {
			_, err := r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("a"), Model: "fraud", Version: "v9"})
			return err
		}, connect.CodeFailedPrecondition, admin.ReasonUnreachable, "v9", ""},
		{"bad document", func() error {
			_, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("a"), Document: &routingv1.Document{
				Routes: []*routingv1.Route{r.fraud(), {Model: "b", Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{"nope"}}}}}}})
			return err
		}, connect.CodeInvalidArgument, admin.ReasonInvalid, `got "nope", want host:port`, "document.routes[1].versions[0].endpoints[0]"},
		{"deletion of what is not there", func() error {
			_, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("a"), Delete: []string{"b"}})
			return err
		}, connect.CodeNotFound, admin.ReasonModelNotFound, `"b"`, ""},
		{"revision that is not there yet", func() error { _, err := r.weights(by("a", expecting(9)), weights{"v7": 1}); return err },
			connect.CodeAborted, admin.ReasonConflict, "this gateway has not seen revision 9 yet, it is at 1", ""},
		{"too much history", func() error {
			_, err := r.client.History(t.Context(), &adminv1.HistoryRequest{Limit: 1001})
			return err
		}, connect.CodeInvalidArgument, admin.ReasonInvalid, "got 1001, want at most 1000", "limit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := refusalOf(t, test.ask())
			if got.code != test.code || got.reason != test.reason || !strings.Contains(got.text, test.text) {
				t.Errorf("got %+v\nwant %v, %s and %q", got, test.code, test.reason, test.text)
			}
			var fields []string
			for _, f := range got.fields {
				fields = append(fields, f.GetField())
				if !strings.HasPrefix(f.GetDescription(), "got ") || !strings.Contains(f.GetDescription(), ", want ") {
					t.Errorf("%s is described as %q, want the value and what is accepted", f.GetField(), f.GetDescription())
				}
			}
			if strings.Join(fields, " ") != test.field && !strings.Contains(strings.Join(fields, " "), test.field+" ") {
				t.Errorf("fields %q, want %q", fields, test.field)
			}
		})
	}
	if status := r.watcher.Status(); status.Revision != 1 {
		t.Errorf("after refusals the revision is %d, want 1", status.Revision)
	}
}

func TestGuardLooksAtWhoGains(t *testing.T) {
	r := newRig(t)
	sick := startServer(t, healthpb.HealthCheckResponse_NOT_SERVING)
	apply := func(in *adminv1.Intent, routes ...*routingv1.Route) (*adminv1.Outcome, error) {
		resp, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: in, Document: &routingv1.Document{Routes: routes}})
		return resp.GetOutcome(), err
	}
	// A route that is new has nobody to lose: a warning only.
	fresh := &routingv1.Route{Model: "new", Versions: []*routingv1.Version{
		{Name: "a", Endpoints: []string{r.dead}}, {Name: "b", Endpoints: []string{r.alive}}, {Name: "c", Endpoints: []string{sick}},
	}, Weights: map[string]uint32{"a": 60, "b": 40}}
	o := r.must(apply(by("a"), fresh))
	if len(o.GetWarnings()) != 1 || !strings.Contains(o.GetWarnings()[0], `version "a" of model "new"`) || o.GetChange().GetForced() {
		t.Errorf("a new route: %v, want a warning about a", o)
	}
	split := func(weights map[string]uint32) *routingv1.Route {
		route := proto.CloneOf(fresh)
		route.Weights = weights
		return route
	}
	// Its version a is dead and may lose calls, or keep them, but gain none.
	r.must(apply(by("a"), split(map[string]uint32{"a": 3, "b": 2})))
	r.must(apply(by("a"), split(map[string]uint32{"a": 20, "b": 80})))
	if got := refusalOf(t, second(apply(by("a"), split(map[string]uint32{"a": 30, "b": 70})))); got.reason != admin.ReasonUnreachable {
		t.Errorf("more calls for a dead version: %+v", got)
	}
	if got := refusalOf(t, second(apply(by("a"), split(map[string]uint32{"c": 1})))); !strings.Contains(got.text, "not serving") {
		t.Errorf("calls for a version that is not serving: %+v", got)
	}
	moved := split(map[string]uint32{"a": 20, "b": 80})
	moved.Versions[1].Endpoints = []string{r.dead}
	if got := refusalOf(t, second(apply(by("a"), moved))); !strings.Contains(got.text, `version "b"`) {
		t.Errorf("a move to a dead endpoint: %+v", got)
	}
	forced := r.must(apply(by("a", force), moved))
	if !forced.GetChange().GetForced() || len(forced.GetWarnings()) != 1 || !strings.HasPrefix(forced.GetWarnings()[0], "forced: ") {
		t.Errorf("forced: %v, want it recorded", forced)
	}
	needless := r.must(r.weights(by("a", force), map[string]uint32{"v7": 1}))
	if needless.GetChange().GetForced() {
		t.Error("a change that no guard refuses is recorded as forced")
	}
}

func second[T any](_ T, err error) error { return err }

func TestDryRunChangesNothing(t *testing.T) {
	r := newRig(t)
	o := r.must(r.weights(by("anna", dryRun), map[string]uint32{"v8": 1}))
	c := o.GetChange()
	if o.GetRevision() != 1 || c.GetRevision() != 2 || c.GetId() != "" || c.GetTime() != nil || c.GetRoutes()[0].GetAfter().GetWeights()["v8"] != 1 {
		t.Errorf("dry run: %v, want what would be, without id and time", o)
	}
	if r.watcher.Status().Revision != 1 {
		t.Error("a dry run has changed something")
	}
}

func TestPromote(t *testing.T) {
	r := newRig(t)
	promote := func(reason, version string) *adminv1.PromoteResponse {
		resp, err := r.client.Promote(t.Context(), &adminv1.PromoteRequest{
			Intent: by("anna", func(in *adminv1.Intent) { in.Reason = reason }), Model: "fraud", Version: version})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := promote("a good week", "v8")
	if resp.GetPrevious() != "v7" || !maps.Equal(r.split(), map[string]uint32{"v8": 100}) {
		t.Errorf("previous %q, split %v, want v7 and all for v8", resp.GetPrevious(), r.split())
	}
	fallback := func() string {
		entry, _, _ := r.watcher.Entry("fraud")
		return fmt.Sprint(entry.GetRoute().GetFallback().GetTo(), entry.GetRoute().GetFallback().GetOn())
	}
	if got, want := fallback(), "[v7] [UNAVAILABLE INTERNAL DEADLINE_EXCEEDED]"; got != want {
		t.Errorf("fallback %s, want %s", got, want)
	}
	if got, want := resp.GetOutcome().GetChange().GetReason(), "a good week (promote v8 over v7)"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	if again := promote("", "v8"); again.GetOutcome().GetChange() != nil || again.GetPrevious() != "" {
		t.Errorf("promoted again: %v, want no change", again)
	}
	if got := promote("", "v7").GetOutcome().GetChange().GetReason(); got != "promote v7 over v8" {
		t.Errorf("reason %q", got)
	}
	own := r.fraud()
	own.Fallback = &routingv1.Fallback{To: []string{"v9"}, On: []string{"ABORTED"}}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("anna"), Document: &routingv1.Document{Routes: []*routingv1.Route{own}}}); err != nil {
		t.Fatal(err)
	}
	promote("", "v8")
	if got, want := fallback(), "[v7] [ABORTED]"; got != want {
		t.Errorf("fallback %s, want %s: the codes are the route's own", got, want)
	}
	promote("", "v7")
	if got := promote(strings.Repeat("x", 1020), "v8").GetOutcome().GetChange().GetReason(); len(got) != 1020 {
		t.Errorf("a reason of 1020 bytes has become %d", len(got))
	}
}

// TestPromoteKeepsTheRestOfTheFallback, such as who is kept a place.
func TestPromoteKeepsTheRestOfTheFallback(t *testing.T) {
	r := newRig(t)
	route := r.fraud()
	route.Fallback = &routingv1.Fallback{To: []string{"v7"}, On: []string{"DEADLINE_EXCEEDED"}, Reserve: durationpb.New(20 * time.Millisecond), ForceSha256: strings.Repeat("ab", 32)}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("anna"), Document: &routingv1.Document{Routes: []*routingv1.Route{route}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("anna"), Model: "fraud", Version: "v8"}); err != nil {
		t.Fatal(err)
	}
	entry, _, _ := r.watcher.Entry("fraud")
	if got := entry.GetRoute().GetFallback(); !proto.Equal(got, route.Fallback) {
		t.Errorf("fallback %v, want %v: only the version it goes to is the promotion's", got, route.Fallback)
	}
}

// TestFallbackThatCannotBeReachedIsAWarning: nobody would answer in the stead of the
// promoted version.
func TestFallbackThatCannotBeReachedIsAWarning(t *testing.T) {
	r := newRig(t)
	r.must(r.weights(by("anna", force), map[string]uint32{"v9": 100}))
	resp, err := r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("anna"), Model: "fraud", Version: "v7"})
	if err != nil {
		t.Fatal(err)
	}
	if w := resp.GetOutcome().GetWarnings(); len(w) != 1 || !strings.HasPrefix(w[0], `fallback: version "v9" of model "fraud" has no endpoint that can be reached`) {
		t.Errorf("warnings %q, want one about v9", w)
	}
	resp, err = r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("anna"), Model: "fraud", Version: "v8"})
	if err != nil || len(resp.GetOutcome().GetWarnings()) != 0 {
		t.Errorf("a fallback that answers: %v, %v, want no warning", resp, err)
	}
}

// TestNoChangeIsWithoutAReason, also where nobody has given one.
func TestNoChangeIsWithoutAReason(t *testing.T) {
	r := newRig(t)
	ctx, in := t.Context(), by("anna")
	other := &routingv1.Route{Model: "other", Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{r.alive}}}, Weights: map[string]uint32{"v1": 1}}
	blank := by("anna", func(in *adminv1.Intent) { in.Reason = "  " })
	for _, test := range []struct {
		want string
		ask  func() error
	}{
		{"apply other", func() error {
			_, err := r.client.Apply(ctx, &adminv1.ApplyRequest{Intent: in, Document: &routingv1.Document{Routes: []*routingv1.Route{other}}})
			return err
		}},
		{"delete other", func() error {
			_, err := r.client.Apply(ctx, &adminv1.ApplyRequest{Intent: in, Delete: []string{"other"}})
			return err
		}},
		{"weights v7=90 v8=10", func() error { return second(r.weights(in, map[string]uint32{"v8": 10, "v7": 90})) }},
		{"weights v7=80 v8=20", func() error { return second(r.weights(blank, map[string]uint32{"v8": 20, "v7": 80})) }},
		{"promote v8 over v7", func() error {
			_, err := r.client.Promote(ctx, &adminv1.PromoteRequest{Intent: blank, Model: "fraud", Version: "v8"})
			return err
		}},
		{"undo of revision 6", func() error {
			return second(r.client.Rollback(ctx, &adminv1.RollbackRequest{Intent: in, Model: "fraud"}))
		}},
		{"return to revision 4", func() error {
			return second(r.client.Rollback(ctx, &adminv1.RollbackRequest{Intent: in, Model: "fraud", ToRevision: proto.Uint64(4)}))
		}},
		{"breaker open v7", func() error {
			return second(r.breaker.OpenBreaker(ctx, &adminv1.OpenBreakerRequest{Intent: in, Model: "fraud", Version: "v7"}))
		}},
		{"breaker reset v7", func() error {
			return second(r.breaker.ResetBreaker(ctx, &adminv1.ResetBreakerRequest{Intent: in, Model: "fraud", Version: "v7"}))
		}},
		{"fault for 1m0s v8", func() error {
			return second(r.fault.InjectFault(ctx, &adminv1.InjectFaultRequest{Intent: in, Model: "fraud", Duration: durationpb.New(time.Minute),
				Fault: &routingv1.Fault{Version: "v8", Percent: 100, Status: "UNAVAILABLE"}}))
		}},
		{"clear faults v8", func() error {
			return second(r.fault.ClearFaults(ctx, &adminv1.ClearFaultsRequest{Intent: in, Model: "fraud", Version: "v8"}))
		}},
	} {
		before := r.watcher.Status().Revision
		if err := test.ask(); err != nil {
			t.Fatalf("%s: %v", test.want, err)
		}
		resp, err := r.client.History(ctx, &adminv1.HistoryRequest{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if c := resp.GetChanges()[0]; c.GetRevision() != before+1 || c.GetReason() != test.want {
			t.Errorf("revision %d has the reason %q, want %q", c.GetRevision(), c.GetReason(), test.want)
		}
	}
}

func TestApplyAddsReplacesAndPrunes(t *testing.T) {
	r := newRig(t)
	other := &routingv1.Route{Model: "other", Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{r.alive}}}, Weights: map[string]uint32{"v1": 1}}
	apply := func(req *adminv1.ApplyRequest) *adminv1.Outcome {
		t.Helper()
		req.Intent = by("anna")
		resp, err := r.client.Apply(t.Context(), req)
		return r.must(resp.GetOutcome(), err)
	}
	models := func() string {
		resp, err := r.client.Get(t.Context(), &adminv1.GetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, e := range resp.GetRoutes() {
			text += fmt.Sprintf("%s@%d ", e.GetModel(), e.GetRevision())
		}
		return text
	}
	doc := &routingv1.Document{Routes: []*routingv1.Route{other}}
	apply(&adminv1.ApplyRequest{Document: doc})
	if got := models(); got != "fraud@1 other@2 " {
		t.Errorf("after adding: %s", got)
	}
	apply(&adminv1.ApplyRequest{Document: doc, Prune: true})
	if got := models(); got != "other@2 " {
		t.Errorf("after pruning: %s", got)
	}
	o := apply(&adminv1.ApplyRequest{Document: &routingv1.Document{Routes: []*routingv1.Route{r.fraud()}}, Delete: []string{"other"}})
	if got := models(); got != "fraud@4 " || len(o.GetChange().GetRoutes()) != 2 {
		t.Errorf("after both at once: %s, %v", got, o)
	}
}

func TestConditions(t *testing.T) {
	r := newRig(t)
	other := &routingv1.Route{Model: "other", Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{r.alive}}}, Weights: map[string]uint32{"v1": 1}}
	_, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{
		Intent: by("berta", func(in *adminv1.Intent) { in.Reason = "a new model" }), Document: &routingv1.Document{Routes: []*routingv1.Route{other}}})
	if err != nil {
		t.Fatal(err)
	}
	// Now fraud is as of revision 1, and the whole state at 2.
	got := refusalOf(t, second(r.weights(by("anna", expecting(1)), map[string]uint32{"v7": 1})))
	if got.code != connect.CodeAborted || !strings.Contains(got.text, "berta was faster") || !strings.Contains(got.text, "a new model") ||
		got.info["expected"] != "1" || got.info["current"] != "2" {
		t.Errorf("another revision than expected: %+v, want who was faster", got)
	}
	r.must(r.weights(by("anna", since(1)), map[string]uint32{"v7": 1}))
	got = refusalOf(t, second(r.weights(by("carl", since(2)), map[string]uint32{"v8": 1})))
	if got.code != connect.CodeAborted || !strings.Contains(got.text, `anna was faster: model "fraud" has changed since revision 2, with revision 3`) {
		t.Errorf("fraud has changed since: %+v", got)
	}
	r.must(r.weights(by("carl", expecting(3), since(3)), map[string]uint32{"v8": 1}))
}

func TestRequestKeyMakesRepeatingHarmless(t *testing.T) {
	r := newRig(t)
	first := r.must(r.weights(by("anna", key("k1"), since(1)), map[string]uint32{"v7": 1}))
	r.must(r.weights(by("berta"), map[string]uint32{"v8": 1}))
	for name, repeated := range map[string]*adminv1.Intent{
		"as it was":                  by("anna", key("k1")),
		"with a condition now false": by("anna", key("k1"), since(1)),
		"with another condition":     by("anna", key("k1"), expecting(1)),
	} {
		o := r.must(r.weights(repeated, map[string]uint32{"v7": 1}))
		if o.GetChange().GetRevision() != first.GetChange().GetRevision() || o.GetChange().GetId() != first.GetChange().GetId() {
			t.Errorf("repeated %s: %v, want the change of revision %d", name, o, first.GetChange().GetRevision())
		}
	}
	if want := map[string]uint32{"v8": 1}; !maps.Equal(r.split(), want) || r.watcher.Status().Revision != 3 {
		t.Errorf("split %v at %d, want %v at 3: a repetition has changed something", r.split(), r.watcher.Status().Revision, want)
	}
	if got := refusalOf(t, second(r.weights(by("anna", key("k2"), expecting(1)), map[string]uint32{"v7": 1}))); got.code != connect.CodeAborted {
		t.Errorf("a new key: %+v", got)
	}
}

// TestRequestKeyHoldsForRequestsWithoutEffect: repeated when they would have one, they
// must not undo what somebody else has done since.
func TestRequestKeyHoldsForRequestsWithoutEffect(t *testing.T) {
	r := newRig(t)
	same := map[string]uint32{"v7": 95, "v8": 5}
	if o := r.must(r.weights(by("anna", key("k1")), same)); o.GetChange() != nil {
		t.Fatalf("the same split again: %v, want no change", o)
	}
	r.must(r.weights(by("berta"), map[string]uint32{"v7": 20, "v8": 80}))
	if o := r.must(r.weights(by("anna", key("k1")), same)); o.GetChange() != nil || o.GetRevision() != 2 || r.split()["v8"] != 80 {
		t.Errorf("repeated: %v and the split %v, want nothing done", o, r.split())
	}
	if o := r.must(r.weights(by("anna", key("k2"), dryRun), map[string]uint32{"v7": 20, "v8": 80})); o.GetChange() != nil {
		t.Fatal(o)
	}
	r.must(r.weights(by("berta"), same))
	if o := r.must(r.weights(by("anna", key("k2")), map[string]uint32{"v7": 20, "v8": 80})); o.GetChange().GetRevision() != 4 {
		t.Errorf("after a dry run with the key: %v, want the change", o)
	}
}

// TestRequestKeyIsForOneRequest, whichever way the other one would have gone.
func TestRequestKeyIsForOneRequest(t *testing.T) {
	r := newRig(t)
	r.must(r.weights(by("anna", key("k1")), map[string]uint32{"v7": 1}))
	for name, ask := range map[string]func() error{
		"another split": func() error { return second(r.weights(by("anna", key("k1")), map[string]uint32{"v8": 1})) },
		"one refused":   func() error { return second(r.weights(by("anna", key("k1")), map[string]uint32{"v9": 1})) },
		"no effect":     func() error { return second(r.weights(by("berta", key("k1")), map[string]uint32{"v7": 1})) },
		"another kind": func() error {
			return second(r.client.Promote(t.Context(), &adminv1.PromoteRequest{Intent: by("anna", key("k1")), Model: "fraud", Version: "v8"}))
		},
	} {
		got := refusalOf(t, ask())
		if got.reason != admin.ReasonInvalid || len(got.fields) != 1 || got.fields[0].GetField() != "intent.request_key" || !strings.Contains(got.text, `"k1"`) {
			t.Errorf("%s: %+v, want intent.request_key refused", name, got)
		}
	}
	if r.watcher.Status().Revision != 2 {
		t.Errorf("revision %d, want 2", r.watcher.Status().Revision)
	}
}

// TestConditionsKnowOneRevisionFromAnother of the same number, by its id.
func TestConditionsKnowOneRevisionFromAnother(t *testing.T) {
	r := newRig(t)
	looked := func(id string) func(*adminv1.Intent) { return func(in *adminv1.Intent) { in.RevisionId = id } }
	preview := r.must(r.weights(by("anna", dryRun), map[string]uint32{"v7": 1}))
	other := strings.Repeat("0", 32)
	for name, alter := range map[string]func(*adminv1.Intent){"since": since(1), "expected": expecting(1)} {
		got := refusalOf(t, second(r.weights(by("anna", alter, looked(other)), map[string]uint32{"v7": 1})))
		if got.reason != admin.ReasonConflict || !strings.Contains(got.text, "revision 1 is not the one") {
			t.Errorf("%s: %+v, want a conflict", name, got)
		}
	}
	otherModel := &routingv1.Route{Model: "other", Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{r.alive}}}, Weights: map[string]uint32{"v1": 1}}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("b"), Document: &routingv1.Document{Routes: []*routingv1.Route{otherModel}}}); err != nil {
		t.Fatal(err)
	}
	if got := refusalOf(t, second(r.weights(by("anna", since(1), looked(other)), map[string]uint32{"v7": 1}))); got.reason != admin.ReasonConflict {
		t.Errorf("below the current one: %+v, want a conflict", got)
	}
	r.must(r.weights(by("anna", since(preview.GetRevision()), looked(preview.GetRevisionId())), map[string]uint32{"v7": 1}))
}

// TestRacesHaveOneWinner: of those that have looked at the same revision one
// wins; those without a condition all come to their turn.
func TestRacesHaveOneWinner(t *testing.T) {
	r := newRig(t)
	const writers = 8
	race := func(alter ...func(*adminv1.Intent)) (won int) {
		var group sync.WaitGroup
		errs := make([]error, writers)
		for i := range writers {
			group.Go(func() {
				_, errs[i] = r.weights(by(fmt.Sprint("writer ", i), alter...), map[string]uint32{"v7": 100 + uint32(i), "v8": uint32(1 + r.watcher.Status().Revision)})
			})
		}
		group.Wait()
		for _, err := range errs {
			if err == nil {
				won++
			} else if connect.CodeOf(err) != connect.CodeAborted {
				t.Errorf("a loser got %v, want ABORTED", err)
			}
		}
		return won
	}
	if won := race(since(1)); won != 1 {
		t.Errorf("%d of %d won, want one", won, writers)
	}
	if won := race(expecting(2)); won != 1 {
		t.Errorf("%d of %d won, want one", won, writers)
	}
	before := r.watcher.Status().Revision
	if won := race(); won != writers || r.watcher.Status().Revision < before+writers/2 {
		t.Errorf("without conditions %d of %d came to their turn, up to revision %d", won, writers, r.watcher.Status().Revision)
	}
}
