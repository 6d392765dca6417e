package routing

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Source says where the published state comes from.
type Source uint8

// The sources.
const (
	FromNowhere Source = iota // nothing has been published
	FromCache                 // the last good state kept on disk
	FromStore
)

// String returns the source in lower case.
func (s Source) String() string { return [...]string{"none", "cache", "store"}[s] }

// Refusal says why the store's document for a model is not served.
type Refusal struct {
	Model    string
	Revision uint64 // that wrote the document
	Err      error
}

// Status says what a [Watcher] has published and how it stands with its store.
type Status struct {
	Position
	// Models is the number of routes.
	Models int
	Source Source
	// ChangedAt is when the change was made that led to this state.
	ChangedAt time.Time
	// ConfirmedAt is when the store last said that this is its state.
	ConfirmedAt time.Time
	// Following is true while changes in the store are seen.
	Following bool
	// Counts are what has happened so far.
	Counts StoreCounts
	// Store is the store's name; Health what it knows of itself.
	Store  string
	Health Health
	// Refused are the documents in the store that are not served, in the order of
	// their models' names.
	Refused []Refusal
	// Missing are the models that are served although the store does not mention
	// them any more, without their having been deleted. The next change made
	// through this gateway writes them back.
	Missing []string
	// SeedDiffers are the models in which the file of routes differed from the
	// store at the start.
	SeedDiffers []string
	// CacheDir is the folder of the last good state, empty if there is none;
	// CacheErr says why it could not be read or written last.
	CacheDir string
	CacheErr error
	// Err says all that is wrong, nil if the store is followed and what it says
	// is served.
	Err error
}

// Ready reports whether there is a routing state.
func (s Status) Ready() bool { return s.Source != FromNowhere }

// Age is how long ago the store last said that this is its state.
func (s Status) Age() time.Duration {
	if s.ConfirmedAt.IsZero() {
		return 0
	}
	return max(0, time.Since(s.ConfirmedAt))
}

// Status returns how things stand. It asks nobody and does not block for long.
func (w *Watcher) Status() Status {
	health := w.cfg.Store.Health()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{
		Position:    w.local.Position,
		Models:      w.cfg.Router.Current().Len(),
		Source:      w.source,
		ChangedAt:   w.local.Time,
		ConfirmedAt: w.taken,
		Following:   w.failure == nil && w.known && health.Err == nil && w.storeAt == w.local.Position,
		Counts:      w.counts.copied(),
		Store:       w.cfg.Store.String(),
		Health:      health,
		Missing:     w.missing(),
		SeedDiffers: w.seedDiff,
	}
	if w.failure == nil {
		s.ConfirmedAt = w.confirmed(health)
	}
	for _, model := range slices.Sorted(maps.Keys(w.refused)) {
		s.Refused = append(s.Refused, w.refused[model])
	}
	if w.cache != nil {
		s.CacheDir, s.CacheErr = w.cache.dir.Path(), w.cache.err
	}
	s.Err = w.problems(s)
	return s
}

// confirmed returns when the store last said that the published state is its own, while
// it is being followed: with every answer that brings nothing new. w.mu is held.
func (w *Watcher) confirmed(h Health) time.Time {
	if w.known && w.storeAt == w.local.Position && h.Answered.After(w.taken) {
		return h.Answered
	}
	return w.taken
}

// problems says all that is wrong. w.mu is held.
func (w *Watcher) problems(s Status) error {
	var all []error
	if w.failure != nil {
		all = append(all, w.failure)
	}
	if s.Health.Err != nil && !sameError(s.Health.Err, w.failure) {
		all = append(all, s.Health.Err)
	}
	if e := s.Health.WriteErr; e != nil && !sameError(e, s.Health.Err) && !sameError(e, w.failure) {
		all = append(all, e)
	}
	if e := s.Health.Late; e != nil {
		all = append(all, fmt.Errorf("changes are seen seconds late, by polling: %w", e))
	}
	if w.vanished() {
		all = append(all, fmt.Errorf("%s has lost its routing state: it is empty, and nobody has deleted the routes; "+
			"revision %d stays, and the next change made through this gateway writes it back", s.Store, s.Revision))
	}
	if n := len(s.Missing); n > 0 && !w.vanished() {
		all = append(all, fmt.Errorf("%s lacks %d routes that nobody has deleted (%s): they go on being served, "+
			"and the next change made through this gateway writes them back", s.Store, n, list(s.Missing)))
	}
	if n := w.removed; n > len(w.orphans) {
		all = append(all, fmt.Errorf("%s lacks %d entries that something other than sluice has removed", s.Store, n))
	}
	for _, r := range s.Refused {
		all = append(all, fmt.Errorf("model %s: the document of revision %d is refused: %w", quote(r.Model), r.Revision, r.Err))
	}
	return errors.Join(all...)
}

// missing returns the models of the routes that are served and that the store
// does not mention, in order.
func (w *Watcher) missing() []string {
	var models []string
	for model := range w.orphans {
		if w.local.Routes[model].GetRoute() != nil {
			models = append(models, model)
		}
	}
	slices.Sort(models)
	return models
}

// vanished reports whether the store is empty although there were routes in it.
func (w *Watcher) vanished() bool {
	return w.known && w.storeAt.Revision == 0 && w.local.Revision > 0
}

// State returns what is published: documents, tombstones, revision. It is the
// caller's to keep; its entries are shared.
func (w *Watcher) State() *State {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := *w.local
	s.Routes = maps.Clone(w.local.Routes)
	return &s
}

// Entry returns what is published for one model, and the revision of the whole
// state, which an update made from it should expect. A tombstone is no entry.
func (w *Watcher) Entry(model string) (entry *routingv1.StoredRoute, revision uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry = w.local.Routes[model]
	return entry, w.local.Revision, entry.GetRoute() != nil
}
