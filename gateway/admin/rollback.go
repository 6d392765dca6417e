package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

const (
	// maxRollback bounds how many changes are read to return to a revision: more
	// than a store keeps of them.
	maxRollback = 20_000
	// maxUndone bounds the revisions that an answer lists.
	maxUndone = 100
)

// Rollback undoes the last change or returns to a revision, of one model or of
// all.
func (s *Service) Rollback(ctx context.Context, req *adminv1.RollbackRequest) (*adminv1.RollbackResponse, error) {
	var undone []*routingv1.Change
	outcome, err := s.change(ctx, req.GetIntent(), func(ctx context.Context, at *routing.State) (*routing.Update, error) {
		var err error
		if req.ToRevision != nil {
			undone, err = s.changesSince(ctx, at, req.GetModel(), req.GetToRevision())
		} else {
			undone, err = s.lastChange(ctx, at, req.GetModel())
		}
		if err != nil {
			return nil, err
		}
		return undo(undone, req.GetModel(), at), nil
	})
	if err != nil {
		return nil, failure(err, func(field string) string { return field })
	}
	resp := &adminv1.RollbackResponse{Outcome: outcome}
	for _, c := range undone[:min(len(undone), maxUndone)] {
		resp.Undone = append(resp.Undone, c.GetRevision())
	}
	return resp, nil
}

// undo returns the update that makes routes what they were before changes, which
// are the newest first. An empty model means all routes.
func undo(changes []*routingv1.Change, model string, at *routing.State) *routing.Update {
	before := make(map[string]*routingv1.Route) // by model; nil where there was none
	for _, c := range changes {                 // what an older one found is what counts
		for _, r := range c.GetRoutes() {
			if model == "" || r.GetModel() == model {
				before[r.GetModel()] = r.GetBefore()
			}
		}
	}
	u := new(routing.Update)
	for _, m := range slices.Sorted(maps.Keys(before)) {
		switch {
		case before[m] != nil:
			u.Set = append(u.Set, before[m])
		case at.Routes[m].GetRoute() != nil:
			u.Delete = append(u.Delete, m)
		}
	}
	return u
}

// lastChange returns the change that a rollback without a revision undoes. One
// that changed no route, such as a note of a loss, is passed over.
func (s *Service) lastChange(ctx context.Context, at *routing.State, model string) ([]*routingv1.Change, error) {
	const enough = 10
	found, err := s.cfg.Watcher.History(ctx, routing.HistoryQuery{Model: model, To: at.Revision, Limit: enough})
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		if len(c.GetRoutes()) > 0 {
			return []*routingv1.Change{c}, nil
		}
	}
	if model != "" && at.Routes[model] == nil {
		return nil, &unknownModelError{model}
	}
	return nil, &noHistoryError{fmt.Sprintf("the history has no change%s to undo", ofModel(model))}
}

// changesSince returns the changes after a revision, the newest first.
func (s *Service) changesSince(ctx context.Context, at *routing.State, model string, revision uint64) ([]*routingv1.Change, error) {
	if revision > at.Revision {
		return nil, &noHistoryError{fmt.Sprintf("revision %d does not exist yet: the routing state is at %d", revision, at.Revision)}
	}
	if model != "" && at.Routes[model] == nil {
		return nil, &unknownModelError{model}
	}
	oldest, err := s.cfg.Watcher.History(ctx, routing.HistoryQuery{Limit: 1, OldestFirst: true})
	if err != nil {
		return nil, err
	}
	if len(oldest) > 0 && oldest[0].GetPredecessorRevision() > revision {
		return nil, &noHistoryError{fmt.Sprintf("the history does not reach back to revision %d: its oldest change led to %d",
			revision, oldest[0].GetRevision())}
	}
	return s.cfg.Watcher.History(ctx, routing.HistoryQuery{Model: model, From: revision + 1, To: at.Revision, Limit: maxRollback})
}

func ofModel(model string) string {
	if model == "" {
		return ""
	}
	return fmt.Sprintf(" of model %q", model)
}
