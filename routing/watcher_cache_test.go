package routing

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing/statefile"
)

// TestLostFilesAreBounded: the newest stay.
func TestLostFilesAreBounded(t *testing.T) {
	dir, err := statefile.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := &cache{dir: dir}
	doc := &routingv1.Document{Routes: []*routingv1.Route{document(weight{"v1", 1})}}
	for i := range uint64(maxLostFiles + 5) {
		name, err := c.saveLost(doc, &routingv1.Change{Revision: i, Id: strings.Repeat("a", 32)})
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(i), 0)
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir.Path(), "lost-*.yaml"))
	if err != nil || len(files) != maxLostFiles {
		t.Errorf("%d files, %v, want %d", len(files), err, maxLostFiles)
	}
	for _, revision := range []int{5, maxLostFiles + 4} {
		if _, err := os.Stat(filepath.Join(dir.Path(), fmt.Sprintf("lost-%d-aaaaaaaa.yaml", revision))); err != nil {
			t.Errorf("revision %d: %v, want its file kept", revision, err)
		}
	}
}
