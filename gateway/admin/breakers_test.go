package admin_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/breaker"
	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
)

// guardOf is what the gateway knows of a version of fraud.
func (r *rig) guardOf(version string) *breaker.Version {
	r.t.Helper()
	route, ok := r.router.Current().Route("fraud")
	if !ok {
		r.t.Fatal("no route")
	}
	v, ok := route.Version(version)
	if !ok {
		r.t.Fatalf("no version %s", version)
	}
	return r.gateway.Guard(v)
}

// fails lets calls of a version fail until its breaker opens; the last one is
// decisive.
func fails(g *breaker.Version, requestID string) {
	for range 10 {
		now := time.Now()
		p, err := g.Breaker().Allow(now)
		if err != nil {
			return
		}
		p.Done(breaker.Result{Outcome: breaker.Failure, At: now, RequestID: requestID})
	}
}

// standing is how one version of fraud stands.
func (r *rig) standing(version string) *adminv1.VersionBreakers {
	r.t.Helper()
	resp, err := r.breaker.ListBreakers(r.t.Context(), &adminv1.ListBreakersRequest{Model: "fraud"})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range resp.GetVersions() {
		if v.GetVersion() == version {
			return v
		}
	}
	r.t.Fatalf("no version %s in %v", version, resp)
	return nil
}

func TestBreakersAreListedWithTheirCauses(t *testing.T) {
	r := newRig(t)
	fails(r.guardOf("v8"), "req-17")
	resp, err := r.breaker.ListBreakers(t.Context(), &adminv1.ListBreakersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetVersions()) != 3 || len(resp.GetBudgets()) != 1 || resp.GetBudgets()[0].GetLeft() != 10 {
		t.Errorf("got %v, want three versions and a full budget", resp)
	}
	v8 := r.standing("v8")
	b := v8.GetBreaker()
	if b.GetState() != "open" || b.GetForced() || b.GetCause() != "consecutive failures" || b.GetCounts().GetFailures() != 5 ||
		b.GetSampleRequestId() != "req-17" || b.GetOpenUntil().AsTime().Before(b.GetSince().AsTime().Add(5*time.Second)) {
		t.Errorf("the breaker of v8 is %v", b)
	}
	if len(v8.GetEndpoints()) != 2 || v8.GetEndpoints()[0].GetBreaker().GetState() != "closed" || v8.GetLimit() != 1024 || v8.GetP95() != nil {
		t.Errorf("v8 is %v", v8)
	}
	if _, err := r.breaker.ListBreakers(t.Context(), &adminv1.ListBreakersRequest{Model: "nope"}); refusalOf(t, err).reason != admin.ReasonModelNotFound {
		t.Errorf("an unknown model: %v", err)
	}
}

// TestOrdersStandInTheRoutingState: every gateway follows them, the history tells
// who gave them, and they are taken back like any change.
func TestOrdersStandInTheRoutingState(t *testing.T) {
	r := newRig(t)
	opened, err := r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{
		Intent: by("anna", because("wrong answers")), Model: "fraud", Version: "v8",
	})
	if err != nil {
		t.Fatal(err)
	}
	change := opened.GetOutcome().GetChange()
	if change.GetRevision() != 2 || change.GetActor() != "anna" || change.GetReason() != "wrong answers" {
		t.Errorf("the change is %v", change)
	}
	if w := opened.GetOutcome().GetWarnings(); len(w) != 1 || !strings.Contains(w[0], `no version answers for "v8": its calls, 5 of 100`) {
		t.Errorf("warnings %q, want that nobody answers for v8", w)
	}
	b := r.standing("v8").GetBreaker()
	if b.GetState() != "open" || !b.GetForced() || !b.GetOrdered() || b.GetCause() != "forced open" || b.GetOpenUntil() != nil {
		t.Errorf("the breaker of v8 is %v, want it forced open", b)
	}
	again, err := r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{Intent: by("ben"), Model: "fraud", Version: "v8"})
	if err != nil || again.GetOutcome().GetChange() != nil {
		t.Errorf("given twice: %v, %v; want no change", again, err)
	}
	// A local reset leaves the order alone.
	if _, err := r.breaker.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Intent: by("ben"), Model: "fraud", Version: "v8", Local: true}); err != nil {
		t.Fatal(err)
	}
	if b := r.standing("v8").GetBreaker(); !b.GetForced() {
		t.Errorf("after a local reset the breaker of v8 is %v, want the order to stand", b)
	}
	reset, err := r.breaker.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Intent: by("ben"), Model: "fraud", Version: "v8"})
	if err != nil || reset.GetOutcome().GetRevision() != 3 {
		t.Fatalf("reset: %v, %v", reset, err)
	}
	if b := r.standing("v8").GetBreaker(); b.GetState() != "closed" || b.GetForced() || b.GetOrdered() {
		t.Errorf("after the reset the breaker of v8 is %v", b)
	}
	if _, err := r.client.Rollback(t.Context(), &adminv1.RollbackRequest{Intent: by("anna"), Model: "fraud"}); err != nil {
		t.Fatal(err)
	}
	if b := r.standing("v8").GetBreaker(); !b.GetForced() {
		t.Errorf("after a rollback of the reset the breaker of v8 is %v", b)
	}
}

