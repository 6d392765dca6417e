package routing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// publishTimeout bounds the wait for a change to be published here that has been
// made, historyTimeout that for the store's history.
const (
	publishTimeout = 400 * time.Millisecond
	historyTimeout = 2 * time.Second
)

// Update makes one change in the store and returns once it is published here, or
// shortly after if that takes long. It fails within 2 s when the store is gone.
// Errors are those of [Store.Update].
//
// If the store has lost routes that are still served here, they are written back
// first, as a change of their own by the actor "failover"; the update is then
// made to the state it was meant for.
func (w *Watcher) Update(ctx context.Context, u *Update) (*routingv1.Change, error) {
	c, err := w.update(ctx, u)
	if err != nil {
		w.counted(OpUpdate, err)
		return nil, err
	}
	w.await(ctx, c.GetRevision())
	return c, nil
}

// update restores and makes the change; again if the store turns out to have lost
// something that has not been noticed here, which has to be dealt with first.
func (w *Watcher) update(ctx context.Context, u *Update) (*routingv1.Change, error) {
	c, err := w.restoreAndUpdate(ctx, u)
	if !errors.Is(err, ErrGap) && !w.isBehind(err) {
		return c, err
	}
	if err := w.reload(ctx); err != nil {
		return nil, err
	}
	return w.restoreAndUpdate(ctx, u)
}

// isBehind reports whether an update has failed because the store is at a lower
// revision than what is served here.
func (w *Watcher) isBehind(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict) && conflict.Current < w.position().Revision
}

func (w *Watcher) restoreAndUpdate(ctx context.Context, u *Update) (*routingv1.Change, error) {
	u, err := w.restore(ctx, u)
	if err != nil {
		return nil, err
	}
	return w.cfg.Store.Update(ctx, u)
}

// History returns changes from the store.
func (w *Watcher) History(ctx context.Context, q HistoryQuery) ([]*routingv1.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	found, err := w.cfg.Store.History(ctx, q)
	w.counted(OpHistory, err)
	return found, err
}

// Shelf returns a shelf of the store.
func (w *Watcher) Shelf(name string) Shelf { return w.cfg.Store.Shelf(name) }

// restore writes back what the store has lost, if the update was made for what
// is served here, and returns an update for the state after that.
func (w *Watcher) restore(ctx context.Context, u *Update) (*Update, error) {
	back := w.restoration(u)
	if back == nil {
		return u, nil
	}
	if err := u.Validate(); err != nil {
		return nil, err
	}
	c, err := w.cfg.Store.Update(ctx, back)
	var taken *FieldError
	if errors.As(err, &taken) {
		// A route of the store has taken over a service of a lost one. An operator
		// who changes or deletes that one must not need it back for it.
		c, err = w.cfg.Store.Update(ctx, withoutModelsOf(back, u))
		if errors.Is(err, ErrUnchanged) {
			return u, nil // it was about nothing else
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write back what the store has lost: %w", err)
	}
	moved := *u
	moved.Expected, moved.ExpectedID = c.GetRevision(), c.GetId()
	return &moved, nil
}

// restoration returns the update that writes back what the store has lost, nil
// if it has lost nothing or the update is not meant for what is served here. What
// the update is about to change is written back too: the history has to say what
// was there before.
func (w *Watcher) restoration(u *Update) *Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u.Expected != w.local.Revision || !w.known || len(w.orphans) == 0 && !w.vanished() {
		return nil
	}
	back := &Update{
		Expected:   w.storeAt.Revision,
		ExpectedID: w.storeAt.ID,
		Actor:      ActorFailover,
		Reason: fmt.Sprintf("%d entries were missing in the store without having been deleted; written back as served at revision %d",
			len(w.orphans), w.local.Revision),
		Restore: true,
	}
	for _, model := range slices.Sorted(maps.Keys(w.orphans)) {
		if r := w.local.Routes[model].GetRoute(); r != nil {
			back.Set = append(back.Set, r)
		} else {
			back.Delete = append(back.Delete, model)
		}
	}
	if w.vanished() {
		back.NewEpoch = &NewEpoch{Above: w.local.Position, Lost: namesOf(w.recentUpTo(w.local.Position))}
	}
	return back
}

// withoutModelsOf returns a restoration that leaves the models of an update to
// it.
func withoutModelsOf(back, u *Update) *Update {
	named := make(map[string]bool)
	for _, r := range u.Set {
		named[r.GetModel()] = true
	}
	for _, model := range u.Delete {
		named[model] = true
	}
	less := *back
	less.Set = slices.DeleteFunc(slices.Clone(back.Set), func(r *routingv1.Route) bool { return named[r.GetModel()] })
	return &less
}

// await waits until a revision is published, but not for long.
func (w *Watcher) await(ctx context.Context, revision uint64) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for {
		w.mu.Lock()
		done, published := w.local.Revision >= revision, w.waiters
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-published:
		case <-ctx.Done():
			return
		}
	}
}
