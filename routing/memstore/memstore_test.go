package memstore_test

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) routing.Store { return memstore.New(memstore.Config{}) })
}

// TestHistoryIsBounded: a thousand changes are kept.
func TestHistoryIsBounded(t *testing.T) {
	s := memstore.New(memstore.Config{})
	for i := range 1100 {
		storetest.Update(t, s, &routing.Update{Expected: uint64(i), Set: []*routingv1.Route{storetest.Route("m", fmt.Sprint("v", i))}})
	}
	kept := storetest.History(t, s, routing.HistoryQuery{Limit: 2000})
	if len(kept) != 1000 || kept[0].GetRevision() != 1100 {
		t.Errorf("%d changes from %d, want 1000 from 1100", len(kept), kept[0].GetRevision())
	}
}
