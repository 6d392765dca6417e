package admin_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	"sluice/routing/memstore"
	"sluice/telemetry/incident"
)

// incidents is a rig whose gateway keeps incidents, of which the test tells.
func incidents(t *testing.T) (*rig, *incident.Tracker, adminv1connect.IncidentServiceClient) {
	tracker := incident.New(incident.Config{
		Gateway: "gw-1", Shelf: memstore.New(memstore.Config{}).Shelf("incidents"), Logger: slog.New(slog.DiscardHandler),
		Effect: func(string) incident.Effect { return incident.Effect{} },
		Budget: func(string, string) (float64, bool) { return 0, false },
	})
	background(t, tracker.Run)
	r := newRig(t, func(c *admin.Config) { c.Incidents = tracker })
	r.watcher.Tell(tracker.Follow)
	return r, tracker, adminv1connect.NewIncidentServiceClient(r.http, r.url)
}

// await waits until all incidents are as wanted.
func await(t *testing.T, c adminv1connect.IncidentServiceClient, what string, are func([]*adminv1.Incident) bool) []*adminv1.Incident {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := c.ListIncidents(t.Context(), &adminv1.ListIncidentsRequest{})
		if err == nil && are(resp.GetIncidents()) {
			return resp.GetIncidents()
		}
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s: %v, %v", what, resp, err)
		}
	}
}

func opens(model string, at time.Time) incident.Trouble {
	return incident.Trouble{Model: model, Name: "breaker of v8", Trigger: incident.Breaker, At: at, Onset: at.Add(-time.Second), Text: "breaker of v8 open"}
}

// TestRollbackIsPartOfAnIncident, mitigates it, and stands with the other changes around it in what is told.
func TestRollbackIsPartOfAnIncident(t *testing.T) {
	r, tracker, c := incidents(t)
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1})) // 2
	tracker.Begin(opens("fraud", time.Now()))
	await(t, c, "the breaker", func(all []*adminv1.Incident) bool { return len(all) == 1 })
	if _, err := r.rollback("fraud", -1); err != nil { // 3, by anna
		t.Fatal(err)
	}
	in := await(t, c, "the rollback", func(all []*adminv1.Incident) bool { return len(all) == 1 && all[0].GetMitigated() != nil })[0]
	if in.GetMitigation() != "rolled back: undo of revision 2" || in.GetTrigger() != incident.Breaker {
		t.Errorf("mitigated by %q, found by %q", in.GetMitigation(), in.GetTrigger())
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // its event is written down after its help
		resp, err := c.GetIncident(t.Context(), &adminv1.GetIncidentRequest{Id: in.GetId()})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetIncident().GetEvents()) > 1 || time.Now().After(end) {
			break
		}
	}
	for _, id := range []string{in.GetId(), in.GetId()[:12]} {
		resp, err := c.GetIncident(t.Context(), &adminv1.GetIncidentRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		var revisions []uint64
		for _, change := range resp.GetChanges() {
			revisions = append(revisions, change.GetRevision())
		}
		if !slices.Equal(revisions, []uint64{3, 2, 1}) || !resp.GetChanges()[0].GetRollback() || resp.GetChanges()[1].GetRollback() {
			t.Errorf("changes %v, want those before and in it, the newest first, a rollback", revisions)
		}
		e := resp.GetIncident().GetEvents()
		if len(e) != 2 || e[0].GetText() != "breaker of v8 open" || e[1].GetActor() != "anna" || e[1].GetRevision() != 3 {
			t.Errorf("events %v, want the breaker and the rollback of revision 3 by anna", e)
		}
	}
}

