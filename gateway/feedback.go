package gateway

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedbackv1 "sluice/proto/sluice/feedback/v1"
	"sluice/telemetry/labels"
)

// maxLabels is how many labels a request has at most.
const maxLabels = 1000

// feedback takes labels.
type feedback struct {
	feedbackv1.UnimplementedFeedbackServiceServer
	monitor *labels.Monitor
}

// TakeLabels counts the labels of a request, which must not be more than 1000: ok is false if they are, and then none is
// counted. What cannot be used is refused one by one.
func TakeLabels(ctx context.Context, monitor *labels.Monitor, req *feedbackv1.SendRequest) (resp *feedbackv1.SendResponse, ok bool) {
	if len(req.GetLabels()) > maxLabels {
		return nil, false
	}
	resp = new(feedbackv1.SendResponse)
	all := make([]labels.Label, len(req.GetLabels()))
	for i, l := range req.GetLabels() {
		all[i] = labelOf(l)
	}
	for i, o := range monitor.Take(ctx, all) {
		switch {
		case o.Refused != nil:
			resp.Refused = append(resp.Refused, &feedbackv1.Refusal{Index: uint32(i), Reason: refusalReasons[o.Refused.Reason], Text: o.Refused.Text})
		case o.Duplicate:
			resp.Duplicates++
		default:
			resp.Counted++
		}
	}
	return resp, true
}

func labelOf(l *feedbackv1.Label) labels.Label {
	out := labels.Label{ID: l.GetPredictionId(), Row: labels.NoRow}
	if l.Row != nil {
		out.Row = int(l.GetRow())
	}
	switch truth := l.GetTruth().(type) {
	case *feedbackv1.Label_Class:
		out.Truth, out.Class = labels.TrueClass, truth.Class
	case *feedbackv1.Label_Number:
		out.Truth, out.Number = labels.TrueNumber, truth.Number
	case *feedbackv1.Label_Reward:
		out.Truth, out.Number = labels.Reward, truth.Reward
	}
	if l.GetTime() != nil {
		out.Time = l.GetTime().AsTime()
	}
	return out
}

var refusalReasons = [labels.Reasons]feedbackv1.Reason{
	labels.Malformed:      feedbackv1.Reason_REASON_MALFORMED,
	labels.UnknownKey:     feedbackv1.Reason_REASON_UNKNOWN_KEY,
	labels.BadSignature:   feedbackv1.Reason_REASON_BAD_SIGNATURE,
	labels.UnknownVersion: feedbackv1.Reason_REASON_UNKNOWN_VERSION,
	labels.Late:           feedbackv1.Reason_REASON_LATE,
	labels.WrongKind:      feedbackv1.Reason_REASON_WRONG_KIND,
	labels.UnknownClass:   feedbackv1.Reason_REASON_UNKNOWN_CLASS,
	labels.NoPrediction:   feedbackv1.Reason_REASON_NO_PREDICTION,
	labels.WrongTime:      feedbackv1.Reason_REASON_TIME,
	labels.Full:           feedbackv1.Reason_REASON_FULL,
	labels.WrongRow:       feedbackv1.Reason_REASON_ROW,
}

// Send implements [feedbackv1.FeedbackServiceServer].
func (f feedback) Send(ctx context.Context, req *feedbackv1.SendRequest) (*feedbackv1.SendResponse, error) {
	resp, ok := TakeLabels(ctx, f.monitor, req)
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "labels: got %d, want at most %d", len(req.GetLabels()), maxLabels)
	}
	return resp, nil
}
