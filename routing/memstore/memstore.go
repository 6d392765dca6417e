// Package memstore keeps the routing state in memory: the store of a gateway
// that was given none, and the heart of those that also write to disk.
package memstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/statefile"
)

// Bounds of the history kept: enough to undo months of work by hand, little
// enough to be written whole now and then.
const (
	maxChanges      = 1000
	maxHistoryBytes = 16 << 20
)

// updateTimeout bounds a change, whatever the disk does.
const updateTimeout = 1500 * time.Millisecond

// Disk keeps what a store does, and its shelves.
type Disk interface {
	// Append is called, one at a time, with everything a store does before anyone else
	// sees it; if it fails, that has not been done, or with [statefile.ErrUncertain] it is not
	// known. whole returns the state afterwards.
	Append(entry *routingv1.JournalEntry, whole func() *routingv1.StoredState) error
	Shelves
}

// Config says where a store begins and who else is to know of a change. The
// zero value is a store that is empty and tells nobody.
type Config struct {
	// Name is what the store calls itself; default "memory".
	Name string
	// From is the state to begin with; nil is an empty one.
	From *routingv1.StoredState
	// Disk keeps it all, too; nil keeps it in memory.
	Disk Disk
}

// Store is a [routing.Store] in memory.
type Store struct {
	name string
	disk Disk // nil: none

	writing chan struct{} // has room for the one who makes a change
	closed  bool          // no more changes; belongs to who has the room in writing

	mu       sync.Mutex // never held while the disk is written
	state    *routing.State
	history  []*routingv1.Change // oldest first
	bytes    int                 // of the history, encoded
	requests requests
	changed  chan struct{} // closed and replaced with every change
	health   routing.Health
	shelves  map[string]*shelf
}

// New returns a store that begins with the configured state.
func New(cfg Config) *Store {
	if cfg.Name == "" {
		cfg.Name = "memory"
	}
	s := &Store{
		name:    cfg.Name,
		disk:    cfg.Disk,
		writing: make(chan struct{}, 1),
		state:   routing.StateOf(cfg.From),
		changed: make(chan struct{}),
		health:  routing.Health{Since: time.Now()},
		shelves: make(map[string]*shelf),
	}
	for _, c := range cfg.From.GetChanges() {
		s.remember(c)
	}
	for _, r := range cfg.From.GetRequests() {
		s.requests.add(r)
	}
	return s
}

// Replay does anew what a disk has kept since it last wrote the whole state; what the
// state has already is passed over. It is called before any other method, and fails
// if an entry does not continue from the one before.
func (s *Store) Replay(entry *routingv1.JournalEntry) error {
	c := entry.GetChange()
	if c != nil && c.GetRevision() <= s.state.Revision {
		return nil
	}
	if c != nil && (c.GetPredecessorRevision() != s.state.Revision || c.GetPredecessorId() != s.state.ID) {
		return fmt.Errorf("revision %d does not follow revision %d", c.GetRevision(), s.state.Revision)
	}
	s.adopt(entry)
	return nil
}

// String returns the store's name.
func (s *Store) String() string { return s.name }

// Close waits until nothing is being written any more. No change is made after it.
func (s *Store) Close() error {
	s.writing <- struct{}{}
	s.closed = true
	<-s.writing
	return nil
}

// Health reports whether the last change could be kept.
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

// Update makes one change, as [routing.Store] says. A disk cannot be told to give up:
// of a change that it takes too long to write, the outcome is unknown, and the next one
// waits for it.
func (s *Store) Update(ctx context.Context, u *routing.Update) (*routingv1.Change, error) {
	if err := u.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return nil, &routing.UnavailableError{Store: s.name, Err: errors.New("the change before is still being written")}
	}
	if s.closed {
		<-s.writing
		return nil, &routing.UnavailableError{Store: s.name, Err: errors.New("it is closed")}
	}
	entry, c, err := s.prepare(u)
	switch {
	case entry == nil:
		<-s.writing
		return c, err
	case s.disk == nil:
		s.adopt(entry)
		<-s.writing
		return c, err
	}
	saved := make(chan error, 1)
	go func() {
		defer func() { <-s.writing }()
		saved <- s.save(entry)
	}()
	select {
	case problem := <-saved:
		if problem != nil {
			return nil, problem
		}
		return c, err
	case <-ctx.Done():
		return nil, &routing.UnavailableError{Store: s.name, Unknown: true, Err: errors.New("the disk has not written it yet")}
	}
}

