package admin_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	driftv1 "sluice/proto/sluice/drift/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing/memstore"
	"sluice/telemetry/drift"
	"sluice/telemetry/drift/stat"
)

// found is a monitor that has found something, and remembers what it is told.
type found struct {
	*drift.Monitor
	reports  []drift.Report
	alarms   []drift.Alarm
	contrast drift.Contrast
}

func (f *found) Reports(string) []drift.Report { return f.reports }
func (f *found) Alarms(string) []drift.Alarm   { return f.alarms }
func (f *found) Contrast(model, base, other string) drift.Contrast {
	c := f.contrast
	c.Base, c.Other = base, other
	return c
}

// newDriftRig is a rig whose model is watched or not.
func newDriftRig(t *testing.T, watched bool) (*found, adminv1connect.DriftServiceClient) {
	t.Helper()
	store := memstore.New(memstore.Config{})
	f := &found{Monitor: drift.New(drift.Config{
		Shelf: func(name string) drift.Shelf { return store.Shelf(name) }, Logger: slog.New(slog.DiscardHandler),
	})}
	r := newRig(t, func(c *admin.Config) { c.Drift = f })
	if watched {
		route := r.fraud()
		route.Drift = new(routingv1.Drift)
		route.Versions[0].Provenance = &routingv1.Provenance{Data: "dvc:7"}
		_, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{
			Intent: by("anna"), Document: &routingv1.Document{Routes: []*routingv1.Route{route}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return f, adminv1connect.NewDriftServiceClient(r.http, r.url)
}

func TestDriftIsToldAsItWasFound(t *testing.T) {
	f, client := newDriftRig(t, true)
	at := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	span := drift.Span{From: at, To: at.Add(time.Hour), Samples: 1234}
	none := stat.Result{Value: math.NaN(), P: math.NaN()}
	for _, version := range []string{"v7", "v8"} {
		f.reports = append(f.reports, drift.Report{
			Key: drift.Key{Model: "fraud", Version: version}, Sampled: 99, Unreadable: 3, Window: span,
			Settings: drift.Settings{Policy: drift.Policy{Window: time.Hour, ExpectedRun: 720 * time.Hour, Effect: 0.2}},
			Findings: []drift.Finding{{
				Feature: "age", Label: "input[0]", State: drift.Drift, Values: 1200, PSI: stat.Result{Value: 0.4, P: 1e-9}, KS: none, ChiSquare: none,
				Wasserstein: stat.Result{Value: 0.7, P: math.NaN()}, JensenShannon: none, LInfinity: 0.1, Hellinger: math.NaN(), Effect: 0.3,
				Adjusted: 1e-8, Ranked: 1e-8, Rates: []drift.Rate{{Kind: drift.NaN, Count: 5, Rows: 1234, Bound: 0.01, Alarm: true}},
				Reference: []float64{0.5, 0.5}, Current: []float64{0.1, 0.9}, MMD: none,
			}, {Feature: "x.embedding", State: drift.OK, PSI: none, KS: none, ChiSquare: none, Wasserstein: none, JensenShannon: none, MMD: stat.Result{Value: 0.15, P: 0.03}}},
		})
	}
	f.alarms = []drift.Alarm{{Key: drift.Key{Model: "fraud", Version: "v8"}, Feature: "age", Reason: "distribution", Text: "PSI 0.400", Window: span, At: span.To}}
	f.contrast = drift.Contrast{Verdict: drift.BothMoved, Window: span, Moved: []string{"age"}, Unlike: []drift.Unlike{{Feature: "output.y", PSI: 0.9, P: 1e-5}}}
	resp, err := client.GetDrift(t.Context(), &adminv1.GetDriftRequest{Model: "fraud"})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetVersions()) != 2 {
		t.Fatalf("got %v, want two versions", resp)
	}
	v := resp.GetVersions()[0]
	if v.GetVersion() != "v7" || v.GetSampled() != 99 || v.GetUnreadable() != 3 || v.GetWindow().GetSamples() != 1234 || math.Abs(v.GetLevel()-1.0/720) > 1e-12 {
		t.Errorf("version %v", v)
	}
	d := v.GetFeatures()[0]
	switch {
	case d.GetFeature() != "age" || d.GetLabel() != "input[0]" || d.GetState() != "drift" || d.GetValues() != 1200 || d.GetEffect() != 0.3,
		d.GetPsi().GetValue() != 0.4 || d.GetPsi().GetP() != 1e-9 || d.GetAdjusted() != 1e-8,
		d.GetWasserstein().GetValue() != 0.7 || d.GetWasserstein().P != nil, // not calibrated
		d.GetKs() != nil || d.Hellinger != nil,                              // not defined
		d.GetRates()[0].GetKind() != "nan" || !d.GetRates()[0].GetAlarm(),
		d.GetMmd() != nil,
		len(d.GetCurrent()) != 2:
		t.Errorf("feature %v", d)
	}
	if d := v.GetFeatures()[1]; d.GetMmd().GetValue() != 0.15 || d.GetMmd().GetP() != 0.03 || d.GetPsi() != nil {
		t.Errorf("feature %v, want its MMD", d)
	}
	if a := resp.GetAlarms()[0]; a.GetVersion() != "v8" || a.GetReason() != "distribution" || a.GetText() != "PSI 0.400" || a.GetWindow().GetSamples() != 1234 {
		t.Errorf("alarm %v", a)
	}
	// v7 has most of the weight.
	if len(resp.GetContrasts()) != 1 {
		t.Fatalf("contrasts %v, want one", resp.GetContrasts())
	}
	c := resp.GetContrasts()[0]
	if c.GetBase() != "v7" || c.GetOther() != "v8" || c.GetVerdict() != "world moved and models differ" || c.GetMoved()[0] != "age" || c.GetUnlike()[0].GetPsi() != 0.9 {
		t.Errorf("contrast %v", c)
	}
}

// numbers is a reference of a version.
func numbers(t *testing.T, version string) *driftv1.Reference {
	t.Helper()
	var c drift.Column
	for i := range 1000 {
		c.Number(float64(i))
	}
	f, ok := c.Feature("age")
	if !ok {
		t.Fatal("nothing learnt")
	}
	return &driftv1.Reference{Model: "fraud", Version: version, Source: "a test", Features: []*driftv1.Feature{f}}
}

func reference(doc *driftv1.Reference) *adminv1.SetReferenceRequest {
	return &adminv1.SetReferenceRequest{Source: &adminv1.SetReferenceRequest_Reference{Reference: doc}}
}

func TestAReferenceIsStoredWithItsDataAndForgotten(t *testing.T) {
	f, client := newDriftRig(t, true)
	resp, err := client.SetReference(t.Context(), reference(numbers(t, "v7")))
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetReference().GetData() != "dvc:7" || resp.GetReference().GetMade() == nil || resp.GetFeatures()[0] != "age" || resp.GetWindow().AsDuration() != time.Hour {
		t.Errorf("answer %v, want the version's data, the time, the feature and the window", resp)
	}
	remove := &adminv1.SetReferenceRequest{Source: &adminv1.SetReferenceRequest_Remove{Remove: &adminv1.VersionName{Model: "fraud", Version: "v7"}}}
	if _, err := client.SetReference(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if was, err := f.Remove(context.Background(), drift.Key{Model: "fraud", Version: "v7"}); was || err != nil {
		t.Errorf("after it was removed, there was one: %v, %v", was, err)
	}
}

func TestReferencesThatCannotBeAreRefusedWithTheField(t *testing.T) {
	_, client := newDriftRig(t, true)
	_, unwatched := newDriftRig(t, false)
	broken := numbers(t, "v7")
	broken.Features[0].Rows++
	for _, tt := range []struct {
		name   string
		client adminv1connect.DriftServiceClient
		req    *adminv1.SetReferenceRequest
		code   connect.Code
		want   string
	}{
		{"nothing", client, new(adminv1.SetReferenceRequest), connect.CodeInvalidArgument, "source"},
		{"an unknown model", client, reference(&driftv1.Reference{Model: "nobody"}), connect.CodeNotFound, "nobody"},
		{"an unknown version", client, reference(numbers(t, "v1")), connect.CodeInvalidArgument, `reference.version: got "v1"`},
		{"counts that do not add up", client, reference(broken), connect.CodeInvalidArgument, "rows"},
		{"traffic there has not been", client, &adminv1.SetReferenceRequest{Source: &adminv1.SetReferenceRequest_Traffic{
			Traffic: &adminv1.FromTraffic{Model: "fraud", Version: "v8", From: "v7"}}}, connect.CodeInvalidArgument, "traffic.from"},
		{"a route that is not watched", unwatched, reference(numbers(t, "v7")), connect.CodeInvalidArgument, "drift: {}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.client.SetReference(t.Context(), tt.req)
			var failed *connect.Error
			if !errors.As(err, &failed) || failed.Code() != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %v with %q", err, tt.code, tt.want)
			}
		})
	}
	if _, err := client.GetDrift(t.Context(), &adminv1.GetDriftRequest{Model: "nobody"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("drift of nobody: %v, want not found", err)
	}
	if resp, err := unwatched.GetDrift(t.Context(), &adminv1.GetDriftRequest{Model: "fraud"}); err != nil || len(resp.GetVersions()) != 0 {
		t.Errorf("drift of a model that is not watched: %v, %v, want no version", resp, err)
	}
}
