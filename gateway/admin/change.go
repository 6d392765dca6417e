package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

const (
	// changeTimeout bounds what an operator waits for an answer, whatever fails;
	// checking the documents of many routes comes on top.
	changeTimeout = 1900 * time.Millisecond
	// catchUpTimeout bounds the wait for a revision that this gateway has not seen
	// yet: changes reach it within half a second.
	catchUpTimeout = 700 * time.Millisecond
	catchUpPoll    = 2 * time.Millisecond
)

// edit computes what a change sets and deletes in a state, and its reason; nothing else of
// the update is its business.
type edit func(ctx context.Context, at *routing.State) (*routing.Update, error)

// request is one for a change.
type request interface {
	proto.Message
	GetIntent() *adminv1.Intent
}

// digestOf tells a request with a key from others with the same: all of it counts but what
// a repetition may say otherwise, which are the conditions and the key itself.
func digestOf(req request) ([]byte, error) {
	if req.GetIntent().GetRequestKey() == "" {
		return nil, nil
	}
	bare := proto.CloneOf(req)
	in := bare.GetIntent()
	in.ExpectedRevision, in.UnchangedSince, in.RevisionId, in.RequestKey, in.DryRun = nil, nil, "", "", false
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte(bare.ProtoReflect().Descriptor().FullName()+"\n"), text...))
	return sum[:], nil
}

// change makes one change, or in a dry run says what it would be. Without
// conditions in the intent, a race lost to another operator is run again.
func (s *Service) change(ctx context.Context, req request, e edit) (*adminv1.Outcome, error) {
	in := req.GetIntent()
	if in == nil {
		in = new(adminv1.Intent) // refused below, for it names no actor
	}
	digest, err := digestOf(req)
	if err != nil {
		return nil, err
	}
	if err := checkActor(in.GetActor()); err != nil {
		return nil, err
	}
	begun := time.Now()
	for {
		outcome, err := s.try(ctx, in, digest, e)
		if err != nil && !errors.Is(err, routing.ErrUnchanged) {
			outcome, err = s.madeBefore(ctx, in, digest, err)
		}
		if errors.Is(err, routing.ErrUnchanged) {
			return s.outcome(nil), nil
		}
		if err == nil {
			return outcome, nil
		}
		var conflict *routing.ConflictError
		if !errors.As(err, &conflict) || in.ExpectedRevision != nil || time.Since(begun) > changeTimeout || !s.catchUp(ctx, conflict.Current) {
			return nil, err
		}
	}
}

// checkActor keeps people from signing as Sluice does: what a file or a failover
// has written is judged by that.
func checkActor(actor string) error {
	if actor == routing.ActorFile || actor == routing.ActorFailover {
		return &routing.FieldError{Field: "actor", Got: fmt.Sprintf("%q", actor),
			Want: fmt.Sprintf("a name that sluice does not sign with itself (%s, %s)", routing.ActorFile, routing.ActorFailover)}
	}
	return nil
}

// try makes the change to the state that is served now.
func (s *Service) try(ctx context.Context, in *adminv1.Intent, digest []byte, e edit) (*adminv1.Outcome, error) {
	s.catchUp(ctx, max(in.GetExpectedRevision(), in.GetUnchangedSince()))
	at := s.cfg.Watcher.State()
	if err := s.checkExpected(ctx, in, at); err != nil {
		return nil, err
	}
	u, err := e(ctx, at)
	if err != nil {
		return nil, err
	}
	u.Expected, u.ExpectedID = at.Revision, at.ID
	u.Actor, u.RequestKey, u.RequestDigest = in.GetActor(), in.GetRequestKey(), digest
	if err := u.Validate(); err != nil {
		return nil, err
	}
	leaveOutEndedFaults(u, at, time.Now())
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	would, err := u.Prepare(at, time.Now())
	if errors.Is(err, routing.ErrUnchanged) && !in.GetDryRun() {
		// What is served here may be old: only the store can say that the routes are so already.
		// It has to remember that, too, for the key.
		_, err = s.cfg.Watcher.Update(ctx, u)
	}
	if err != nil {
		return nil, err
	}
	if err := s.checkUnchanged(ctx, in, at, would); err != nil {
		return nil, err
	}
	warnings, overruled, err := s.guard(ctx, would, in.GetForce())
	if err != nil {
		return nil, err
	}
	if in.GetDryRun() {
		would.Id, would.Time, would.Forced = "", nil, overruled
		return &adminv1.Outcome{Change: would, Revision: at.Revision, RevisionId: at.ID, Warnings: warnings}, nil
	}
	u.Forced = overruled
	made, err := s.cfg.Watcher.Update(ctx, u)
	if err != nil {
		return nil, err
	}
	outcome := s.outcome(made)
	outcome.Warnings = warnings
	return outcome, nil
}

// checkExpected compares the whole state with what the caller has looked at.
func (s *Service) checkExpected(ctx context.Context, in *adminv1.Intent, at *routing.State) error {
	switch id := in.GetRevisionId(); {
	case in.ExpectedRevision == nil:
		return nil
	case in.GetExpectedRevision() != at.Revision:
		return s.overtaken(ctx, "", in.GetExpectedRevision(), at.Revision)
	case id != "" && id != at.ID && in.UnchangedSince == nil:
		return &lostError{at.Revision}
	}
	return nil
}

