package admin

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/shadow"
)

// ListShadows returns what is known of shadows now.
func (s *Service) ListShadows(_ context.Context, req *adminv1.ListShadowsRequest) (*adminv1.ListShadowsResponse, error) {
	table := s.cfg.Router.Current()
	if _, ok := table.Route(req.GetModel()); req.GetModel() != "" && !ok {
		return nil, failure(s.noRoute(req.GetModel()), ofRoute)
	}
	resp := new(adminv1.ListShadowsResponse)
	for r := range table.Routes() {
		if req.GetModel() != "" && r.Model != req.GetModel() {
			continue
		}
		for _, sh := range r.Shadows {
			if at, ok := s.cfg.Gateway.Shadow(sh.Version); ok {
				report := shadowReport(sh.Version, &at.Status)
				report.Percent = float64(sh.Share) * 100 / routing.ShareSteps
				report.Breaker = at.Breaker.State.String()
				resp.Shadows = append(resp.Shadows, report)
			}
		}
	}
	return resp, nil
}

func shadowReport(v *routing.Version, at *shadow.Status) *adminv1.ShadowReport {
	r := &adminv1.ShadowReport{
		Model: v.Model, Version: v.Name,
		Since: timestamppb.New(at.Since), ComparedSince: timestamppb.New(at.ComparedSince), Offered: at.Offered, Answered: at.Answered,
		Dropped: byName(at.Dropped), Failed: byName(at.Failed), Queued: uint32(at.Queued), Bytes: uint64(at.Bytes),
		Compared: at.Compared, Mismatched: at.Mismatched, Rate: rate(at.Mismatched, at.Compared, at.Rate, at.Always, at.Upper),
		Differences: byName(at.Differences), CallerLatency: latency(at.Caller), ShadowLatency: latency(at.Shadow), SlowerBy: latency(at.Slower),
	}
	for i := range at.Outputs {
		r.Outputs = append(r.Outputs, outputReport(&at.Outputs[i]))
	}
	for _, e := range at.Worst {
		r.Worst = append(r.Worst, &adminv1.MismatchExample{
			RequestId: e.RequestID, Time: timestamppb.New(e.At), AnsweredBy: e.Version, Difference: e.Difference.String(), Why: e.Why,
			Output: e.Output, MaxAbs: e.MaxAbs, Excess: e.Excess, Differing: uint64(e.Differing), Elements: uint64(e.Elements),
			Call: callOf(e.Call),
		})
	}
	return r
}

func outputReport(o *shadow.OutputVerdict) *adminv1.OutputReport {
	r := &adminv1.OutputReport{
		Name: o.Name, Compared: o.Compared, Mismatched: o.Mismatched, Rate: rate(o.Mismatched, o.Compared, o.Rate, o.Always, o.Upper),
		MaxAbs: o.MaxAbs, MaxRel: o.MaxRel, Excess: o.Excess, MaxUlp: o.MaxULP, MeanRmse: o.MeanRMSE,
		Rows: o.Rows, Flips: o.Flips, CloseFlips: o.CloseFlips,
	}
	if o.Cosines > 0 {
		r.MeanCosine = &o.MeanCosine
	}
	if o.TopKs > 0 {
		r.MeanTopK = &o.MeanTopK
	}
	return r
}

// callOf words what may be shown of a call.
func callOf(r *shadow.Remembered) string {
	if r == nil {
		return ""
	}
	text, err := json.Marshal(r)
	if err != nil {
		return "" // it is made of what JSON has
	}
	return string(text)
}

// byName counts by the names of what is counted.
func byName[K interface {
	comparable
	String() string
}](counts map[K]uint64) map[string]uint64 {
	named := make(map[string]uint64, len(counts))
	for k, n := range counts {
		named[k.String()] = n
	}
	return named
}

func rate(x, n uint64, once, always shadow.Interval, upper float64) *adminv1.Rate {
	r := &adminv1.Rate{Low: once.Low, High: once.High, Bound: upper, AlwaysLow: always.Low, AlwaysHigh: always.High}
	if n > 0 {
		r.Seen = float64(x) / float64(n)
	}
	return r
}

func latency(s shadow.Spread) *adminv1.Latency {
	d := func(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
	return &adminv1.Latency{Count: s.N, Mean: d(s.Mean), P5: d(s.P5), P50: d(s.P50), P95: d(s.P95), P99: d(s.P99), Max: d(s.Max)}
}
