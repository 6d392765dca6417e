package breaker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Event is a change of a breaker's state.
type Event struct {
	Name     Name
	At       time.Time
	From, To State
	Cause    Cause
	// Counts are those of the window at that moment.
	Counts Counts
	// OpenUntil is when the first probe is due, zero if none will be.
	OpenUntil time.Time
	// RequestID names the call whose result was decisive, empty if none was.
	RequestID string
	// DryRun says that nothing was cut off.
	DryRun bool
	// BadSince is when the first of the results came that opened it, until it is closed again; zero
	// if none did, as with an operator's order.
	BadSince time.Time
}

// String is the event as a line of a log.
func (e Event) String() string {
	s := fmt.Sprintf("%s: %s -> %s: %s (calls %d, failures %d, overloaded %d, slow %d, in a row %d)", e.Name,
		e.From, e.To, e.Cause, e.Counts.Calls, e.Counts.Failures, e.Counts.Overloaded, e.Counts.Slow, e.Counts.Consecutive)
	if e.RequestID != "" {
		s += " request " + e.RequestID
	}
	if e.DryRun {
		s += " [dry run]"
	}
	return s
}

// Events hands events to whoever has subscribed. Nobody waits for a subscriber: what it has no room
// for is dropped and counted.
type Events struct {
	mu     sync.Mutex
	queued []Event
	subs   []*Subscription
}

// Subscription is one reader of events.
type Subscription struct {
	events  *Events
	c       chan Event
	dropped atomic.Uint64
}

// Subscribe begins to collect events, at most room of them unread. Each breaker's come in order.
func (e *Events) Subscribe(room int) *Subscription {
	s := &Subscription{events: e, c: make(chan Event, room)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.subs = append(e.subs, s)
	return s
}

// C is where the events arrive. It is closed by Close.
func (s *Subscription) C() <-chan Event { return s.c }

// Dropped is the number of events for which there was no room.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if i := slices.Index(s.events.subs, s); i >= 0 {
		s.events.subs = slices.Delete(s.events.subs, i, i+1)
		close(s.c)
	}
}

// note queues an event. Its breaker's lock is held, so that the events of a breaker keep their order.
func (e *Events) note(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queued = append(e.queued, ev)
}

// deliver hands queued events out. No breaker's lock is held.
func (e *Events) deliver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.queued {
		for _, s := range e.subs {
			select {
			case s.c <- ev:
			default:
				s.dropped.Add(1)
			}
		}
	}
	clear(e.queued)
	e.queued = e.queued[:0]
}