// TestIncidentsAreSelected by model and by being open, the latest first, within a limit; what they say together is of all
// of the models selected.
func TestIncidentsAreSelected(t *testing.T) {
	_, tracker, c := incidents(t)
	now := time.Now()
	for i := range 4 {
		model := fmt.Sprint("fraud", i)
		tracker.Begin(opens(model, now.Add(time.Duration(i)*time.Millisecond)))
	}
	all := await(t, c, "four", func(all []*adminv1.Incident) bool { return len(all) == 4 })
	book := tracker.Book()
	if _, err := book.Change(t.Context(), all[0].GetId(), func(in *adminv1.Incident) error { in.Recovered = in.GetDetected(); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		req  *adminv1.ListIncidentsRequest
		want string
	}{
		{&adminv1.ListIncidentsRequest{}, "fraud3 fraud2 fraud1 fraud0 of 4"},
		{&adminv1.ListIncidentsRequest{Limit: 2}, "fraud3 fraud2 of 4"},
		{&adminv1.ListIncidentsRequest{Open: true}, "fraud2 fraud1 fraud0 of 4"},
		{&adminv1.ListIncidentsRequest{Open: true, Limit: 1}, "fraud2 of 4"},
		{&adminv1.ListIncidentsRequest{Model: "fraud1"}, "fraud1 of 1"},
		{&adminv1.ListIncidentsRequest{Model: "fraud3", Open: true}, " of 1"},
		{&adminv1.ListIncidentsRequest{Model: "nobody"}, " of 0"},
	} {
		resp, err := c.ListIncidents(t.Context(), test.req)
		if err != nil {
			t.Fatal(err)
		}
		var models []string
		for _, in := range resp.GetIncidents() {
			models = append(models, in.GetModel())
			if len(in.GetEvents()) != 0 {
				t.Errorf("a list with events: %v", in)
			}
		}
		if got := fmt.Sprintf("%s of %d", strings.Join(models, " "), len(resp.GetReliability())); got != test.want {
			t.Errorf("%v: %q, want %q", test.req, got, test.want)
		}
	}
}

// TestActionsAreAddedAndTickedOff, and what makes no sense is refused with its reason.
func TestActionsAreAddedAndTickedOff(t *testing.T) {
	_, tracker, c := incidents(t)
	tracker.Begin(opens("fraud", time.Now()))
	id := await(t, c, "one", func(all []*adminv1.Incident) bool { return len(all) == 1 })[0].GetId()
	for _, req := range []*adminv1.AnnotateIncidentRequest{
		{Actor: "anna", AddAction: "test v8 with empty tensors"}, {Actor: "ben", AddAction: "lower min_calls"}, {Actor: "ben", CompleteAction: 1},
		{Actor: "ben", AddAction: "lower min_calls"}, // again, for the answer was lost
	} {
		req.Id = id[:12]
		if _, err := c.AnnotateIncident(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := c.GetIncident(t.Context(), &adminv1.GetIncidentRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(resp.GetIncident().GetActions()), 2; len(resp.GetIncident().GetActions()) != want ||
		!resp.GetIncident().GetActions()[0].GetDone() || resp.GetIncident().GetActions()[1].GetDone() || resp.GetIncident().GetActions()[1].GetActor() != "ben" {
		t.Errorf("actions %s, want two, the first one done", got)
	}
	for _, test := range []struct {
		req  *adminv1.AnnotateIncidentRequest
		code connect.Code
		says string
	}{
		{&adminv1.AnnotateIncidentRequest{Id: id, AddAction: "x"}, connect.CodeInvalidArgument, "actor"},
		{&adminv1.AnnotateIncidentRequest{Id: id, Actor: "anna"}, connect.CodeInvalidArgument, "add_action"},
		{&adminv1.AnnotateIncidentRequest{Id: id, Actor: "anna", AddAction: strings.Repeat("x", 501)}, connect.CodeInvalidArgument, "500 bytes"},
		{&adminv1.AnnotateIncidentRequest{Id: id, Actor: "anna", CompleteAction: 3}, connect.CodeInvalidArgument, "complete_action"},
		{&adminv1.AnnotateIncidentRequest{Id: "2027", Actor: "anna", AddAction: "x"}, connect.CodeNotFound, "2027"},
	} {
		_, err := c.AnnotateIncident(t.Context(), test.req)
		if connect.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: %v, want %v that names %s", test.req, err, test.code, test.says)
		}
	}
}

// TestNobodyKeepsIncidents, and everybody who asks is told so.
func TestNobodyKeepsIncidents(t *testing.T) {
	r := newRig(t)
	c := adminv1connect.NewIncidentServiceClient(r.http, r.url)
	_, list := c.ListIncidents(t.Context(), &adminv1.ListIncidentsRequest{})
	_, get := c.GetIncident(t.Context(), &adminv1.GetIncidentRequest{Id: "2026"})
	_, annotate := c.AnnotateIncident(t.Context(), &adminv1.AnnotateIncidentRequest{Id: "2026", Actor: "anna", AddAction: "x"})
	for what, err := range map[string]error{"list": list, "get": get, "annotate": annotate} {
		if connect.CodeOf(err) != connect.CodeUnimplemented {
			t.Errorf("%s: %v, want unimplemented", what, err)
		}
	}
}
