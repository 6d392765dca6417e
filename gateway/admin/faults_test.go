package admin_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

// inject asks for a fault of fraud.
func (r *rig) inject(in *adminv1.Intent, f *routingv1.Fault, lasts time.Duration) (*adminv1.Outcome, error) {
	resp, err := r.fault.InjectFault(r.t.Context(), &adminv1.InjectFaultRequest{
		Intent: in, Model: "fraud", Fault: f, Duration: durationpb.New(lasts),
	})
	return resp.GetOutcome(), err
}

// faults returns the states of fraud's faults, by version.
func (r *rig) faults() string {
	r.t.Helper()
	resp, err := r.fault.ListFaults(r.t.Context(), &adminv1.ListFaultsRequest{Model: "fraud"})
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, f := range resp.GetFaults() {
		all = append(all, f.GetFault().GetVersion()+" "+f.GetState())
	}
	return strings.Join(all, ", ")
}

func unavailable(version string, percent float64) *routingv1.Fault {
	return &routingv1.Fault{Version: version, Percent: percent, Status: "UNAVAILABLE"}
}

func TestFaultsAreChangesLikeOthers(t *testing.T) {
	r := newRig(t)
	begin := time.Now().Truncate(time.Millisecond)
	made := r.must(r.inject(by("anna", because("game day")), unavailable("v8", 10), time.Minute)).GetChange()
	f := made.GetRoutes()[0].GetAfter().GetFaults()[0]
	if made.GetActor() != "anna" || made.GetReason() != "game day" || f.GetFrom().AsTime().Before(begin) ||
		f.GetUntil().AsTime().Sub(f.GetFrom().AsTime()) != time.Minute {
		t.Errorf("the change is %v", made)
	}
	if got := r.faults(); got != "v8 active" {
		t.Errorf("faults: %s", got)
	}
	r.must(r.inject(by("anna"), &routingv1.Fault{Percent: 1, Delay: durationpb.New(time.Second)}, time.Minute))
	if got := r.faults(); got != "v8 active,  active" {
		t.Errorf("faults: %s", got)
	}
	clear := func(version string) error {
		_, err := r.fault.ClearFaults(t.Context(), &adminv1.ClearFaultsRequest{Intent: by("ben"), Model: "fraud", Version: version})
		return err
	}
	if err := clear("v8"); err != nil || r.faults() != " active" {
		t.Errorf("cleared those of v8: %v, left are %s", err, r.faults())
	}
	if err := clear("v1"); refusalOf(t, err).reason != admin.ReasonInvalid {
		t.Errorf("of an unknown version: %v", err)
	}
	if err := clear(""); err != nil || r.faults() != "" {
		t.Errorf("cleared all: %v, left are %s", err, r.faults())
	}
	if got := r.watcher.State().Revision; got != 5 {
		t.Errorf("the routes are at revision %d, want 5", got)
	}
}

func TestRollbackEndsAFault(t *testing.T) {
	r := newRig(t)
	r.must(r.inject(by("anna"), unavailable("", 100), time.Minute))
	if _, err := r.client.Rollback(t.Context(), &adminv1.RollbackRequest{Intent: by("ben"), Model: "fraud"}); err != nil {
		t.Fatal(err)
	}
	if got := r.faults(); got != "" {
		t.Errorf("faults after the rollback: %s", got)
	}
}

// After a drill, a rollback undoes what still acts.
func TestRollbackPassesOverFaultsThatHaveEnded(t *testing.T) {
	r := newRig(t)
	weights := func() map[string]uint32 { return r.watcher.State().Routes["fraud"].GetRoute().GetWeights() }
	before := weights()
	r.must(r.weights(by("anna"), map[string]uint32{"v8": 1}))
	r.must(r.inject(by("anna"), unavailable("", 100), time.Second))
	time.Sleep(1100 * time.Millisecond)
	if _, err := r.client.Rollback(t.Context(), &adminv1.RollbackRequest{Intent: by("ben"), Model: "fraud"}); err != nil {
		t.Fatal(err)
	}
	if got := weights(); !maps.Equal(got, before) {
		t.Errorf("weights after the rollback: %v, want %v", got, before)
	}
}

func TestFaultsWithoutBoundsAreRefused(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		fault *routingv1.Fault
		lasts time.Duration
		want  string
	}{
		{unavailable("v8", 10), time.Hour + 1, "duration: got 1h0m0.000000001s, want a duration from 1s to 1h0m0s"},
		{unavailable("v8", 10), 0, "duration: got 0s"},
		{unavailable("v8", 0), time.Minute, "fault.percent: got 0, want a number above 0 and at most 100"},
		{unavailable("v1", 10), time.Minute, `fault.version: got "v1", want one of the route's versions (v7, v8, v9)`},
		{&routingv1.Fault{Percent: 10}, time.Minute, "fault: got none, want one of delay, status and reset_stream"},
		{&routingv1.Fault{Percent: 10, Delay: durationpb.New(31 * time.Second)}, time.Minute, "fault.delay: got 31s, want a duration from 1ms to 30s"},
		{&routingv1.Fault{Percent: 10, ResetStream: true, Until: timestamppb.Now()}, time.Minute, "fault: got from or until, want neither"},
		{nil, time.Minute, "fault: got nothing"},
	} {
		_, err := r.inject(by("anna"), test.fault, test.lasts)
		if got := refusalOf(t, err); got.reason != admin.ReasonInvalid || !strings.Contains(got.text, test.want) {
			t.Errorf("got %s %q, want %q", got.reason, got.text, test.want)
		}
	}
	for range 8 {
		r.must(r.inject(by("anna"), unavailable("v8", 1), time.Minute))
	}
	if _, err := r.inject(by("anna"), unavailable("v8", 1), time.Minute); !strings.Contains(refusalOf(t, err).text, "at most 8 faults") {
		t.Errorf("the ninth: %v", err)
	}
}

// TestEndedFaultsGoWithTheNextChange, and are none by themselves.
func TestEndedFaultsGoWithTheNextChange(t *testing.T) {
	r := newRig(t)
	r.must(r.inject(by("anna"), unavailable("v8", 10), time.Second))
	for r.faults() != "v8 ended" {
		time.Sleep(10 * time.Millisecond)
	}
	same := r.must(r.weights(by("ben"), map[string]uint32{"v7": 95, "v8": 5}))
	if same.GetChange() != nil || r.faults() != "v8 ended" {
		t.Errorf("the same weights: %v, faults %s; want no change", same, r.faults())
	}
	r.must(r.weights(by("ben"), map[string]uint32{"v7": 90, "v8": 10}))
	if got := r.faults(); got != "" {
		t.Errorf("after a change: %s", got)
	}
	// What brings it back is no change either.
	back, err := r.client.Rollback(t.Context(), &adminv1.RollbackRequest{Intent: by("ben"), Model: "fraud", ToRevision: new(uint64(2))})
	if err != nil || r.faults() != "" {
		t.Errorf("rollback: %v, %v, faults %s", back, err, r.faults())
	}
}
