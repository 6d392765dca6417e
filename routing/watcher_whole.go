package routing

import (
	"context"
	"fmt"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// A change is served whole or not at all, also where it is not seen as a change but as
// the entries it left behind, which carry its revision: two routes may have been changed
// together because one takes over what the other had.

// partsOf returns why entries of a state are not served although they are good in
// themselves: they came with a document that is refused. w.mu is held.
func (w *Watcher) partsOf(s *State, refused map[string]error) map[string]error {
	if len(refused) == 0 || w.local.Revision == 0 {
		return nil
	}
	bad := make(map[uint64]string)
	for model := range refused {
		if r := s.Routes[model].GetRevision(); bad[r] == "" || model < bad[r] {
			bad[r] = model
		}
	}
	parts := make(map[string]error)
	for model, entry := range s.Routes {
		if with := bad[entry.GetRevision()]; with != "" && refused[model] == nil && w.local.Routes[model].GetRevision() != entry.GetRevision() {
			parts[model] = partError(with)
		}
	}
	return parts
}

func partError(with string) error {
	return fmt.Errorf("it was changed together with model %s, whose document is refused", quote(with))
}

// withholdParts does the same for a gateway that has just begun to serve and has no last
// good documents: those that were there before come from the history. Of a change that
// the history has no more, and of the first one, before which there was nothing, the
// documents that are good stay.
func (w *Watcher) withholdParts(ctx context.Context, s *State) {
	for revision, with := range w.refusedBy(s) {
		found, err := w.cfg.Store.History(ctx, HistoryQuery{From: revision, To: revision, Limit: 1})
		switch {
		case err != nil:
			w.cfg.Logger.Warn("what was there before a refused change cannot be read", "revision", revision, "error", err)
		case len(found) > 0 && found[0].GetPredecessorRevision() > 0:
			if err := w.putBack(s, found[0], with); err != nil {
				w.cfg.Logger.Warn("what was there before a refused change cannot be served", "revision", revision, "error", err)
			}
		}
	}
}

// refusedBy returns the revisions of which a document is refused, and its model.
func (w *Watcher) refusedBy(s *State) map[uint64]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := make(map[uint64]string)
	for model := range w.refused {
		if entry := s.Routes[model]; entry != nil && (by[entry.GetRevision()] == "" || model < by[entry.GetRevision()]) {
			by[entry.GetRevision()] = model
		}
	}
	return by
}

// putBack publishes what was there before a change, of the entries that are still as
// that change left them.
func (w *Watcher) putBack(s *State, c *routingv1.Change, with string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.local.Position != s.Position {
		return nil // another change has come, and with it another look
	}
	changed := make(map[string]*Route)
	var before []*routingv1.Route
	for _, r := range c.GetRoutes() {
		model := r.GetModel()
		if s.Routes[model].GetRevision() != c.GetRevision() {
			continue
		}
		changed[model] = nil
		if r.GetBefore() != nil {
			before = append(before, r.GetBefore())
		}
		if _, known := w.refused[model]; !known {
			w.refuse(model, c.GetRevision(), partError(with))
		}
		delete(w.local.Routes, model)
	}
	current := w.cfg.Router.Current()
	built, _, err := assemble(before, current.with(changed, current.Revision()))
	if err != nil {
		return err
	}
	for _, doc := range before {
		if r := built[doc.GetModel()]; r != nil {
			changed[r.Model] = r
			w.local.Routes[r.Model] = &routingv1.StoredRoute{Model: r.Model, Route: doc, Revision: c.GetPredecessorRevision()}
		}
	}
	w.publish(changed)
	return nil
}
