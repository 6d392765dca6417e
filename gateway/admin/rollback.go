package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

const (
	// maxRollback bounds how many changes are read to return to a revision: more
	// than a store keeps of them.
	maxRollback = 20_000
	// rollbackTimeout bounds the reading, which goes page by page: as long as the store
	// answers it may take longer than other questions.
	rollbackTimeout = 8 * time.Second
	// maxUndone bounds the revisions that an answer lists.
	maxUndone = 100
)

// Rollback undoes the last change or returns to a revision, of one model or of
// all. The last change is the one that was last when the request came: of two
// operators who undo it at once, one is told that the other was faster, rather
// than made to undo what that one has done.
func (s *Service) Rollback(ctx context.Context, req *adminv1.RollbackRequest) (*adminv1.RollbackResponse, error) {
	in := req.GetIntent()
	if in != nil && req.ToRevision == nil && in.UnchangedSince == nil && in.ExpectedRevision == nil {
		at := s.cfg.Watcher.Status().Position
		in = proto.CloneOf(in)
		in.UnchangedSince, in.RevisionId = proto.Uint64(at.Revision), at.ID
	}
	var undone *undoing
	var from routing.Position // what it undoes leads to there
	if in != req.GetIntent() {
		req = proto.CloneOf(req)
		req.Intent = in
	}
	outcome, err := s.change(ctx, req, func(ctx context.Context, at *routing.State) (*routing.Update, error) {
		if at.Revision == 0 {
			return nil, s.noRoute(req.GetModel())
		}
		var err error
		if req.ToRevision != nil {
			undone, err = s.changesSince(ctx, at, req.GetModel(), req.GetToRevision())
		} else {
			undone, err = s.lastChange(ctx, at, req.GetModel())
		}
		if err != nil {
			return nil, err
		}
		from = at.Position
		u := undone.update(at)
		u.Rollback = true
		u.Reason = reasonOr(in, undone.note(req.ToRevision))
		return u, nil
	})
	if err != nil {
		return nil, failure(err, func(field string) string { return field })
	}
	if s.cfg.Incidents != nil && !in.GetDryRun() {
		s.cfg.Incidents.BeginRollback(outcome.GetChange())
	}
	resp := &adminv1.RollbackResponse{Outcome: outcome}
	// Of a change that an earlier request with the same key has made, this is not known.
	if c := outcome.GetChange(); undone != nil && (c == nil || c.GetPredecessorRevision() == from.Revision && c.GetPredecessorId() == from.ID) {
		resp.Undone = undone.revisions[:min(len(undone.revisions), maxUndone)]
	}
	return resp, nil
}

// undoing is what routes were before changes.
type undoing struct {
	model     string                      // empty for all
	before    map[string]*routingv1.Route // by model; nil where there was none
	revisions []uint64                    // the newest first
}

func newUndoing(model string) *undoing {
	return &undoing{model: model, before: make(map[string]*routingv1.Route)}
}

// add takes changes, which are older than those before them and the newest first: what an
// older one found is what counts.
func (u *undoing) add(changes ...*routingv1.Change) {
	for _, c := range changes {
		u.revisions = append(u.revisions, c.GetRevision())
		for _, r := range c.GetRoutes() {
			if u.model == "" || r.GetModel() == u.model {
				u.before[r.GetModel()] = r.GetBefore()
			}
		}
	}
}

// update returns what makes the routes so again.
func (u *undoing) update(at *routing.State) *routing.Update {
	update := new(routing.Update)
	for _, m := range slices.Sorted(maps.Keys(u.before)) {
		switch {
		case u.before[m] != nil:
			update.Set = append(update.Set, u.before[m])
		case at.Routes[m].GetRoute() != nil:
			update.Delete = append(update.Delete, m)
		}
	}
	return update
}

