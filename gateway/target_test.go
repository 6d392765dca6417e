package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"sluice/breaker"
	"sluice/gateway/relay"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
)

// watchedTargets runs a watcher over n routes with two versions each, and follows it
// with targets.
type watchedTargets struct {
	*targets
	watcher *routing.Watcher
	latest  *snapshot
}

func watchRoutes(tb testing.TB, n int) *watchedTargets {
	tb.Helper()
	r := relay.New(relay.Config{}, &director{})
	tb.Cleanup(r.Close)
	var started sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(started.Wait)
	tb.Cleanup(cancel)
	cfg := &Config{Logger: slog.New(slog.DiscardHandler)}
	w := &watchedTargets{targets: newTargets(ctx, r, breaker.NewGroup(), cfg, nil, started.Go)}
	doc := new(routingv1.Document)
	for i := range n {
		doc.Routes = append(doc.Routes, routeOf(i, 90))
	}
	router := routing.NewRouter()
	w.watcher = routing.NewWatcher(routing.WatcherConfig{
		Store: memstore.New(memstore.Config{}), Router: router, Logger: slog.New(slog.DiscardHandler), Seed: doc,
	})
	if err := w.watcher.Start(ctx); err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.watcher.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("watcher: %v", err)
		}
	})
	tb.Cleanup(router.Follow(func(t *routing.Table) {
		s, retire := w.prepare(t)
		w.latest = s
		retire()
	}))
	return w
}

func routeOf(i int, weight uint32) *routingv1.Route {
	return &routingv1.Route{
		Model: fmt.Sprintf("model-%d", i),
		Versions: []*routingv1.Version{
			{Name: "v1", Endpoints: []string{"127.0.0.1:1"}}, {Name: "v2", Endpoints: []string{"127.0.0.1:2"}},
		},
		Weights: map[string]uint32{"v1": weight, "v2": 100 - weight},
	}
}

// set gives a route of the table new weights.
func (w *watchedTargets) set(tb testing.TB, i int, weight uint32) {
	tb.Helper()
	_, err := w.watcher.Update(tb.Context(), &routing.Update{
		Expected: w.watcher.Status().Revision,
		Set:      []*routingv1.Route{routeOf(i, weight)}, Actor: "test",
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// TestChangeOfOneRouteLeavesTheOthersAlone checks that unchanged routes keep
// their targets, and the changed one its endpoints and breakers.
func TestChangeOfOneRouteLeavesTheOthersAlone(t *testing.T) {
	w := watchRoutes(t, 20)
	before := w.latest
	w.set(t, 3, 50)
	after := w.latest
	if after == before {
		t.Fatal("no new snapshot")
	}
	for r := range after.table.Routes() {
		old, _ := before.table.Route(r.Model)
		for i, v := range r.Versions {
			was, is := before.targets.get(old.Versions[i]), after.targets.get(v)
			if changed := r.Model == "model-3"; (was == is) == changed {
				t.Errorf("%s: target kept = %v, want %v", v.ID, was == is, !changed)
			}
			if was.group != is.group || was.guard != is.guard {
				t.Errorf("%s has other endpoints or another breaker", v.ID)
			}
		}
	}
	if n := len(w.groups); n != 40 {
		t.Errorf("%d groups of endpoints, want 40", n)
	}
}

// BenchmarkApplyOneOf is a change of one route from the store to the snapshot
// that calls read.
func BenchmarkApplyOneOf(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			w := watchRoutes(b, n)
			i := 0
			for b.Loop() {
				i++
				w.set(b, i%n, uint32(i%89)+1)
			}
		})
	}
}
