package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/gateway"
	adminv1 "sluice/proto/sluice/admin/v1"
	feedbackv1 "sluice/proto/sluice/feedback/v1"
	"sluice/telemetry/labels"
	"sluice/telemetry/labels/score"
)

// GetLabels tells what the labels that were reported say of the versions of a model.
func (s *Service) GetLabels(_ context.Context, req *adminv1.GetLabelsRequest) (*adminv1.GetLabelsResponse, error) {
	if _, ok := s.cfg.Router.Current().Route(req.GetModel()); !ok {
		return nil, failure(s.noRoute(req.GetModel()), ofRoute)
	}
	resp := new(adminv1.GetLabelsResponse)
	if s.cfg.Labels == nil {
		return resp, nil
	}
	reports := s.cfg.Labels.Reports(req.GetModel())
	for i := range reports {
		if k := reports[i].Settings.Predicts; k != labels.None {
			resp.Predicts = k.String()
		}
		resp.Versions = append(resp.Versions, versionLabels(&reports[i]))
	}
	for _, c := range labels.Compare(reports) {
		resp.Comparisons = append(resp.Comparisons, labelComparison(c))
	}
	for _, a := range s.cfg.Labels.Alarms(req.GetModel()) {
		resp.Alarms = append(resp.Alarms, &adminv1.LabelAlarm{
			Time: timestamppb.New(a.At), Version: a.Version, Detector: a.Detector, Text: a.Text, Labels: a.Labels, Errors: a.Errors,
		})
	}
	return resp, nil
}

// Send takes labels, as the data address does.
func (s *Service) Send(ctx context.Context, req *feedbackv1.SendRequest) (*feedbackv1.SendResponse, error) {
	if s.cfg.Labels == nil {
		return nil, wrongField("labels", fmt.Sprint(len(req.GetLabels())), "none: this gateway takes no labels")
	}
	resp, ok := gateway.TakeLabels(ctx, s.cfg.Labels, req)
	if !ok {
		return nil, wrongField("labels", fmt.Sprint(len(req.GetLabels())), "at most 1000")
	}
	return resp, nil
}

func versionLabels(r *labels.Report) *adminv1.VersionLabels {
	v := &adminv1.VersionLabels{
		Version: r.Version, Current: labelWindow(&r.Current), Predictions: r.Predictions, Labelled: r.Labelled,
		Baseline: number(r.Baseline), Learnt: r.Learnt, ToLearn: r.ToLearn, Unread: r.Unread,
	}
	if r.Last.Labels > 0 {
		v.Last = labelWindow(&r.Last)
	}
	return v
}

func labelWindow(m *labels.Measures) *adminv1.LabelWindow {
	w := &adminv1.LabelWindow{
		From: timestamppb.New(m.From), To: timestamppb.New(m.To), Labels: m.Labels, Errors: m.Errors,
		Accuracy: number(m.Accuracy), MacroF1: number(m.MacroF1), LogLoss: number(m.LogLoss), Brier: number(m.Brier),
		Auc: number(m.AUC), AucBound: number(m.AUCBound), AucError: number(m.AUCError), CalibrationError: number(m.CalibrationError),
		Rmse: number(m.RMSE), Mae: number(m.MAE), Bias: number(m.Bias), Reward: number(m.Reward),
	}
	if m.Labels > 0 {
		w.MedianDelay = durationpb.New(m.MedianDelay)
	}
	for _, c := range m.Classes {
		w.Classes = append(w.Classes, &adminv1.ClassScore{Class: c.Class, Labels: c.Labels, F1: number(c.F1)})
	}
	return w
}

func labelComparison(c labels.Comparison) *adminv1.LabelComparison {
	out := &adminv1.LabelComparison{Version: c.Version, With: c.With, Difference: c.Difference, Verdict: "undecided"}
	if c.Interval == score.Unknown {
		return out
	}
	out.Low, out.High = &c.Interval.Low, &c.Interval.High
	switch {
	case c.Interval.Low > 0:
		out.Verdict = "worse"
	case c.Interval.High < 0:
		out.Verdict = "better"
	}
	return out
}
