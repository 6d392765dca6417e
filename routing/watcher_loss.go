package routing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// The actors of changes that no person made.
const (
	ActorFile     = "file"     // the file of routes
	ActorFailover = "failover" // a gateway whose store had lost changes
)

// reconcile brings the published state in line with a loaded one. A store that
// is empty is seeded if nothing was ever published, and otherwise left alone. One
// that was emptied and then seeded by another gateway is overruled. A
// store whose history has parted from what was published has lost changes: that
// is written into the history before it is followed.
func (w *Watcher) reconcile(ctx context.Context, s *State) error {
	local := w.position()
	switch {
	case s.Revision == 0 && local.Revision == 0:
		return w.seed(ctx, s)
	case s.Revision == 0:
		w.noteVanished()
		return nil
	case local.Revision == 0 && len(s.Document().GetRoutes()) == 0 && s.Removed+len(s.Unreadable) > 0:
		return fmt.Errorf("%s is damaged: all its %d entries were removed or cannot be read",
			w.cfg.Store, s.Removed+len(s.Unreadable))
	case local.Revision == 0 || local == s.Position:
		return w.takeFirst(ctx, s)
	}
	seeded, err := w.isOnlySeeded(ctx, s, local)
	if err != nil {
		return err
	}
	if seeded {
		return w.overrule(ctx, s, local)
	}
	lost, err := w.lostSince(ctx, local, s)
	if err != nil {
		return err
	}
	if len(lost) == 0 {
		return w.takeFirst(ctx, s)
	}
	named, err := w.isNamed(ctx, local)
	switch {
	case err != nil:
		return err
	case named && s.Revision <= local.Revision:
		return w.loadAgain(ctx) // what names it was written after s was read
	case !named:
		if err := w.beginEpoch(ctx, s, local, lost); err != nil {
			return err
		}
	}
	w.acceptLoss(s, local, lost)
	return w.takeFirst(ctx, s)
}

// isOnlySeeded reports whether all that a state comes from is a file of routes, and
// not in a change that what is served here comes from too. The store had then lost
// everything, and a gateway that knew nothing of it found it empty.
func (w *Watcher) isOnlySeeded(ctx context.Context, s *State, local Position) (bool, error) {
	for _, c := range w.remembered(local) {
		if c.GetId() == s.ID {
			return false, nil // it went back to the seed, as in a failover
		}
	}
	last, err := w.cfg.Store.History(ctx, HistoryQuery{From: s.Revision, To: s.Revision, Limit: 1})
	if err != nil || len(last) == 0 {
		return false, err
	}
	c := last[0]
	return c.GetId() == s.ID && c.GetActor() == ActorFile && c.GetPredecessorRevision() == 0, nil
}

// overrule replaces what a store was seeded with by what is served here, in a new
// epoch, so that all gateways agree again.
func (w *Watcher) overrule(ctx context.Context, s *State, local Position) error {
	u := UpdateTo(w.State().Document(), s)
	u.Delete = append(u.Delete, w.tombstonesUnknownTo(s)...)
	u.Actor, u.Restore = ActorFailover, true
	u.Reason = fmt.Sprintf("the store had lost its routing state and was seeded anew; written back as served at revision %d", local.Revision)
	u.NewEpoch = &NewEpoch{Above: local, Lost: namesOf(w.remembered(local))}
	c, err := w.cfg.Store.Update(ctx, u)
	var faster *ConflictError
	if errors.As(err, &faster) {
		return w.loadAgain(ctx) // another gateway has done it
	}
	if err != nil {
		return fmt.Errorf("the store had lost its routing state and was seeded anew, and revision %d cannot be written back: %w",
			local.Revision, err)
	}
	w.cfg.Logger.Error("the store had lost its routing state and was seeded anew; what is served here is written back",
		"store", w.cfg.Store.String(), "served", local.Revision, "revision", c.GetRevision())
	s.Apply(c)
	w.mu.Lock()
	w.recent = ring{} // it led to where nobody is any more
	w.recent.add(c)
	w.mu.Unlock()
	return w.takeFirst(ctx, s)
}

// tombstonesUnknownTo returns the deleted models that a state does not mention.
func (w *Watcher) tombstonesUnknownTo(s *State) []string {
	var models []string
	for model, entry := range w.State().Routes {
		if entry.GetRoute() == nil && s.Routes[model] == nil {
			models = append(models, model)
		}
	}
	slices.Sort(models)
	return models
}

// acceptLoss keeps the documents of lost changes, which the store's history names,
// and tells of them.
func (w *Watcher) acceptLoss(s *State, local Position, lost []*routingv1.Change) {
	w.cfg.Logger.Error("the store has lost changes that it had acknowledged", "store", w.cfg.Store.String(),
		"published", local.Revision, "store_revision", s.Revision, "lost", len(lost))
	w.keepLost(lost)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.LostChanges += uint64(len(lost))
	w.recent = ring{} // it led to where nobody is any more
}

func (w *Watcher) position() Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.local.Position
}

// takeFirst publishes a state, and compares the first one with the file of
// routes.
func (w *Watcher) takeFirst(ctx context.Context, s *State) error {
	begins := w.position().Revision == 0
	if err := w.take(s); err != nil {
		return err
	}
	if begins {
		w.withholdParts(ctx, s)
	}
	w.compareSeed()
	return nil
}

// noteVanished remembers that the store is empty, which is no reason to stop
// serving.
func (w *Watcher) noteVanished() {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := !w.vanished()
	w.storeAt, w.known = Position{}, true
	for model := range w.local.Routes {
		w.orphans[model] = true
	}
	if news {
		w.cfg.Logger.Error("the store has lost its routing state, the last good one stays",
			"store", w.cfg.Store.String(), "revision", w.local.Revision)
	}
}

