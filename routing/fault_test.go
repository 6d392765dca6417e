package routing

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

func TestFaultActsFromItsBeginningUntilItsEnd(t *testing.T) {
	from := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	f := Fault{From: from, Until: from.Add(time.Minute)}
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{
		{-1, false}, {0, true}, {time.Minute - 1, true}, {time.Minute, false}, {time.Hour, false},
	} {
		if got := f.ActiveAt(from.Add(test.after)); got != test.want {
			t.Errorf("ActiveAt(%v after its beginning) = %v, want %v", test.after, got, test.want)
		}
	}
}

func TestEndedFaultsAreLeftOut(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	fault := func(version string, until time.Duration) *routingv1.Fault {
		return &routingv1.Fault{Version: version, Until: timestamppb.New(now.Add(until))}
	}
	left := WithoutEndedFaults([]*routingv1.Fault{fault("a", 1), fault("b", 0), fault("c", -time.Hour), fault("d", time.Hour)}, now)
	if len(left) != 2 || left[0].GetVersion() != "a" || left[1].GetVersion() != "d" {
		t.Errorf("left are %v, want those of a and d", left)
	}
	if left := WithoutEndedFaults([]*routingv1.Fault{fault("b", 0)}, now); left != nil {
		t.Errorf("left are %v, want nil, as in a route without faults", left)
	}
}
