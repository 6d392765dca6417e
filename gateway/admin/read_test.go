package admin_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

func TestGetAndHistory(t *testing.T) {
	r := newRig(t)
	for _, w := range []uint32{1, 2, 3} {
		r.must(r.weights(by("anna"), map[string]uint32{"v7": w}))
	}
	one, err := r.client.Get(t.Context(), &adminv1.GetRequest{Model: "fraud"})
	if err != nil || one.GetRevision() != 4 || len(one.GetRoutes()) != 1 || one.GetRoutes()[0].GetRevision() != 4 {
		t.Errorf("Get = %v, %v", one, err)
	}
	if got := refusalOf(t, second(r.client.Get(t.Context(), &adminv1.GetRequest{Model: "b"}))); got.reason != admin.ReasonModelNotFound {
		t.Errorf("Get of an unknown model: %+v", got)
	}
	revisions := func(req *adminv1.HistoryRequest) (all []uint64) {
		resp, err := r.client.History(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range resp.GetChanges() {
			all = append(all, c.GetRevision())
		}
		return all
	}
	for _, test := range []struct {
		req  *adminv1.HistoryRequest
		want []uint64
	}{
		{&adminv1.HistoryRequest{}, []uint64{4, 3, 2, 1}},
		{&adminv1.HistoryRequest{Limit: 2}, []uint64{4, 3}},
		{&adminv1.HistoryRequest{Limit: 2, Before: 3}, []uint64{2, 1}},
		{&adminv1.HistoryRequest{Before: 1}, nil},
		{&adminv1.HistoryRequest{Model: "b"}, nil},
	} {
		if got := revisions(test.req); !slices.Equal(got, test.want) {
			t.Errorf("History(%v) = %v, want %v", test.req, got, test.want)
		}
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t)
	status := func(req *adminv1.StatusRequest) *adminv1.StatusResponse {
		t.Helper()
		resp, err := r.client.Status(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	s := status(&adminv1.StatusRequest{})
	store := s.GetStore()
	if !s.GetReady() || s.GetVersion() != "test" || s.GetModels() != 1 || store.GetName() != "memory" || store.GetSource() != "store" ||
		store.GetRevision() != 1 || len(store.GetProblems()) > 0 || store.GetChanged() == nil {
		t.Errorf("Status = %v", s)
	}
	healthy := func(s *adminv1.StatusResponse) string {
		text := ""
		for _, v := range s.GetVersions() {
			text += v.GetVersion() + ":"
			for _, e := range v.GetEndpoints() {
				if e.GetHealthy() {
					text += "+"
				} else {
					text += "-"
				}
			}
			text += " "
		}
		return text
	}
	if got, want := healthy(s), "v7:+ v8:++ v9:+ "; got != want {
		t.Errorf("without calls %q, want %q: nothing is known of the dead one", got, want)
	}
	probed := status(&adminv1.StatusRequest{Model: "fraud", Probe: true})
	got := healthy(probed)
	if want := []string{"v7:+ v8:+- v9:- ", "v7:+ v8:-+ v9:- "}; !slices.Contains(want, got) { // in the order of ports
		t.Errorf("probed %q, want %q", got, want[0])
	}
	if p := probed.GetVersions()[2].GetEndpoints()[0].GetProblem(); !strings.Contains(p, "connection refused") {
		t.Errorf("problem %q, want that the connection was refused", p)
	}
	if got := refusalOf(t, second(r.client.Status(t.Context(), &adminv1.StatusRequest{Model: "b"}))); got.reason != admin.ReasonModelNotFound {
		t.Errorf("Status of an unknown model: %+v", got)
	}
}

func TestExplain(t *testing.T) {
	r := newRig(t)
	route := r.fraud()
	route.Model, route.Services = "other", []string{"a.B"}
	route.Versions[0].Rename = &routingv1.Rename{Version: "7"}
	no := false
	route.Versions[1].AllowForce = &no
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("a"), Document: &routingv1.Document{Routes: []*routingv1.Route{route}}}); err != nil {
		t.Fatal(err)
	}
	type metadata = map[string]string
	for _, test := range []struct {
		name    string
		req     *adminv1.ExplainRequest
		reason  string
		version string
		says    string // in a step or the refusal
	}{
		{"by weight", &adminv1.ExplainRequest{Model: "fraud"}, "weighted", "", "v7 95.0 %, v8 5.0 %"},
		{"by weight, for want of a key", &adminv1.ExplainRequest{Model: "fraud"}, "weighted", "", "neither sluice-key nor x-user-id"},
		{"sticky", &adminv1.ExplainRequest{Model: "fraud", Metadata: metadata{"X-User-Id": "u1"}}, "sticky", "v7", `"u1" in x-user-id`},
		{"sticky, the other way", &adminv1.ExplainRequest{Model: "fraud", Metadata: metadata{"sluice-key": "u1", "x-user-id": "u2"}}, "sticky", "v7", `"u1" in sluice-key`},
		{"forced", &adminv1.ExplainRequest{Model: "fraud", Metadata: metadata{"sluice-version": "v9"}}, "forced", "v9", "sluice-version asks"},
		{"forced by the message", &adminv1.ExplainRequest{Model: "other", ModelVersion: "7"}, "forced", "v7", `model_version "7"`},
		{"model in metadata", &adminv1.ExplainRequest{Metadata: metadata{"mm-model-id": "fraud"}}, "weighted", "", "named by the metadata"},
		{"by service", &adminv1.ExplainRequest{Service: "a.B"}, "weighted", "", `lists the service "a.B"`},
		{"unknown model", &adminv1.ExplainRequest{Model: "b"}, "refused", "", `no route for model "b"`},
		{"unknown service", &adminv1.ExplainRequest{Service: "a.C"}, "refused", "", `no route lists the service "a.C"`},
		{"nothing", &adminv1.ExplainRequest{}, "refused", "", "nothing names a model"},
		{"two models", &adminv1.ExplainRequest{Model: "fraud", Metadata: metadata{"sluice-model": "other"}}, "refused", "", "they have to agree"},
		{"two models in metadata", &adminv1.ExplainRequest{Metadata: metadata{"sluice-model": "a", "seldon-model": "b"}}, "refused", "", "want \"b\" as in seldon-model"},
		{"unknown version", &adminv1.ExplainRequest{Model: "fraud", Metadata: metadata{"sluice-version": "v1"}}, "refused", "", "unknown version"},
		{"unknown model_version", &adminv1.ExplainRequest{Model: "fraud", ModelVersion: "1"}, "refused", "", "unknown version"},
		{"two versions", &adminv1.ExplainRequest{Model: "other", ModelVersion: "7", Metadata: metadata{"sluice-version": "v9"}}, "refused", "", "different versions"},
		{"not to be forced", &adminv1.ExplainRequest{Model: "other", Metadata: metadata{"sluice-version": "v8"}}, "refused", "", "allow_force: false"},
	} {
		t.Run(test.name, func(t *testing.T) {
			resp, err := r.client.Explain(t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Join(resp.GetSteps(), "\n") + resp.GetRefusal()
			if resp.GetReason() != test.reason || resp.GetVersion() != test.version || !strings.Contains(said, test.says) {
				t.Errorf("got %v\nwant %s %q and %q", resp, test.reason, test.version, test.says)
			}
			shares := 0.0
			for _, c := range resp.GetCandidates() {
				shares += c.GetShare()
				if len(c.GetEndpoints()) == 0 {
					t.Errorf("no endpoints of %s", c.GetVersion())
				}
			}
			if len(resp.GetCandidates()) > 0 && (shares < 0.999 || shares > 1.001) {
				t.Errorf("shares add up to %v, want 1", shares)
			}
		})
	}
}

func TestWatchTellsEveryChange(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := r.client.Watch(ctx, &adminv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	next := func() *adminv1.WatchResponse {
		t.Helper()
		if !stream.Receive() {
			t.Fatalf("the stream has ended: %v", stream.Err())
		}
		return stream.Msg()
	}
	first := next()
	if first.GetRevision() != 1 || len(first.GetRoutes()) != 1 || len(first.GetChanges()) != 1 || !first.GetStore().GetFollowing() {
		t.Errorf("first %v, want the whole state and the last changes", first)
	}
	// Changes that follow each other closely may be told together, and none is left out.
	const changes = 20
	for w := range uint32(changes) {
		r.must(r.weights(by("anna"), map[string]uint32{"v7": w + 1}))
	}
	told, weight := uint64(1), uint32(0)
	for told < changes+1 {
		resp := next()
		for _, c := range resp.GetChanges() {
			if c.GetRevision() != told+1 || c.GetActor() != "anna" {
				t.Fatalf("told of revision %d by %s after %d", c.GetRevision(), c.GetActor(), told)
			}
			told = c.GetRevision()
		}
		if resp.GetRevision() < told {
			t.Fatalf("revision %d with a change to %d", resp.GetRevision(), told)
		}
		for _, e := range resp.GetRoutes() {
			weight = e.GetRoute().GetWeights()["v7"]
		}
	}
	if weight != changes {
		t.Errorf("the route told last has weight %d, want %d", weight, changes)
	}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("anna"), Delete: []string{"fraud"}}); err != nil {
		t.Fatal(err)
	}
	if gone := next(); !slices.Equal(gone.GetDeleted(), []string{"fraud"}) {
		t.Errorf("told %v, want that fraud is gone", gone)
	}
	cancel()
	for stream.Receive() { // nothing but the end
	}
	if err := stream.Err(); !errors.Is(err, context.Canceled) && connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("after cancelling: %v", err)
	}
}

// TestWatchTellsOfTheStore, which does not answer any more.
func TestWatchTellsOfTheStore(t *testing.T) {
	broken := &brokenState{}
	r := newRig(t, func(c *admin.Config) { broken.Watcher = c.Watcher; c.Watcher = broken })
	stream, err := r.client.Watch(t.Context(), &adminv1.WatchRequest{Model: "fraud"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || len(stream.Msg().GetStore().GetProblems()) != 0 {
		t.Fatalf("first: %v, %v", stream.Msg(), stream.Err())
	}
	begun := time.Now()
	broken.set(errors.New("the store is gone"))
	if !stream.Receive() || !slices.Equal(stream.Msg().GetStore().GetProblems(), []string{"the store is gone"}) || len(stream.Msg().GetRoutes()) != 0 {
		t.Fatalf("then: %v, %v", stream.Msg(), stream.Err())
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v to tell", took)
	}
}
