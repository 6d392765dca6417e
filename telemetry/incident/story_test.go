package incident

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func mustMarshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// incidentAt is one with its moments in seconds after noon; -1 is one that has not come.
func incidentAt(model string, onset, detected, mitigated, recovered int) *adminv1.Incident {
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	in := &adminv1.Incident{Model: model, Onset: stamp(at(onset)), Detected: stamp(at(detected))}
	if mitigated != -1 {
		in.Mitigated = stamp(at(mitigated))
	}
	if recovered != -1 {
		in.Recovered = stamp(at(recovered))
	}
	return in
}

// TestReliabilityByHand: two days, worked out on paper.
func TestReliabilityByHand(t *testing.T) {
	since, now := noon.Add(-24*time.Hour), noon.Add(24*time.Hour)
	rollback := incidentAt("a", 7200, 7200, 7200, 7200)
	rollback.Trigger = Rollback // while all was well
	noticed := incidentAt("d", 0, 100, 100, 300)
	noticed.Trigger = Rollback // by somebody who saw calls fail
	got := Reliability([]*adminv1.Incident{
		rollback, noticed,
		incidentAt("a", 0, 10, 60, 600),                   // out for 60 s
		incidentAt("a", 30, 50, -1, 90),                   // to 90 s: 30 s more
		incidentAt("a", 3600, 3690, -1, -1),               // open: out until now
		incidentAt("b", 100, 102, 103, 1000),              // out for 3 s
		incidentAt("c", -200_000, -200_000, -1, -199_000), // over before that time began
	}, nil, since, now)
	if len(got) != 3 || got[0].GetModel() != "a" || got[1].GetModel() != "b" || got[2].GetModel() != "d" {
		t.Fatalf("Reliability = %v, want that of a, b and d", got)
	}
	a, b := got[0], got[1]
	if a.GetIncidents() != 3 || a.GetOpen() != 1 {
		t.Errorf("a: %v", a)
	}
	for what, c := range map[string]struct{ got, want time.Duration }{
		"mean time to detect":    {a.GetMeanTimeToDetect().AsDuration(), 40 * time.Second},
		"median time to detect":  {a.GetMedianTimeToDetect().AsDuration(), 20 * time.Second},
		"mean time to recover":   {a.GetMeanTimeToRecover().AsDuration(), 330 * time.Second},
		"median time to recover": {a.GetMedianTimeToRecover().AsDuration(), 330 * time.Second},
		"mean time to mitigate":  {a.GetMeanTimeToMitigate().AsDuration(), 50 * time.Second},
		"mean time to heal":      {a.GetMeanTimeToHeal().AsDuration(), 540 * time.Second},
		"b's":                    {b.GetMeanTimeToRecover().AsDuration(), 900 * time.Second},
		"d's, to detect":         {got[2].GetMeanTimeToDetect().AsDuration(), 100 * time.Second},
		"d's, to mitigate":       {got[2].GetMedianTimeToMitigate().AsDuration(), 0},
		"d's, to heal":           {got[2].GetMedianTimeToHeal().AsDuration(), 200 * time.Second},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	if want := 1 - (90+23*3600.)/(48*3600); math.Abs(a.GetUptime()-want) > 1e-9 {
		t.Errorf("uptime of a: %v, want %v", a.GetUptime(), want)
	}
	if want := 1 - 3./(48*3600); math.Abs(b.GetUptime()-want) > 1e-9 {
		t.Errorf("uptime of b: %v, want %v", b.GetUptime(), want)
	}
}

// TestReliabilityOfWhatIsKept: of a model whose older incidents were forgotten, uptime is that of the time since.
func TestReliabilityOfWhatIsKept(t *testing.T) {
	since, now := noon.Add(-24*time.Hour), noon.Add(24*time.Hour)
	got := Reliability([]*adminv1.Incident{
		incidentAt("noisy", -3600, -3600, -1, 600), // went on when the forgotten one was over
		incidentAt("noisy", 1200, 1260, -1, 3600),
		incidentAt("noisy", -7200, -7200, -1, -600),
		incidentAt("quiet", 0, 60, -1, 3600),
	}, map[string]time.Time{"noisy": noon, "gone": noon}, since, now)
	if len(got) != 2 || !got[0].GetSince().AsTime().Equal(noon) || got[0].GetIncidents() != 2 || !got[1].GetSince().AsTime().Equal(since) {
		t.Fatalf("%v, want two incidents of noisy since noon, and one of quiet", got)
	}
	for i, want := range []float64{1 - 3000./(24*3600), 1 - 3600./(48*3600)} {
		if math.Abs(got[i].GetUptime()-want) > 1e-9 {
			t.Errorf("uptime of %s: %v, want %v", got[i].GetModel(), got[i].GetUptime(), want)
		}
	}
}

// TestPostmortemTellsTheStory, as testdata has it. UPDATE=1 writes it anew.
func TestPostmortemTellsTheStory(t *testing.T) {
	in := incidentAt("fraud", 0, 4, 4, 95)
	in.Id, in.Trigger, in.Mitigation = "20260504-120004-c0ffee", "breaker", "the breaker cut v8 off, v7 answers"
	in.Events = []*adminv1.IncidentEvent{
		{Time: stamp(noon.Add(4 * time.Second)), Gateway: "gw-1", Kind: "breaker", Text: "breaker of v8 open: 5 failures in a row", RequestId: "req`|1"},
		{Time: stamp(noon.Add(20 * time.Second)), Gateway: "gw-1", Kind: "change", Text: "v8 5->0", Revision: 12},
		{Time: stamp(noon.Add(95 * time.Second)), Gateway: "gw-2", Kind: "breaker", Text: "breaker of v8 closed"},
	}
	in.DroppedEvents = 3
	in.Gateways = map[string]*adminv1.GatewayView{
		"gw-2": {Effect: &adminv1.Effect{Calls: 100, Failed: 1, FellBack: 4}},
		"gw-1": {Effect: &adminv1.Effect{Calls: 300, Failed: 5, FellBack: 16, Late: 24, BudgetBefore: proto.Float64(0.8), BudgetAfter: proto.Float64(0.625),
			LateBudgetBefore: proto.Float64(1), LateBudgetAfter: proto.Float64(0.1)}},
		"gw-3": {Effect: &adminv1.Effect{BudgetBefore: proto.Float64(0.5), BudgetAfter: proto.Float64(-999)}},
	}
	in.Samples = []*adminv1.SampleCall{{
		Time: stamp(noon.Add(3 * time.Second)), RequestId: "req-1", TraceId: "4bf92f3577b34da6a3ce929d0e0e4736", Version: "v8", Code: "INTERNAL", Reason: "UPSTREAM_RESET",
	}}
	in.Actions = []*adminv1.ActionItem{{Text: "test v8 with <empty> tensors", Actor: "anna"}, {Text: "lower min_calls", Actor: "ben", Done: true}}
	changes := []*adminv1.IncidentEvent{
		{Time: stamp(noon.Add(-10 * time.Minute)), Kind: "change", Text: "v8 0->5: canary of the May model", Actor: "anna", Revision: 11},
		{Time: stamp(noon.Add(20 * time.Second)), Kind: "change", Text: "v8 5->0: it fails", Actor: "ben", Revision: 12},
	}
	got := Postmortem(in, changes, noon.Add(time.Hour))
	file := filepath.Join("testdata", "postmortem.md")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the postmortem is\n%s\nwant\n%s", got, want)
	}
}
