package filestore_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/filestore"
	"sluice/routing/statefile"
	"sluice/routing/storetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerVariable); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir, os.Stdout))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

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

// TestChangesSurviveARestart with their history, tombstones and request keys.
func TestChangesSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	s := open(t, dir)
	storetest.Set(t, s, storetest.Route("m", "v1"))
	keyed := &routing.Update{Expected: 1, Set: []*routingv1.Route{storetest.Route("m", "v2")}, RequestKey: "key"}
	made := storetest.Update(t, s, keyed)
	storetest.Update(t, s, &routing.Update{Expected: 2, Set: []*routingv1.Route{storetest.Route("n", "v1")}, Delete: []string{"m"}})
	before, history := storetest.Load(t, s), storetest.History(t, s, routing.HistoryQuery{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	after := storetest.Load(t, s)
	if after.Position != before.Position || !after.Time.Equal(before.Time) || len(after.Routes) != 2 || after.Routes["m"].GetRoute() != nil ||
		!proto.Equal(after.Routes["n"], before.Routes["n"]) {
		t.Errorf("after a restart %+v, want %+v", after, before)
	}
	again := storetest.History(t, s, routing.HistoryQuery{})
	if !slices.EqualFunc(again, history, func(a, b *routingv1.Change) bool { return proto.Equal(a, b) }) {
		t.Errorf("history %v, want %v", again, history)
	}
	if c := storetest.Update(t, s, keyed); !proto.Equal(c, made) {
		t.Errorf("repeated: %v, want %v", c, made)
	}
	if c := storetest.Set(t, s, storetest.Route("m", "v3")); c.GetRevision() != 4 || c.GetPredecessorId() != before.ID {
		t.Errorf("next change %v, want it to follow", c)
	}
}

func TestFolderIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := filestore.Open(dir); err == nil || !strings.Contains(err.Error(), "another process uses this folder") {
		t.Errorf("Open = %v, want the folder in use", err)
	}
}

// TestDamageIsDetected, and nothing is touched.
func TestDamageIsDetected(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	storetest.Set(t, s, storetest.Route("m", "v1"))
	state := storetest.Load(t, s).Stored()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	writeState(t, dir, state)
	name := filepath.Join(dir, "state")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * len(whole) {
		damaged := slices.Clone(whole[:i/2])
		if i%2 == 1 {
			damaged = slices.Clone(whole)
			damaged[i/2] ^= 0x10
		}
		if err := os.WriteFile(name, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := filestore.Open(dir)
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, statefile.ErrDamaged) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "backup") {
			t.Fatalf("cut or altered at byte %d: Open = %v, want the damage, the file and what to do", i/2, err)
		}
		if now, err := os.ReadFile(name); err != nil || !slices.Equal(now, damaged) {
			t.Fatalf("the damaged file was touched")
		}
	}
}

// writeState writes a whole state, which a store does only now and then.
func writeState(t *testing.T, dir string, state *routingv1.StoredState) {
	t.Helper()
	d, err := statefile.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Write(state), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestDiskThatFailsRefusesChanges has no room for more than the first change.
func TestDiskThatFailsRefusesChanges(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first := storetest.Set(t, s, storetest.Route("m", "v1"))
	limitFiles(t, 1500)
	big := storetest.Route("m", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10")
	big.Versions[0].Endpoints = []string{strings.Repeat("long.", 40) + "example.org:1", strings.Repeat("other.", 35) + "example.org:2"}
	for i := range big.Versions {
		big.Versions[i].Endpoints = append(big.Versions[i].Endpoints, fmt.Sprintf("%sexample.org:%d", strings.Repeat("host.", 30), i+1))
	}
	_, err := s.Update(t.Context(), &routing.Update{Expected: 1, Set: []*routingv1.Route{big}, Actor: "x"})
	var refused *routing.RefusedError
	if !errors.As(err, &refused) || refused.Reason != "DISK" || s.Health().WriteErr == nil {
		t.Errorf("Update = %v with health %+v, want a refusal in both", err, s.Health())
	}
	if at := storetest.Load(t, s); at.Position != routing.PositionAfter(first) {
		t.Errorf("at %+v, want nothing changed", at)
	}
	storetest.Set(t, s, storetest.Route("m", "v2")) // there is room for a small one
	if h := s.Health(); h.WriteErr != nil {
		t.Errorf("health %+v, want it well again", h)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if at := storetest.Load(t, open(t, dir)); at.Revision != 2 || len(at.Routes["m"].GetRoute().GetVersions()) != 1 {
		t.Errorf("after a restart %+v, want revision 2", at)
	}
}

// limitFiles keeps this process from writing larger files, until the test ends.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before) })
}

// TestShelvesSurviveARestart, and a damaged one harms nobody else.
func TestShelvesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"good", "bad"} {
		if err := s.Shelf(name).Put(t.Context(), "key", []byte("kept")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "shelf-bad"), 20); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if v, err := s.Shelf("good").Get(t.Context(), "key"); string(v) != "kept" || err != nil {
		t.Errorf("after a restart %q, %v", v, err)
	}
	if _, err := s.Shelf("bad").All(t.Context()); !errors.Is(err, statefile.ErrDamaged) {
		t.Errorf("a shelf cut short: %v, want it damaged", err)
	}
	if err := s.Shelf("bad").Put(t.Context(), "key", []byte("new")); !errors.Is(err, statefile.ErrDamaged) {
		t.Errorf("Put on it: %v, want what is there untouched", err)
	}
}
