package memstore_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/statefile"
	"sluice/routing/storetest"
)

// badDisk keeps nothing.
type badDisk struct{ err error }

func (d badDisk) Append(*routingv1.JournalEntry, func() *routingv1.StoredState) error { return d.err }

func (d badDisk) ReadShelf(string) (*routingv1.StoredShelf, error) {
	return new(routingv1.StoredShelf), nil
}

func (d badDisk) WriteShelf(string, *routingv1.StoredShelf) error { return d.err }

// slowDisk keeps nothing, slowly, and says when it writes.
type slowDisk struct {
	badDisk
	begun chan struct{}
	done  *atomic.Int64
}

func (d slowDisk) Append(*routingv1.JournalEntry, func() *routingv1.StoredState) error {
	d.begun <- struct{}{}
	time.Sleep(50 * time.Millisecond)
	d.done.Add(1)
	return nil
}

// Close waits for the change that is being written, also for one that begins at the same time, and
// leaves the folder to the next process: nothing is written after it.
func TestNothingIsWrittenAfterClose(t *testing.T) {
	update := func(s *memstore.Store, version string) error {
		_, err := s.Update(t.Context(), &routing.Update{Set: []*routingv1.Route{storetest.Route("m", version)}, Actor: "x"})
		return err
	}
	d := slowDisk{begun: make(chan struct{}, 2), done: new(atomic.Int64)}
	s := memstore.New(memstore.Config{Disk: d})
	answered := make(chan error, 1)
	go func() { answered <- update(s, "v1") }()
	for len(d.begun) == 0 { // seen without a word from the writer, as between strangers
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil || d.done.Load() != 1 {
		t.Errorf("Close: %v, with %d changes written, want the one under way", err, d.done.Load())
	}
	if err := <-answered; err != nil {
		t.Errorf("the change under way: %v", err)
	}
	var unavailable *routing.UnavailableError
	if err := update(s, "v2"); !errors.As(err, &unavailable) || unavailable.Unknown || d.done.Load() != 1 {
		t.Errorf("after Close: %v, %d changes written", err, d.done.Load())
	}
}

// TestADiskThatDoesNotKnowIsNotTakenForOneThatRefuses, neither for changes nor for shelves.
func TestADiskThatDoesNotKnowIsNotTakenForOneThatRefuses(t *testing.T) {
	full := errors.New("no space left on device")
	for err, unknown := range map[error]bool{full: false, fmt.Errorf("%w (%w)", full, statefile.ErrUncertain): true} {
		s := memstore.New(memstore.Config{Disk: badDisk{err}})
		_, change := s.Update(t.Context(), &routing.Update{Set: []*routingv1.Route{storetest.Route("m", "v1")}, Actor: "x"})
		for what, got := range map[string]error{"a change": change, "a shelf": s.Shelf("s").Put(t.Context(), "k", []byte("v"))} {
			var unavailable *routing.UnavailableError
			var refused *routing.RefusedError
			if unknown && (!errors.As(got, &unavailable) || !unavailable.Unknown) || !unknown && !errors.As(got, &refused) || !errors.Is(got, full) {
				t.Errorf("%s, %v: %v, want it to be unknown: %v, or else refused", what, err, got, unknown)
			}
		}
		if at := storetest.Load(t, s); at.Revision != 0 {
			t.Errorf("at revision %d, want nothing to be seen of it", at.Revision)
		}
	}
}
