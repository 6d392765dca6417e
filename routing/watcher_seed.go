package routing

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// seed writes the file's routes into a store that nothing was ever written to.
// Without a file, the store stays empty and the gateway is not ready.
func (w *Watcher) seed(ctx context.Context, empty *State) error {
	if w.cfg.Seed == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.storeAt, w.known = Position{}, true
		return nil
	}
	u := UpdateTo(w.cfg.Seed, empty)
	u.Actor, u.Reason = ActorFile, "seeded from "+w.cfg.SeedFile
	c, err := w.cfg.Store.Update(ctx, u)
	var faster *ConflictError
	if errors.As(err, &faster) {
		return w.loadAgain(ctx) // another gateway has seeded it
	}
	if err != nil {
		return fmt.Errorf("seed an empty store: %w", err)
	}
	w.mu.Lock()
	w.recent.add(c)
	w.mu.Unlock()
	s, err := w.cfg.Store.Load(ctx) // one that has lost nothing but its head holds more than the seed
	if err != nil {
		return err
	}
	return w.take(s)
}

// compareSeed reports, once, that the store says something else than the file.
func (w *Watcher) compareSeed() {
	if w.cfg.Seed == nil {
		return
	}
	u := UpdateTo(w.cfg.Seed, w.State())
	var models []string
	for _, r := range u.Set {
		models = append(models, r.GetModel())
	}
	models = append(models, u.Delete...)
	slices.Sort(models)
	w.mu.Lock()
	first := w.seedDiff == nil
	w.seedDiff = append([]string{}, models...)
	w.mu.Unlock()
	if first && len(models) > 0 {
		w.cfg.Logger.Warn("the file of routes differs from the store, and the store wins; apply the file to change that",
			"file", w.cfg.SeedFile, "store", w.cfg.Store.String(), "models", list(models))
	}
}