// lostSince returns the changes up to the local position that the store does not
// have, the oldest first. It returns none where the store's history continues
// from the local position, or does not reach back far enough to tell.
func (w *Watcher) lostSince(ctx context.Context, local Position, s *State) ([]*routingv1.Change, error) {
	if s.Revision >= local.Revision {
		parted, err := w.hasParted(ctx, local)
		if err != nil || !parted {
			return nil, err
		}
	}
	recent := w.remembered(local)
	kept, err := w.cfg.Store.History(ctx, HistoryQuery{
		From: recent[0].GetRevision(), To: local.Revision, Limit: int(local.Revision-recent[0].GetRevision()) + 1,
	})
	if err != nil {
		return nil, err
	}
	ids := make(map[string]bool, len(kept))
	for _, c := range kept {
		ids[c.GetId()] = true
	}
	return slices.DeleteFunc(recent, func(c *routingv1.Change) bool { return ids[c.GetId()] }), nil
}

// hasParted reports whether the store's history does not lead through a
// position.
func (w *Watcher) hasParted(ctx context.Context, p Position) (bool, error) {
	next, err := w.cfg.Store.History(ctx, HistoryQuery{From: p.Revision, Limit: 1, OldestFirst: true})
	if err != nil || len(next) == 0 {
		return false, err
	}
	switch c := next[0]; {
	case c.GetRevision() == p.Revision:
		return c.GetId() != p.ID, nil
	case c.GetPredecessorRevision() > p.Revision:
		return false, nil // the history begins later: there is no telling
	default:
		return c.GetPredecessorRevision() != p.Revision || c.GetPredecessorId() != p.ID, nil
	}
}

// isNamed reports whether another gateway has written into the history that the
// change leading to a position is lost. Whoever knew that one knew those before.
func (w *Watcher) isNamed(ctx context.Context, p Position) (bool, error) {
	const far = 1000
	since, err := w.cfg.Store.History(ctx, HistoryQuery{From: p.Revision + 1, Limit: far, OldestFirst: true})
	if err != nil {
		return false, err
	}
	for _, c := range since {
		if slices.ContainsFunc(c.GetLost(), func(l *routingv1.LostChange) bool { return l.GetId() == p.ID }) {
			return true, nil
		}
	}
	return false, nil
}

// recentUpTo returns the changes that led to the local position, as far as they
// are remembered, the oldest first; at least one that stands for the position.
// w.mu is held.
func (w *Watcher) recentUpTo(local Position) []*routingv1.Change {
	recent := w.recent.all()
	if len(recent) == 0 || recent[len(recent)-1].GetId() != local.ID {
		recent = append(recent, &routingv1.Change{Revision: local.Revision, Id: local.ID, Epoch: local.Epoch})
	}
	return recent
}

func (w *Watcher) remembered(local Position) []*routingv1.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.recentUpTo(local)
}

// beginEpoch writes the loss into the store's history, above every revision seen,
// and makes s the state after that. Where the store has passed the local position
// by itself, it can be followed even if it refuses to be written to.
func (w *Watcher) beginEpoch(ctx context.Context, s *State, local Position, lost []*routingv1.Change) error {
	c, err := w.cfg.Store.Update(ctx, &Update{
		Expected:   s.Revision,
		ExpectedID: s.ID,
		Actor:      ActorFailover,
		Reason: fmt.Sprintf("the store came back at revision %d and lost %d changes up to revision %d; its documents are kept",
			s.Revision, len(lost), local.Revision),
		NewEpoch: &NewEpoch{Above: local, Lost: namesOf(lost)},
	})
	var refused *RefusedError
	if errors.As(err, &refused) && s.Revision > local.Revision {
		w.cfg.Logger.Warn("the loss cannot be written into the store's history", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("the store went back from revision %d to %d, and a new epoch cannot be written: %w",
			local.Revision, s.Revision, err)
	}
	s.Apply(c)
	return nil
}

// namesOf returns what a history says of lost changes.
func namesOf(lost []*routingv1.Change) []*routingv1.LostChange {
	var names []*routingv1.LostChange
	for _, c := range lost {
		l := &routingv1.LostChange{
			Revision: c.GetRevision(), Id: c.GetId(), Time: c.GetTime(), Actor: c.GetActor(), Reason: c.GetReason(),
		}
		for _, r := range c.GetRoutes() {
			l.Models = append(l.Models, r.GetModel())
		}
		names = append(names, l)
	}
	return names
}

// keepLost leaves the documents of lost changes beside the cache, as a file that
// can be applied again.
func (w *Watcher) keepLost(lost []*routingv1.Change) {
	last := make(map[string]*routingv1.Route)
	for _, c := range lost {
		for _, r := range c.GetRoutes() {
			last[r.GetModel()] = r.GetAfter()
		}
	}
	doc := new(routingv1.Document)
	for _, model := range slices.Sorted(maps.Keys(last)) {
		if last[model] != nil {
			doc.Routes = append(doc.Routes, last[model])
		}
	}
	if w.cache == nil || len(doc.GetRoutes()) == 0 {
		return
	}
	name, err := w.cache.saveLost(doc, lost[len(lost)-1])
	if err != nil {
		w.cfg.Logger.Error("the documents of lost changes cannot be kept", "error", err)
		return
	}
	w.cfg.Logger.Warn("the documents of lost changes are kept", "file", name)
}
