package incident

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing/memstore"
)

// keepsNames is a shelf that is out of reach when the name of an incident is to be taken away.
type keepsNames struct {
	Shelf
	failing atomic.Bool
}

func (k *keepsNames) Swap(ctx context.Context, key string, old, value []byte) (bool, error) {
	if k.failing.Load() && strings.HasPrefix(key, openKey) && value == nil {
		return false, errDown
	}
	return k.Shelf.Swap(ctx, key, old, value)
}

// TestIncidentThatIsOverTakesNothingIn: what happens after it is another one, though the store failed when it was closed.
func TestIncidentThatIsOverTakesNothingIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &keepsNames{Shelf: memstore.New(memstore.Config{}).Shelf("incidents")}
		g := startGateway(t, "a", shelf)
		shelf.failing.Store(true)
		g.Begin(breakerOpens("v8"))
		settle()
		g.End("fraud", "breaker v8", "closed", time.Now())
		time.Sleep(calm + 2*interval)
		synctest.Wait()
		shelf.failing.Store(false)
		before := all(t, shelf)
		if len(before) != 1 || before[0].GetRecovered() == nil {
			t.Fatalf("after the first: %v, want it closed", before)
		}
		time.Sleep(24 * time.Hour)
		g.Begin(breakerOpens("v9"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		after := all(t, shelf)
		if len(after) != 2 || after[0].GetRecovered() != nil || len(after[1].GetEvents()) != len(before[0].GetEvents()) {
			t.Errorf("a day later: %v, want one that is open, and the old one as it was", after)
		}
	})
}

// TestIncidentIsNotAlteredWhileItIsClosed by another gateway, between its two writes.
func TestIncidentIsNotAlteredWhileItIsClosed(t *testing.T) {
	shelf := memstore.New(memstore.Config{}).Shelf("incidents")
	book, at := NewBook(shelf), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	describe := func(in *adminv1.Incident) { in.Detected, in.Onset = stamp(at), stamp(at) }
	old, _, err := book.update(t.Context(), "m", "", describe)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Change(t.Context(), old.GetId(), func(in *adminv1.Incident) error { in.Recovered = stamp(at); return nil }); err != nil {
		t.Fatal(err)
	}
	in, opened, err := book.update(t.Context(), "m", "", describe)
	if err != nil || !opened || in.GetId() == old.GetId() {
		t.Errorf("update = %v, opened %v, %v; want another incident", in, opened, err)
	}
}
