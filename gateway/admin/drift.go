package admin

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/routing"
	"sluice/telemetry/drift"
	"sluice/telemetry/drift/stat"
)

// Drift is what the service asks about the data of versions, a [drift.Monitor].
type Drift interface {
	Reports(model string) []drift.Report
	Alarms(model string) []drift.Alarm
	Contrast(model, base, other string) drift.Contrast
	Dropped() uint64
	Put(ctx context.Context, doc *driftv1.Reference) error
	Remove(ctx context.Context, key drift.Key) (bool, error)
	FromTraffic(key drift.Key, from string) (*driftv1.Reference, error)
}

// GetDrift tells how the data of a model's versions stands.
func (s *Service) GetDrift(_ context.Context, req *adminv1.GetDriftRequest) (*adminv1.GetDriftResponse, error) {
	route, ok := s.cfg.Router.Current().Route(req.GetModel())
	if !ok {
		return nil, failure(s.noRoute(req.GetModel()), ofRoute)
	}
	resp := new(adminv1.GetDriftResponse)
	if s.cfg.Drift == nil {
		return resp, nil
	}
	resp.Dropped = s.cfg.Drift.Dropped()
	base := heaviest(route)
	for _, r := range s.cfg.Drift.Reports(req.GetModel()) {
		resp.Versions = append(resp.Versions, versionDrift(r))
		if r.Version != base {
			resp.Contrasts = append(resp.Contrasts, contrast(s.cfg.Drift.Contrast(req.GetModel(), base, r.Version)))
		}
	}
	for _, a := range s.cfg.Drift.Alarms(req.GetModel()) {
		resp.Alarms = append(resp.Alarms, &adminv1.DriftAlarm{
			Time: timestamppb.New(a.At), Version: a.Version, Feature: a.Feature, Reason: a.Reason, Text: a.Text, Window: driftWindow(a.Window),
		})
	}
	return resp, nil
}

// heaviest is the version with the most weight, the first of several.
func heaviest(r *routing.Route) string {
	most := r.Versions[0]
	for _, v := range r.Versions {
		if v.Weight > most.Weight {
			most = v
		}
	}
	return most.Name
}

func contrast(c drift.Contrast) *adminv1.DriftContrast {
	d := &adminv1.DriftContrast{Base: c.Base, Other: c.Other, Verdict: c.Verdict.String(), Window: driftWindow(c.Window), Moved: c.Moved}
	for _, u := range c.Unlike {
		d.Unlike = append(d.Unlike, &adminv1.UnlikeFeature{Feature: u.Feature, Psi: u.PSI, Adjusted: u.P})
	}
	return d
}

// SetReference says what a version is compared with.
func (s *Service) SetReference(ctx context.Context, req *adminv1.SetReferenceRequest) (*adminv1.SetReferenceResponse, error) {
	var key drift.Key
	field := "reference"
	switch {
	case req.GetReference() != nil:
		key = drift.Key{Model: req.GetReference().GetModel(), Version: req.GetReference().GetVersion()}
	case req.GetTraffic() != nil:
		field, key = "traffic", drift.Key{Model: req.GetTraffic().GetModel(), Version: req.GetTraffic().GetVersion()}
	case req.GetRemove() != nil:
		field, key = "remove", drift.Key{Model: req.GetRemove().GetModel(), Version: req.GetRemove().GetVersion()}
	default:
		return nil, wrongField("source", "nothing", "a reference, traffic or remove")
	}
	route, ok := s.cfg.Router.Current().Route(key.Model)
	if !ok {
		return nil, failure(s.noRoute(key.Model), ofRoute)
	}
	version, ok := route.Version(key.Version)
	switch {
	case !ok:
		return nil, wrongField(field+".version", fmt.Sprintf("%q", key.Version), "a version of the route")
	case route.Drift == nil || s.cfg.Drift == nil:
		return nil, wrongField(field+".model", fmt.Sprintf("%q, whose data is not watched", key.Model), "a route with a drift setting, such as drift: {}")
	}
	resp := &adminv1.SetReferenceResponse{Window: durationpb.New(route.Drift.Window)}
	doc := req.GetReference()
	switch field {
	case "remove":
		if _, err := s.cfg.Drift.Remove(ctx, key); err != nil {
			return nil, failure(err, ofRoute)
		}
		return resp, nil
	case "traffic":
		var err error
		if doc, err = s.cfg.Drift.FromTraffic(key, req.GetTraffic().GetFrom()); err != nil {
			return nil, wrongField("traffic.from", fmt.Sprintf("%q", req.GetTraffic().GetFrom()), err.Error())
		}
	}
	if doc.GetMade() == nil {
		doc.Made = timestamppb.New(time.Now())
	}
	if doc.GetData() == "" {
		doc.Data = version.Provenance.Data
	}
	if err := drift.Check(doc); err != nil {
		return nil, wrongField(field, "what cannot be used", err.Error())
	}
	if err := s.cfg.Drift.Put(ctx, doc); err != nil {
		return nil, failure(err, ofRoute)
	}
	for _, f := range doc.GetFeatures() {
		resp.Features = append(resp.Features, f.GetName())
	}
	resp.Reference = &driftv1.Reference{Model: doc.GetModel(), Version: doc.GetVersion(), Data: doc.GetData(), Source: doc.GetSource(), Made: doc.GetMade()}
	return resp, nil
}

func wrongField(field, got, want string) error {
	return failure(&routing.FieldError{Field: field, Got: got, Want: want}, func(f string) string { return f })
}

func versionDrift(r drift.Report) *adminv1.VersionDrift {
	v := &adminv1.VersionDrift{
		Version: r.Version, Reference: r.Reference, Learnt: uint32(r.Learnt), ToLearn: uint32(r.ToLearn),
		Sampled: r.Sampled, Unreadable: r.Unreadable, Window: driftWindow(r.Window), Next: driftWindow(r.Next),
		Level: r.Settings.Policy.Level(), Effect: r.Settings.Policy.Effect,
	}
	for _, f := range r.Findings {
		v.Features = append(v.Features, featureDrift(f))
	}
	return v
}

func featureDrift(f drift.Finding) *adminv1.FeatureDrift {
	d := &adminv1.FeatureDrift{
		Feature: f.Feature, Label: f.Label, Effect: f.Effect, State: f.State.String(), Values: f.Values,
		Psi: statistic(f.PSI), Ks: statistic(f.KS), ChiSquare: statistic(f.ChiSquare),
		Wasserstein: statistic(f.Wasserstein), JensenShannon: statistic(f.JensenShannon), Mmd: statistic(f.MMD),
		LInfinity: number(f.LInfinity), Hellinger: number(f.Hellinger), Adjusted: number(f.Adjusted), Ranked: number(f.Ranked),
		Reference: f.Reference, Current: f.Current,
	}
	for _, r := range f.Rates {
		d.Rates = append(d.Rates, &adminv1.DriftRate{Kind: r.Kind.String(), Count: r.Count, Rows: r.Rows, Bound: r.Bound, Alarm: r.Alarm})
	}
	return d
}

func statistic(r stat.Result) *adminv1.DriftStatistic {
	if math.IsNaN(r.Value) {
		return nil
	}
	return &adminv1.DriftStatistic{Value: r.Value, P: number(r.P)}
}

// number is unset for what is none.
func number(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

func driftWindow(s drift.Span) *adminv1.DriftWindow {
	if s.From.IsZero() {
		return nil
	}
	return &adminv1.DriftWindow{From: timestamppb.New(s.From), To: timestamppb.New(s.To), Samples: s.Samples}
}