// checkUnchanged compares the routes that would change with what the caller has
// looked at.
func (s *Service) checkUnchanged(ctx context.Context, in *adminv1.Intent, at *routing.State, would *routingv1.Change) error {
	if in.UnchangedSince == nil {
		return nil
	}
	since := in.GetUnchangedSince()
	if since > at.Revision {
		return s.overtaken(ctx, "", since, at.Revision)
	}
	for _, r := range would.GetRoutes() {
		if at.Routes[r.GetModel()].GetRevision() > since {
			return s.overtaken(ctx, r.GetModel(), since, at.Revision)
		}
	}
	return s.checkSame(ctx, in, at)
}

// checkSame makes sure that what the caller has looked at belongs to the history that
// leads here: of one that was lost, the numbers are used again.
func (s *Service) checkSame(ctx context.Context, in *adminv1.Intent, at *routing.State) error {
	since, id := in.GetUnchangedSince(), in.GetRevisionId()
	switch {
	case id == "" || since == at.Revision && id == at.ID:
		return nil
	case since == at.Revision:
		return &lostError{since}
	}
	found, err := s.history(ctx, routing.HistoryQuery{From: since, To: since, Limit: 1, Documents: 1})
	if err != nil {
		return err
	}
	if len(found) == 0 || found[0].GetId() != id {
		return &lostError{since}
	}
	return nil
}

// lostError says that a revision is not, or not known to be, the one that the caller has
// looked at.
type lostError struct{ revision uint64 }

// Error says what may have become of it.
func (e *lostError) Error() string {
	return fmt.Sprintf("revision %d is not the one that was looked at: the store has lost that one, or its history does not reach back to it", e.revision)
}

// overtakenError says that the condition of an intent does not hold: unlike after
// a conflict in the store, trying again is for the caller to decide.
type overtakenError struct {
	expected, current uint64
	model             string            // empty for the whole state
	winner            *routingv1.Change // that came first; nil if it is not known
}

// Error names the change that came first.
func (e *overtakenError) Error() string {
	if e.expected > e.current {
		return fmt.Sprintf("this gateway has not seen revision %d yet, it is at %d", e.expected, e.current)
	}
	what := "the routing state"
	if e.model != "" {
		what = fmt.Sprintf("model %q", e.model)
	}
	if e.winner == nil {
		return fmt.Sprintf("%s has changed since revision %d, it is now %d", what, e.expected, e.current)
	}
	text := fmt.Sprintf("%s was faster: %s has changed since revision %d, with revision %d",
		e.winner.GetActor(), what, e.expected, e.winner.GetRevision())
	if e.winner.GetReason() != "" {
		text += fmt.Sprintf(" (%s)", e.winner.GetReason())
	}
	return text
}

// overtaken finds out who was faster, if the store tells.
func (s *Service) overtaken(ctx context.Context, model string, expected, current uint64) error {
	e := &overtakenError{expected: expected, current: current, model: model}
	if expected < current {
		last, err := s.history(ctx, routing.HistoryQuery{Model: model, From: expected + 1, Limit: 1, Documents: 1})
		if err == nil && len(last) > 0 {
			e.winner = last[0]
		}
	}
	return e
}

// madeBefore returns the answer to an earlier request with the intent's key, or else the
// failure: whatever fails now, it has succeeded then. A store looks for the key before all
// else, so an update to a revision that never comes finds the answer or meets a conflict.
// While the store cannot say, the failure is not told, for it would mean that nothing was
// made: only that the store is not there.
func (s *Service) madeBefore(ctx context.Context, in *adminv1.Intent, digest []byte, failure error) (*adminv1.Outcome, error) {
	var unavailable *routing.UnavailableError
	if in.GetRequestKey() == "" || in.GetDryRun() || errors.As(failure, &unavailable) {
		return nil, failure
	}
	made, err := s.cfg.Watcher.Update(ctx, &routing.Update{
		Expected: math.MaxUint64, RequestKey: in.GetRequestKey(), RequestDigest: digest, Actor: in.GetActor(),
	})
	var unknown *routing.ConflictError
	switch {
	case err == nil:
		return s.outcome(made), nil
	case errors.As(err, &unknown):
		return nil, failure
	default: // also ErrUnchanged, and a key with which something else was asked
		return nil, err
	}
}

// outcome tells of a change that was made, and where it has led to: what came after that, its
// actor has not looked at. Nil tells that there was nothing to change where the state is now.
func (s *Service) outcome(made *routingv1.Change) *adminv1.Outcome {
	at := s.cfg.Watcher.Status().Position
	if made != nil {
		at = routing.PositionAfter(made)
	}
	return &adminv1.Outcome{Change: made, Revision: at.Revision, RevisionId: at.ID}
}

func (s *Service) revision() uint64 { return s.cfg.Router.Current().Revision() }

// catchUp waits until a revision is served here, but not for long.
func (s *Service) catchUp(ctx context.Context, revision uint64) bool {
	if s.revision() >= revision {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	tick := time.NewTicker(catchUpPoll)
	defer tick.Stop()
	for s.revision() < revision {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// routeOf returns a copy of what a state says of a model.
func (s *Service) routeOf(at *routing.State, model string) (*routingv1.Route, error) {
	if model == "" {
		return nil, &routing.FieldError{Field: "model", Got: "nothing", Want: "the name of a model that has a route"}
	}
	route := at.Routes[model].GetRoute()
	if route == nil {
		return nil, s.noRoute(model)
	}
	return proto.CloneOf(route), nil
}
