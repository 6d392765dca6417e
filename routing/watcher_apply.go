package routing

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// apply publishes one change. Only the routes it names are built.
func (w *Watcher) apply(c *routingv1.Change) error {
	late := w.cfg.Store.Health().Late
	w.mu.Lock()
	defer w.mu.Unlock()
	if late != nil && !w.late {
		w.cfg.Logger.Warn("changes are seen seconds late, by polling", "store", w.cfg.Store.String(), "error", late)
	}
	w.late = late != nil
	if c.GetPredecessorRevision() != w.local.Revision || c.GetPredecessorId() != w.local.ID || c.GetRevision() <= w.local.Revision {
		return ErrGap
	}
	var docs []*routingv1.Route
	for _, r := range c.GetRoutes() {
		if r.GetAfter() != nil {
			docs = append(docs, r.GetAfter())
		}
	}
	changed, refused, err := assemble(docs, w.tableWithout(c))
	if err != nil {
		return err
	}
	w.local.Position, w.local.Time = PositionAfter(c), c.GetTime().AsTime()
	if len(refused) > 0 { // a change is applied whole or not at all
		changed = nil
		w.refuseChange(c, refused)
	} else {
		w.local.Apply(c)
		for _, r := range c.GetRoutes() {
			if r.GetAfter() == nil {
				changed[r.GetModel()] = nil
			}
			delete(w.refused, r.GetModel())
			delete(w.orphans, r.GetModel())
		}
		for _, f := range w.tell {
			f(c)
		}
	}
	w.recent.add(c)
	w.storeAt, w.known = w.local.Position, true
	w.source, w.taken = FromStore, time.Now()
	w.removed = 0 // with every change the store counts anew
	w.publish(changed)
	w.cfg.Logger.Info("routes changed", "revision", c.GetRevision(), "actor", c.GetActor(), "reason", c.GetReason(),
		"models", describe(c), "forced", c.GetForced())
	return nil
}

// tableWithout returns the current table without the routes that a change
// deletes, whose services are free for others.
func (w *Watcher) tableWithout(c *routingv1.Change) *Table {
	deleted := make(map[string]*Route)
	for _, r := range c.GetRoutes() {
		if r.GetAfter() == nil {
			deleted[r.GetModel()] = nil
		}
	}
	current := w.cfg.Router.Current()
	return current.with(deleted, current.Revision())
}

// refuseChange notes why nothing of a change is served.
func (w *Watcher) refuseChange(c *routingv1.Change, reasons map[string]error) {
	var all []error
	for _, model := range slices.Sorted(maps.Keys(reasons)) {
		all = append(all, fmt.Errorf("model %s: %w", quote(model), reasons[model]))
	}
	err := errors.Join(all...)
	for _, r := range c.GetRoutes() {
		w.refuse(r.GetModel(), c.GetRevision(), err)
	}
}

// refuse notes why the store's document for a model is not served.
func (w *Watcher) refuse(model string, revision uint64, err error) {
	w.refused[model] = Refusal{Model: model, Revision: revision, Err: err}
	w.cfg.Logger.Error("a document in the store is refused, the last good one stays",
		"model", model, "revision", revision, "error", err)
}

// take publishes a whole state of the store. Routes whose documents are the same
// are not built again; those the store does not mention stay.
func (w *Watcher) take(s *State) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Revision < w.local.Revision {
		return fmt.Errorf("%s is at revision %d although its history goes on to %d, which is served here: something other than sluice "+
			"has set it back; put its head right, or remove the head: the next change then writes back what is served",
			w.cfg.Store, s.Revision, w.local.Revision)
	}
	var docs []*routingv1.Route
	changed := make(map[string]*Route)
	next := maps.Clone(w.local.Routes)
	for model, entry := range s.Routes {
		local := w.local.Routes[model]
		switch {
		case entry.GetRoute() == nil:
			if local.GetRoute() != nil {
				changed[model] = nil
			}
		case !proto.Equal(local.GetRoute(), entry.GetRoute()):
			docs = append(docs, entry.GetRoute())
		}
		next[model] = entry
	}
	current := w.cfg.Router.Current()
	built, refused, err := assemble(docs, current.with(changed, current.Revision()))
	if err != nil {
		return err
	}
	clear(w.refused)
	for model, err := range w.partsOf(s, refused) {
		refused[model] = err
		delete(built, model)
		delete(changed, model)
	}
	for model, err := range refused {
		w.refuse(model, s.Routes[model].GetRevision(), err)
		keep(next, w.local.Routes, model)
	}
	for model, err := range s.Unreadable {
		w.refuse(model, s.Revision, err)
		keep(next, w.local.Routes, model)
	}
	maps.Copy(changed, built)

	w.noteOrphans(s)
	w.local = &State{Position: s.Position, Time: s.Time, Routes: next}
	w.storeAt, w.known, w.removed = s.Position, true, s.Removed
	w.source, w.taken = FromStore, time.Now()
	w.publish(changed)
	return nil
}

// keep puts the last good entry of a model back, if there is one.
func keep(next, last map[string]*routingv1.StoredRoute, model string) {
	if entry, ok := last[model]; ok {
		next[model] = entry
		return
	}
	delete(next, model)
}

// noteOrphans finds the entries that a state does not mention, tombstones too:
// without them, a gateway that has slept would bring back what was deleted.
func (w *Watcher) noteOrphans(s *State) {
	clear(w.orphans)
	for model := range w.local.Routes {
		if s.Routes[model] == nil && s.Unreadable[model] == nil {
			w.orphans[model] = true
		}
	}
	if n := len(w.missing()); n > 0 {
		w.cfg.Logger.Error("the store lacks routes that nobody has deleted, they go on being served",
			"store", w.cfg.Store.String(), "routes", n)
	}
}

// publish makes the local state the one that calls see. w.mu is held.
func (w *Watcher) publish(changed map[string]*Route) {
	w.cfg.Router.Publish(w.cfg.Router.Current().with(changed, w.local.Revision))
	close(w.waiters)
	w.waiters = make(chan struct{})
	if w.cache != nil {
		w.cache.touch()
	}
}
