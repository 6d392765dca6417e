package memstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) routing.Store { return memstore.New(memstore.Config{}) })
}
