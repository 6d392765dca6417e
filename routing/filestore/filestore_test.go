package filestore_test

import (
	"testing"

	"go.uber.org/goleak"

	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a folder until the test ends.
func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) routing.Store { return open(t, t.TempDir()) })
}
