package main

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
)

// TestLostAnswersAreNotTakenForNothingDone: what became of a change whose answer was lost is
// asked for again, until somebody knows. "Nothing was changed by this request" is no answer
// to that.
func TestLostAnswersAreNotTakenForNothingDone(t *testing.T) {
	t.Parallel()
	refusal := func(code connect.Code, reason string) error {
		e := connect.NewError(code, errors.New(reason))
		d, err := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: reason, Domain: admin.Domain})
		if err != nil {
			t.Fatal(err)
		}
		e.AddDetail(d)
		return e
	}
	var (
		cut         = connect.NewError(connect.CodeUnavailable, errors.New("unexpected EOF"))
		unknown     = refusal(connect.CodeUnavailable, admin.ReasonOutcomeUnknown)
		unavailable = refusal(connect.CodeUnavailable, admin.ReasonStoreUnavailable)
		stateless   = refusal(connect.CodeUnavailable, admin.ReasonNoState)
		conflict    = refusal(connect.CodeAborted, admin.ReasonConflict)
	)
	for _, test := range []struct {
		name    string
		answers []error
		want    error // nil for the change that was made
		asked   int
	}{
		{"made", []error{nil}, nil, 1},
		{"refused", []error{conflict}, conflict, 1},
		{"without a store", []error{unavailable}, unavailable, 1},
		{"found out", []error{cut, nil}, nil, 2},
		{"found not to be made", []error{unknown, conflict}, conflict, 2},
		{"the store goes away", []error{unknown, unavailable, unavailable}, unknown, 3},
		{"the gateway starts anew without it", []error{cut, stateless, unavailable}, cut, 3},
		{"the store comes back", []error{unknown, unavailable, nil}, nil, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			got, err := repeatedly(t.Context(), &client{where: "http://gateway"}, func(_ context.Context, _ *client, in *adminv1.Intent) (answer, error) {
				if in.GetRequestKey() != "k" {
					t.Errorf("asked with the key %q, want it every time", in.GetRequestKey())
				}
				err := test.answers[asked]
				asked++
				if err != nil {
					return nil, err
				}
				return &adminv1.SetWeightsResponse{}, nil
			}, &adminv1.Intent{RequestKey: "k"})
			if asked != test.asked || !errors.Is(err, test.want) || (got != nil) != (test.want == nil) {
				t.Errorf("asked %d times, got %v and %v, want %d and %v", asked, got, err, test.asked, test.want)
			}
		})
	}
}
