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
			if took := time.Since(begun); took > 2*time.Second+500*time.Millisecond { // half a second for a busy machine
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
