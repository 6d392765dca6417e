package memstore_test

import (
	"errors"
	"fmt"
	"testing"

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
