package admin_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// brokenState is a state whose store fails while an error is set.
type brokenState struct {
	admin.Watcher
	err  atomic.Pointer[error]
	slow time.Duration // before it fails
}

func (b *brokenState) set(err error) { b.err.Store(&err) }

func (b *brokenState) failure() error {
	if e := b.err.Load(); e != nil {
		return *e
	}
	return nil
}

func (b *brokenState) Status() routing.Status {
	s := b.Watcher.Status()
	s.Err = b.failure()
	return s
}

func (b *brokenState) Update(ctx context.Context, u *routing.Update) (*routingv1.Change, error) {
	if err := b.failure(); err != nil {
		select {
		case <-time.After(b.slow):
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return b.Watcher.Update(ctx, u)
}

func (b *brokenState) History(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	if err := b.failure(); err != nil {
		return nil, err
	}
	return b.Watcher.History(ctx, q)
}

// TestFailuresOfTheStore: each has its own code and reason, comes within 2 s, and
// leaves the routes as they are.
func TestFailuresOfTheStore(t *testing.T) {
	cause := errors.New("connection refused")
	for _, test := range []struct {
		name   string
		err    error
		slow   time.Duration
		code   connect.Code
		reason string
		text   string
	}{
		{"down", &routing.UnavailableError{Store: "redis://r", Err: cause}, 0,
			connect.CodeUnavailable, admin.ReasonStoreUnavailable, "redis://r is not available"},
		{"gone in between", &routing.UnavailableError{Store: "redis://r", Unknown: true, Err: cause}, 0,
			connect.CodeUnavailable, admin.ReasonOutcomeUnknown, "may or may not have been made"},
		{"refusing", &routing.RefusedError{Store: "redis://r", Reason: "READONLY", Err: cause, Hint: "a replica"}, 0,
			connect.CodeFailedPrecondition, admin.ReasonStoreRefused, "a replica"},
		{"hung", cause, time.Hour, connect.CodeUnavailable, admin.ReasonStoreUnavailable, "did not answer in time"},
		{"overtaken over and over", &routing.ConflictError{Expected: 1, Current: 2}, 0, connect.CodeAborted, admin.ReasonConflict, "conflict"},
		{"broken", cause, 0, connect.CodeInternal, "", "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			broken := &brokenState{slow: test.slow}
			r := newRig(t, func(c *admin.Config) { broken.Watcher = c.Watcher; c.Watcher = broken })
			broken.set(test.err)
			begun := time.Now()
			got := refusalOf(t, second(r.weights(by("anna"), map[string]uint32{"v7": 1})))
			if got.code != test.code || got.reason != test.reason || !strings.Contains(got.text, test.text) {
				t.Errorf("got %+v, want %v, %s and %q", got, test.code, test.reason, test.text)
			}
			if took := time.Since(begun); took > 2*time.Second+3*time.Second { // some of it for a busy machine; a hung store takes an hour
				t.Errorf("it took %v", took)
			}
			if r.split()["v7"] != 95 {
				t.Errorf("split %v, want it as it was", r.split())
			}
			if _, err := r.client.Get(t.Context(), &adminv1.GetRequest{}); err != nil {
				t.Errorf("Get meanwhile: %v", err)
			}
		})
	}
}

// TestNobodyIsToldOfAConflictWithThemselves: a change was made, its answer was lost, and
// somebody else has made the next one. While the store cannot say what became of the request,
// whoever repeats it does not hear that it lost.
func TestNobodyIsToldOfAConflictWithThemselves(t *testing.T) {
	broken := new(brokenState)
	r := newRig(t, func(c *admin.Config) { broken.Watcher = c.Watcher; c.Watcher = broken })
	made := r.must(r.weights(by("anna", key("k1"), expecting(1)), map[string]uint32{"v7": 1}))
	r.must(r.weights(by("berta"), map[string]uint32{"v8": 1}))

	broken.set(&routing.UnavailableError{Store: "redis://r", Err: errors.New("connection refused")})
	for name, repeated := range map[string]struct {
		intent *adminv1.Intent
		split  map[string]uint32
	}{
		"the state has moved on":              {by("anna", key("k1"), expecting(1)), map[string]uint32{"v7": 1}},
		"the route has":                       {by("anna", key("k1"), since(1)), map[string]uint32{"v7": 1}},
		"nothing can be reached there by now": {by("anna", key("k1")), map[string]uint32{"v9": 1}},
	} {
		if got := refusalOf(t, second(r.weights(repeated.intent, repeated.split))); got.reason != admin.ReasonStoreUnavailable {
			t.Errorf("%s: %+v, want %s", name, got, admin.ReasonStoreUnavailable)
		}
	}
	if got := refusalOf(t, second(r.weights(by("carl", expecting(1)), map[string]uint32{"v7": 1}))); got.reason != admin.ReasonConflict {
		t.Errorf("without a key: %+v, want %s", got, admin.ReasonConflict)
	}

	broken.err.Store(nil)
	again := r.must(r.weights(by("anna", key("k1"), expecting(1)), map[string]uint32{"v7": 1}))
	if again.GetChange().GetId() != made.GetChange().GetId() {
		t.Errorf("repeated: %v, want the change of revision %d", again, made.GetChange().GetRevision())
	}
	if got := refusalOf(t, second(r.weights(by("carl", key("k2"), expecting(1)), map[string]uint32{"v7": 1}))); got.reason != admin.ReasonConflict {
		t.Errorf("a key that the store does not know: %+v, want %s", got, admin.ReasonConflict)
	}
}

// stateless is a gateway that has not heard of its store yet.
type stateless struct {
	admin.Watcher
	problem error
}

func (s *stateless) Status() routing.Status { return routing.Status{Err: s.problem} }

func (s *stateless) State() *routing.State { return routing.StateOf(nil) }

func (s *stateless) Entry(string) (*routingv1.StoredRoute, uint64, bool) { return nil, 0, false }

// TestWithoutStateNothingIsSaidOfModels: that there is no route is one thing, that
// the gateway knows of none another.
func TestWithoutStateNothingIsSaidOfModels(t *testing.T) {
	for problem, want := range map[error]string{
		errors.New("redis://r is not available"): "this gateway has no routing state yet: redis://r is not available",
		nil:                                      "there are no routes yet",
	} {
		r := newRig(t, func(c *admin.Config) { c.Watcher, c.Router = &stateless{c.Watcher, problem}, routing.NewRouter() })
		ctx, to := t.Context(), uint64(3)
		for name, err := range map[string]error{
			"weights":      second(r.weights(by("anna"), map[string]uint32{"v7": 1})),
			"promote":      second(r.client.Promote(ctx, &adminv1.PromoteRequest{Intent: by("anna"), Model: "fraud", Version: "v7"})),
			"rollback":     second(r.rollback("fraud", -1)),
			"rollback all": second(r.rollback("", int(to))),
			"delete":       second(r.client.Apply(ctx, &adminv1.ApplyRequest{Intent: by("anna"), Delete: []string{"fraud"}})),
			"get":          second(r.client.Get(ctx, &adminv1.GetRequest{Model: "fraud"})),
			"explain":      second(r.client.Explain(ctx, &adminv1.ExplainRequest{Model: "fraud"})),
			"status":       second(r.client.Status(ctx, &adminv1.StatusRequest{Model: "fraud"})),
		} {
			if got := refusalOf(t, err); got.code != connect.CodeUnavailable || got.reason != admin.ReasonNoState || !strings.Contains(got.text, want) {
				t.Errorf("%s: %+v, want %s and %q", name, got, admin.ReasonNoState, want)
			}
		}
		if _, err := r.client.Get(ctx, &adminv1.GetRequest{}); (err == nil) != (problem == nil) {
			t.Errorf("get of all routes: %v; none are an answer only if the store says so", err)
		}
		if _, err := r.client.Status(ctx, &adminv1.StatusRequest{}); err != nil {
			t.Errorf("status: %v", err)
		}
	}
}

// TestNamesOfSluiceAreReserved: a change by "file" or "failover" is judged by that.
func TestNamesOfSluiceAreReserved(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{routing.ActorFile, routing.ActorFailover} {
		got := refusalOf(t, second(r.weights(by(name), map[string]uint32{"v7": 1})))
		if got.reason != admin.ReasonInvalid || len(got.fields) != 1 || got.fields[0].GetField() != "intent.actor" {
			t.Errorf("by %s: %+v, want the actor refused", name, got)
		}
	}
}