// note says what is undone, for who gives no reason.
func (u *undoing) note(to *uint64) string {
	if to != nil {
		return fmt.Sprintf("return to revision %d", *to)
	}
	return fmt.Sprintf("undo of revision %d", u.revisions[0])
}

// lastChange returns the change that a rollback without a revision undoes. One
// that left the routes in question as they were, such as a note of a loss or the
// writing back of what the store had lost, is passed over.
func (s *Service) lastChange(ctx context.Context, at *routing.State, model string) (*undoing, error) {
	const enough = 10
	found, err := s.history(ctx, routing.HistoryQuery{Model: model, To: at.Revision, Limit: enough})
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		if alters(c, model, time.Now()) {
			last := newUndoing(model)
			last.add(c)
			return last, nil
		}
	}
	if model != "" && at.Routes[model] == nil {
		return nil, s.noRoute(model)
	}
	return nil, &noHistoryError{fmt.Sprintf("the history has no change%s to undo", ofModel(model))}
}

// alters reports whether a change makes any difference to the calls of a model, or
// with an empty one to any. Whoever rolls back after a drill is not helped by the undoing
// of a fault that has ended.
func alters(c *routingv1.Change, model string, now time.Time) bool {
	return slices.ContainsFunc(c.GetRoutes(), func(r *routingv1.RouteChange) bool {
		return (model == "" || r.GetModel() == model) &&
			!proto.Equal(withoutEndedFaults(r.GetBefore(), now), withoutEndedFaults(r.GetAfter(), now))
	})
}

// changesSince returns what undoes the changes after a revision. What the routes were at a revision is only known if the history leads through it.
func (s *Service) changesSince(ctx context.Context, at *routing.State, model string, revision uint64) (*undoing, error) {
	if revision > at.Revision {
		return nil, &noHistoryError{fmt.Sprintf("revision %d does not exist yet: the routing state is at %d", revision, at.Revision)}
	}
	if model != "" && at.Routes[model] == nil {
		return nil, s.noRoute(model)
	}
	if err := s.isInHistory(ctx, revision, at.Revision); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	since := newUndoing(model)
	for to := at.Revision; to > revision && len(since.revisions) < maxRollback; {
		page, err := s.history(ctx, routing.HistoryQuery{Model: model, From: revision + 1, To: to, Limit: maxHistory, Bytes: maxHistoryBytes})
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		since.add(page...)
		to = page[len(page)-1].GetRevision() - 1
	}
	return since, nil
}

// isInHistory returns an error unless the history that leads to the current
// revision leads through another one: that may be too old, or the store has lost
// it, and a later change says so.
func (s *Service) isInHistory(ctx context.Context, revision, current uint64) error {
	if revision == current {
		return nil
	}
	found, err := s.history(ctx, routing.HistoryQuery{From: revision, Limit: 2, OldestFirst: true})
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return &noHistoryError{fmt.Sprintf("the history does not reach back to revision %d: it is empty", revision)}
	}
	next := found[0]
	if next.GetRevision() == revision && len(found) > 1 {
		next = found[1]
	}
	if next.GetPredecessorRevision() == revision {
		return nil
	}
	older, err := s.history(ctx, routing.HistoryQuery{To: revision, Limit: 1})
	if err != nil {
		return err
	}
	switch {
	case len(next.GetLost()) > 0:
		return &noHistoryError{fmt.Sprintf("the store has lost revision %d, as revision %d says: the one before that is %d",
			revision, next.GetRevision(), next.GetPredecessorRevision())}
	case len(older) == 0:
		return &noHistoryError{fmt.Sprintf("the history does not reach back to revision %d: its oldest change led to %d",
			revision, next.GetRevision())}
	default:
		return &noHistoryError{fmt.Sprintf("the history has no revision %d: %d is followed by %d",
			revision, older[0].GetRevision(), next.GetRevision())}
	}
}

func ofModel(model string) string {
	if model == "" {
		return ""
	}
	return fmt.Sprintf(" of model %q", model)
}
