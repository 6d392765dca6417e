package routing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/storetest"
)

// watched is a Watcher over a store in memory, with its router and its log.
type watched struct {
	*routing.Watcher
	store  *memstore.Store
	router *routing.Router
	log    *logBuffer
}

// logBuffer collects a log from several goroutines.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), s)
}

// startWatcher starts a Watcher that runs until the test ends.
func startWatcher(t testing.TB, store *memstore.Store, alter ...func(*routing.WatcherConfig)) *watched {
	t.Helper()
	w := &watched{store: store, router: routing.NewRouter(), log: new(logBuffer)}
	cfg := routing.WatcherConfig{Store: store, Router: w.router, Logger: slog.New(slog.NewTextHandler(w.log, nil))}
	for _, f := range alter {
		f(&cfg)
	}
	w.Watcher = routing.NewWatcher(cfg)
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	return w
}

func seed(routes ...*routingv1.Route) func(*routing.WatcherConfig) {
	return func(cfg *routing.WatcherConfig) {
		cfg.Seed, cfg.SeedFile = &routingv1.Document{Routes: routes}, "routes.yaml"
	}
}

// update makes a change to what is served.
func (w *watched) update(t testing.TB, u *routing.Update) *routingv1.Change {
	t.Helper()
	u.Expected, u.Actor = w.router.Current().Revision(), "operator"
	c, err := w.Update(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *watched) models() []string {
	var models []string
	for r := range w.router.Current().Routes() {
		models = append(models, r.Model)
	}
	return models
}

func TestEmptyStoreIsNotReady(t *testing.T) {
	w := startWatcher(t, memstore.New(memstore.Config{}))
	if s := w.Status(); s.Ready() || s.Revision != 0 || s.Err != nil {
		t.Errorf("Status = %+v, want nothing, and nothing wrong", s)
	}
	w.update(t, &routing.Update{Set: []*routingv1.Route{storetest.Route("m", "v1")}})
	if s := w.Status(); !s.Ready() || s.Revision != 1 || s.Models != 1 || s.Source != routing.FromStore || !s.Following {
		t.Errorf("Status = %+v, want one route of the store", s)
	}
}

func TestFileSeedsAnEmptyStoreOnly(t *testing.T) {
	store := memstore.New(memstore.Config{})
	a := startWatcher(t, store, seed(storetest.Route("m", "v1"), storetest.Route("n", "v1")))
	if got := a.models(); !slices.Equal(got, []string{"m", "n"}) || a.Status().SeedDiffers != nil {
		t.Errorf("serving %v, differing %v, want what the file says", got, a.Status().SeedDiffers)
	}
	c := storetest.History(t, store, routing.HistoryQuery{})[0]
	if c.GetActor() != routing.ActorFile || !strings.Contains(c.GetReason(), "routes.yaml") {
		t.Errorf("change %v, want it by the file", c)
	}
	b := startWatcher(t, store, seed(storetest.Route("m", "v2"), storetest.Route("o", "v1")))
	if got := b.Status().SeedDiffers; !slices.Equal(got, []string{"m", "n", "o"}) || b.router.Current().Revision() != 1 {
		t.Errorf("differing %v at revision %d, want m, n and o, and the store to win", got, b.router.Current().Revision())
	}
	if n := b.log.count("the store wins"); n != 1 {
		t.Errorf("reported %d times, want once", n)
	}
}

func TestBadSeedEndsTheStart(t *testing.T) {
	w := routing.NewWatcher(routing.WatcherConfig{
		Store: memstore.New(memstore.Config{}), Router: routing.NewRouter(), Logger: slog.New(slog.DiscardHandler),
		Seed: &routingv1.Document{Routes: []*routingv1.Route{{Model: "m"}}},
	})
	var field *routing.FieldError
	if err := w.Start(t.Context()); !errors.As(err, &field) {
		t.Errorf("Start = %v, want what is wrong with the routes", err)
	}
}

// TestOneChangeBuildsOneRoute: tables share whatever did not change.
func TestOneChangeBuildsOneRoute(t *testing.T) {
	var routes []*routingv1.Route
	for i := range 100 {
		routes = append(routes, storetest.Route(fmt.Sprintf("m%02d", i), "v1"))
	}
	w := startWatcher(t, memstore.New(memstore.Config{}), seed(routes...))
	before := w.router.Current()
	w.update(t, &routing.Update{
		Set: []*routingv1.Route{storetest.Route("m07", "v2"), storetest.Route("new", "v1")}, Delete: []string{"m50"},
	})
	after := w.router.Current()
	if before.Len() != 100 || after.Len() != 100 {
		t.Errorf("%d routes, then %d, want 100 in both tables", before.Len(), after.Len())
	}
	for r := range before.Routes() {
		same, ok := after.Route(r.Model)
		switch r.Model {
		case "m07":
			if !ok || same == r || same.Versions[0].Name != "v2" {
				t.Errorf("m07 is %+v, want it built anew", same)
			}
		case "m50":
			if ok {
				t.Error("m50 is still there")
			}
		default:
			if same != r {
				t.Errorf("%s was built anew", r.Model)
			}
		}
	}
}

func TestServicesMoveWithinAChange(t *testing.T) {
	a, b := storetest.Route("a", "v1"), storetest.Route("b", "v1")
	a.Services = []string{"pkg.S", "pkg.A"}
	w := startWatcher(t, memstore.New(memstore.Config{}), seed(a, b))
	a2, b2 := storetest.Route("a", "v1"), storetest.Route("b", "v1")
	a2.Services, b2.Services = []string{"pkg.A"}, []string{"pkg.S"}
	w.update(t, &routing.Update{Set: []*routingv1.Route{a2, b2}})
	c := storetest.Route("c", "v1")
	c.Services = []string{"pkg.A"}
	w.update(t, &routing.Update{Set: []*routingv1.Route{c}, Delete: []string{"a"}})
	for service, want := range map[string]string{"pkg.S": "b", "pkg.A": "c"} {
		if r, ok := w.router.Current().RouteForService(service); !ok || r.Model != want {
			t.Errorf("%s belongs to %+v, want %s", service, r, want)
		}
	}
}

// TestCacheIsNoReasonNotToStart: two gateways with one folder, and a folder that
// nobody can write to.
func TestCacheIsNoReasonNotToStart(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := func(path string) func(*routing.WatcherConfig) {
		return func(cfg *routing.WatcherConfig) { cfg.CacheDir = path }
	}
	first := startWatcher(t, memstore.New(memstore.Config{}), seed(storetest.Route("m", "v1")), cache(filepath.Join(dir, "c")))
	if s := first.Status(); s.CacheDir != filepath.Join(dir, "c") || s.CacheErr != nil {
		t.Errorf("Status = %+v, want a cache", s)
	}
	for _, path := range []string{filepath.Join(dir, "c"), filepath.Join(blocked, "c")} {
		w := startWatcher(t, memstore.New(memstore.Config{}), seed(storetest.Route("m", "v1")), cache(path))
		if s := w.Status(); !s.Ready() || s.CacheDir != "" {
			t.Errorf("%s: Status = %+v, want it ready without a cache", path, s)
		}
		if n := w.log.count("level=WARN"); n != 1 {
			t.Errorf("%s: %d warnings, want one", path, n)
		}
	}
}

func TestCacheDirsDiffer(t *testing.T) {
	store := memstore.New(memstore.Config{Name: "redis://h:6379"})
	seen := map[string]bool{}
	for _, listen := range []string{":8001", ":8003", "127.0.0.1:8001"} {
		dir := routing.CacheDir("/state", store, listen)
		if seen[dir] || filepath.Dir(dir) != "/state" || strings.ContainsAny(filepath.Base(dir), ":/ ") {
			t.Errorf("CacheDir(%s) = %s, want a folder of its own in /state", listen, dir)
		}
		seen[dir] = true
	}
}

func TestDefaultStateDir(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/xdg")
	if dir, err := routing.DefaultStateDir(); dir != "/xdg/sluice" || err != nil {
		t.Errorf("DefaultStateDir = %s, %v, want /xdg/sluice", dir, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative") // to be ignored, says the specification
	t.Setenv("HOME", "/home/op")
	if dir, err := routing.DefaultStateDir(); dir != "/home/op/.local/state/sluice" || err != nil {
		t.Errorf("DefaultStateDir = %s, %v, want it below the home folder", dir, err)
	}
}

// TestStateAndEntrySayWhatIsServed, for those who make changes from it.
func TestStateAndEntrySayWhatIsServed(t *testing.T) {
	w := startWatcher(t, memstore.New(memstore.Config{}), seed(storetest.Route("m", "v1"), storetest.Route("n", "v1")))
	w.update(t, &routing.Update{Set: []*routingv1.Route{storetest.Route("m", "v2")}, Delete: []string{"n"}})
	entry, revision, ok := w.Entry("m")
	if !ok || revision != 2 || entry.GetRevision() != 2 || entry.GetRoute().GetVersions()[0].GetName() != "v2" {
		t.Errorf("Entry(m) = %v, %d, %v, want v2 of revision 2", entry, revision, ok)
	}
	for _, model := range []string{"n", "never"} {
		if entry, revision, ok := w.Entry(model); ok || revision != 2 {
			t.Errorf("Entry(%s) = %v, %d, %v, want none at 2", model, entry, revision, ok)
		}
	}
	state := w.State()
	if state.Revision != 2 || len(state.Document().GetRoutes()) != 1 || len(state.Routes) != 2 {
		t.Errorf("State = %+v, want m, and a tombstone", state)
	}
}

// TestBadDocumentsAreRefusedWhole tries more than 200 of them, each together with a good
// one.
func TestBadDocumentsAreRefusedWhole(t *testing.T) {
	w := startWatcher(t, memstore.New(memstore.Config{}), seed(storetest.Route("m", "v1", "v2"), storetest.Route("n", "v1")))
	serving := w.router.Current()
	distinct := make(map[string]bool)
	for _, bad := range storetest.BadRoutes() {
		distinct[bad.Route.String()] = true
		_, err := w.Update(t.Context(), &routing.Update{
			Expected: 1, Actor: "operator", Set: []*routingv1.Route{storetest.Route("n", "v9"), bad.Route},
		})
		var field *routing.FieldError
		if !errors.As(err, &field) || field.Got == "" || field.Want == "" {
			t.Errorf("%v: Update = %v, want a field, its value and what is accepted", bad.Route, err)
			continue
		}
		if !strings.Contains(err.Error(), "routes[1]."+bad.Field+": got ") {
			t.Errorf("%v: Update = %v, want it to be about %s", bad.Route, err, bad.Field)
		}
	}
	if len(distinct) < 200 {
		t.Errorf("%d documents, want 200 at least", len(distinct))
	}
	if w.router.Current() != serving || w.Status().Err != nil || storetest.Load(t, w.store).Revision != 1 {
		t.Errorf("serving %v, store at %d, %v, want nothing to have happened",
			w.router.Current().Revision(), storetest.Load(t, w.store).Revision, w.Status().Err)
	}
}

// TestChangesAreToldBeforeTheyAreServed, once each and in order, whoever made them.
func TestChangesAreToldBeforeTheyAreServed(t *testing.T) {
	store := memstore.New(memstore.Config{})
	a, b := startWatcher(t, store, seed(storetest.Route("m", "v1"))), startWatcher(t, store)
	var mu sync.Mutex
	var told []string
	b.Tell(func(c *routingv1.Change) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%d while %d is served, rollback %v", c.GetRevision(), b.router.Current().Revision(), c.GetRollback()))
	})
	a.update(t, &routing.Update{Set: []*routingv1.Route{storetest.Route("m", "v2")}})
	a.update(t, &routing.Update{Set: []*routingv1.Route{storetest.Route("m", "v1")}, Rollback: true})
	storetest.Eventually(t, "both changes are served", func() bool { return b.router.Current().Revision() == 3 })
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"2 while 1 is served, rollback false", "3 while 2 is served, rollback true"}; !slices.Equal(told, want) {
		t.Errorf("told is %q, want %q", told, want)
	}
}