func TestOneEndpointIsCutOff(t *testing.T) {
	r := newRig(t)
	order := func(endpoint string) error {
		_, err := r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{Intent: by("anna"), Model: "fraud", Version: "v8", Endpoint: endpoint})
		return err
	}
	if err := order(r.dead); err != nil {
		t.Fatal(err)
	}
	v8 := r.standing("v8")
	if v8.GetBreaker().GetState() != "closed" {
		t.Errorf("the version is %v, want it closed", v8.GetBreaker())
	}
	for _, e := range v8.GetEndpoints() {
		if want := e.GetAddress() == r.dead; e.GetBreaker().GetForced() != want || e.GetBreaker().GetOrdered() != want {
			t.Errorf("endpoint %s is %v", e.GetAddress(), e.GetBreaker())
		}
	}
	refused := refusalOf(t, order("10.0.0.1:1"))
	if refused.reason != admin.ReasonInvalid || !strings.Contains(refused.text, r.alive) {
		t.Errorf("an unknown address: %+v, want the known ones to be named", refused)
	}
	if _, err := r.breaker.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Intent: by("anna"), Model: "fraud", Version: "v8"}); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.standing("v8").GetEndpoints() {
		if e.GetBreaker().GetForced() {
			t.Errorf("after a reset of the version, %v", e)
		}
	}
}

func TestLocalOrdersChangeNoRoutesAndAreLogged(t *testing.T) {
	var log syncBuffer
	r := newRig(t, func(c *admin.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	open := func(in *adminv1.Intent) error {
		_, err := r.breaker.OpenBreaker(t.Context(), &adminv1.OpenBreakerRequest{Intent: in, Model: "fraud", Version: "v8", Local: true})
		return err
	}
	if err := open(by("anna", dryRun)); err != nil || r.standing("v8").GetBreaker().GetForced() {
		t.Errorf("a dry run: %v, %v", err, r.standing("v8").GetBreaker())
	}
	if err := open(by("")); refusalOf(t, err).reason != admin.ReasonInvalid {
		t.Errorf("without an actor: %v", err)
	}
	if err := open(by("anna", because("store is down"))); err != nil {
		t.Fatal(err)
	}
	if b := r.standing("v8").GetBreaker(); !b.GetForced() || b.GetOrdered() {
		t.Errorf("the breaker of v8 is %v, want it forced open and no order", b)
	}
	if got := r.watcher.State().Revision; got != 1 {
		t.Errorf("the routes are at revision %d, want 1", got)
	}
	for _, want := range []string{"breaker open by an operator", "model=fraud", "version=v8", "actor=anna", `reason="store is down"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
	// Another change leaves it alone; a reset that finds no order takes it back.
	if _, err := r.weights(by("ben"), map[string]uint32{"v7": 90, "v8": 10}); err != nil {
		t.Fatal(err)
	}
	if b := r.standing("v8").GetBreaker(); !b.GetForced() {
		t.Errorf("after a change of weights the breaker of v8 is %v", b)
	}
	if _, err := r.breaker.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Intent: by("ben"), Model: "fraud", Version: "v8"}); err != nil {
		t.Fatal(err)
	}
	if b := r.standing("v8").GetBreaker(); b.GetState() != "closed" {
		t.Errorf("after the reset the breaker of v8 is %v", b)
	}
}

func because(reason string) func(*adminv1.Intent) {
	return func(in *adminv1.Intent) { in.Reason = reason }
}

func TestWatchTellsEveryChangeOfABreaker(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := r.breaker.WatchBreakers(ctx, &adminv1.WatchBreakersRequest{Model: "fraud"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || len(stream.Msg().GetStanding().GetVersions()) != 3 {
		t.Fatalf("the first answer is %v, %v; want how all stand", stream.Msg(), stream.Err())
	}
	fails(r.guardOf("v8"), "req-17")
	if _, err := r.breaker.ResetBreaker(ctx, &adminv1.ResetBreakerRequest{Intent: by("anna"), Model: "fraud", Version: "v8"}); err != nil {
		t.Fatal(err)
	}
	var told []string
	for len(told) < 2 && stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			told = append(told, fmt.Sprintf("%s %s %s>%s %s %d %s", e.GetModel(), e.GetVersion(), e.GetFrom(), e.GetTo(),
				e.GetCause(), e.GetCounts().GetFailures(), e.GetRequestId()))
		}
	}
	want := "fraud v8 closed>open consecutive failures 5 req-17|fraud v8 open>closed reset 0 "
	if got := strings.Join(told, "|"); got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
	other, err := r.breaker.WatchBreakers(ctx, &adminv1.WatchBreakersRequest{Model: "nope"})
	if err == nil {
		defer other.Close()
		other.Receive()
		err = other.Err()
	}
	if refusalOf(t, err).reason != admin.ReasonModelNotFound {
		t.Errorf("an unknown model: %v", err)
	}
}

// TestWatchOfBreakersSaysWhatItDropped to a caller who does not read: no breaker
// waits for one.
func TestWatchOfBreakersSaysWhatItDropped(t *testing.T) {
	r := newRig(t)
	stream, err := r.breaker.WatchBreakers(t.Context(), &adminv1.WatchBreakersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	g := r.guardOf("v8")
	const each = 50_000 // more than connections buffer
	for range each {
		g.Breaker().ForceOpen(time.Now())
		g.Breaker().Reset(time.Now())
	}
	told, dropped := uint64(0), uint64(0)
	for told+dropped < 2*each && stream.Receive() {
		told += uint64(len(stream.Msg().GetEvents()))
		dropped = stream.Msg().GetDropped()
	}
	if told+dropped != 2*each || dropped == 0 {
		t.Errorf("%d told and %d dropped of %d (%v)", told, dropped, 2*each, stream.Err())
	}
}

// syncBuffer keeps what is logged.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
