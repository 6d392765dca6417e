// Package memstore keeps the routing state in memory: the store of a gateway
// that was given none, and the heart of those that also write to disk.
package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Bounds of the history kept: enough to undo months of work by hand, little
// enough to be written whole with every change.
const (
	maxChanges      = 1000
	maxHistoryBytes = 16 << 20
)

// Config says where a store begins and who else is to know of a change. The
// zero value is a store that is empty and tells nobody.
type Config struct {
	// Name is what the store calls itself; default "memory".
	Name string
	// From is the state to begin with; nil is an empty one.
	From *routingv1.StoredState
	// Persist is called with every new state before anyone else sees it; if it
	// fails, the change has not been made. Nil persists nothing.
	Persist func(*routingv1.StoredState) error
	// Shelves keeps the shelves, too; nil keeps them in memory.
	Shelves Shelves
}

// Store is a [routing.Store] in memory.
type Store struct {
	name    string
	persist func(*routingv1.StoredState) error
	disk    Shelves

	mu      sync.Mutex
	state   *routing.State
	history []*routingv1.Change // oldest first
	bytes   int                 // of the history, encoded
	byKey   map[string]*routingv1.Change
	changed chan struct{} // closed and replaced with every change
	health  routing.Health
	shelves map[string]*shelf
}

// New returns a store that begins with the configured state.
func New(cfg Config) *Store {
	if cfg.Name == "" {
		cfg.Name = "memory"
	}
	s := &Store{
		name:    cfg.Name,
		persist: cfg.Persist,
		state:   routing.StateOf(cfg.From),
		byKey:   make(map[string]*routingv1.Change),
		changed: make(chan struct{}),
		health:  routing.Health{Since: time.Now()},
		disk:    cfg.Shelves,
		shelves: make(map[string]*shelf),
	}
	for _, c := range cfg.From.GetChanges() {
		s.remember(c)
	}
	return s
}

// String returns the store's name.
func (s *Store) String() string { return s.name }

// Close gives back nothing: there is nothing but memory.
func (s *Store) Close() error { return nil }

// Health reports whether the last change could be persisted.
func (s *Store) Health() routing.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health
	h.Answered = time.Now()
	return h
}

// Load returns the current state.
func (s *Store) Load(context.Context) (*routing.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copied := *s.state
	copied.Routes = maps.Clone(s.state.Routes)
	return &copied, nil
}

// Update makes one change, as [routing.Store] says.
func (s *Store) Update(_ context.Context, u *routing.Update) (*routingv1.Change, error) {
	if err := u.Validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if made := s.byKey[u.RequestKey]; u.RequestKey != "" && made != nil {
		return made, nil
	}
	c, err := u.Prepare(s.state, time.Now())
	if err != nil {
		return nil, err
	}
	if err := s.save(c); err != nil {
		return nil, err
	}
	s.state.Apply(c)
	s.remember(c)
	close(s.changed)
	s.changed = make(chan struct{})
	return c, nil
}

// save persists what the state will be after c.
func (s *Store) save(c *routingv1.Change) error {
	if s.persist == nil {
		return nil
	}
	next := *s.state
	next.Routes = maps.Clone(s.state.Routes)
	next.Apply(c)
	stored := next.Stored()
	stored.Changes = append(slices.Clip(s.history), c)
	err := s.persist(stored)
	if err != nil {
		err = &routing.RefusedError{Store: s.name, Reason: "DISK", Err: err}
	}
	s.health.WriteErr = err
	return err
}

// remember adds to the history and drops what has become too much.
func (s *Store) remember(c *routingv1.Change) {
	s.history = append(s.history, c)
	s.bytes += proto.Size(c)
	if c.GetRequestKey() != "" {
		s.byKey[c.GetRequestKey()] = c
	}
	for len(s.history) > maxChanges || s.bytes > maxHistoryBytes && len(s.history) > 1 {
		oldest := s.history[0]
		s.history[0] = nil
		s.history = s.history[1:]
		s.bytes -= proto.Size(oldest)
		if s.byKey[oldest.GetRequestKey()] == oldest {
			delete(s.byKey, oldest.GetRequestKey())
		}
	}
}

// Watch delivers changes, as [routing.Store] says.
func (s *Store) Watch(ctx context.Context, after routing.Position, deliver func(*routingv1.Change) error) error {
	for {
		changes, changed, err := s.since(after)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if err := deliver(c); err != nil {
				return err
			}
			after = routing.PositionAfter(c)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// since returns the changes after a position, and what tells of the next one.
func (s *Store) since(after routing.Position) ([]*routingv1.Change, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after == s.state.Position {
		return nil, s.changed, nil
	}
	for i, c := range s.history {
		if c.GetPredecessorRevision() == after.Revision && c.GetPredecessorId() == after.ID {
			return slices.Clone(s.history[i:]), s.changed, nil
		}
	}
	return nil, nil, fmt.Errorf("%s at revision %d: %w", s.name, s.state.Revision, routing.ErrGap)
}

// History returns the changes that the query selects.
func (s *Store) History(_ context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*routingv1.Change
	for i := range s.history {
		c := s.history[i]
		if !q.OldestFirst {
			c = s.history[len(s.history)-1-i]
		}
		if len(found) == q.Max() {
			break
		}
		if q.Matches(c) {
			found = append(found, c)
		}
	}
	return found, nil
}