// prepare returns what an update does, nil if that is nothing, and its answer.
func (s *Store) prepare(u *routing.Update) (*routingv1.JournalEntry, *routingv1.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if made := s.requests.find(u.RequestKey, now); made != nil {
		c, err := u.Repeats(made)
		return nil, s.whole(c), err
	}
	c, err := u.Prepare(s.state, now)
	entry := &routingv1.JournalEntry{Change: c, Request: u.Answered(nil, now)}
	if err != nil && (!errors.Is(err, routing.ErrUnchanged) || entry.GetRequest() == nil) {
		return nil, nil, err
	}
	return entry, c, err
}

// whole returns a change as the history has it, or as it is once that has forgotten it.
// s.mu is held.
func (s *Store) whole(short *routingv1.Change) *routingv1.Change {
	for _, c := range slices.Backward(s.history) {
		if c.GetId() == short.GetId() {
			return c
		}
	}
	return short
}

// save has the disk keep an entry, and then adopts it.
func (s *Store) save(entry *routingv1.JournalEntry) error {
	err := s.disk.Append(entry, func() *routingv1.StoredState { return s.stateAfter(entry) })
	if err != nil {
		err = ofDisk(s.name, err)
	}
	s.mu.Lock()
	s.health.WriteErr = err
	s.mu.Unlock()
	if err == nil {
		s.adopt(entry)
	}
	return err
}

// ofDisk is what a store says of an error of its disk.
func ofDisk(store string, err error) error {
	if errors.Is(err, statefile.ErrUncertain) {
		return &routing.UnavailableError{Store: store, Unknown: true, Err: err}
	}
	return &routing.RefusedError{Store: store, Reason: "DISK", Err: err}
}

// stateAfter returns all that the store will hold after an entry.
func (s *Store) stateAfter(entry *routingv1.JournalEntry) *routingv1.StoredState {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.state
	history := slices.Clip(s.history)
	if c := entry.GetChange(); c != nil {
		next.Routes = maps.Clone(s.state.Routes)
		next.Apply(c)
		history = append(history, c)
	}
	stored := next.Stored()
	stored.Changes = history
	stored.Requests = slices.Clip(s.requests.order)
	if r := requestOf(entry); r != nil {
		stored.Requests = append(stored.Requests, r)
	}
	return stored
}

// adopt makes an entry part of the store.
func (s *Store) adopt(entry *routingv1.JournalEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := requestOf(entry); r != nil {
		s.requests.add(r)
	}
	c := entry.GetChange()
	if c == nil {
		return
	}
	s.state.Apply(c)
	s.remember(c)
	close(s.changed)
	s.changed = make(chan struct{})
}

// remember adds to the history and drops what has become too much. s.mu is held.
func (s *Store) remember(c *routingv1.Change) {
	s.history = append(s.history, c)
	s.bytes += proto.Size(c)
	for len(s.history) > maxChanges || s.bytes > maxHistoryBytes && len(s.history) > 1 {
		oldest := s.history[0]
		s.history[0] = nil
		s.history = s.history[1:]
		s.bytes -= proto.Size(oldest)
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
	found := routing.NewFound(q)
	for i := range s.history {
		c := s.history[i]
		if !q.OldestFirst {
			c = s.history[len(s.history)-1-i]
		}
		if found.Full() {
			break
		}
		found.Add(c)
	}
	return found.Changes, nil
}
