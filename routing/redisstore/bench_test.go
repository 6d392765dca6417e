package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

// benchWatcher follows a Redis with the settings of production.
func benchWatcher(b *testing.B, url, cache string, pollOnly bool) (*routing.Watcher, *routing.Router) {
	b.Helper()
	store, err := redisstore.Open(redisstore.Config{URL: url, PollOnly: pollOnly})
	if err != nil {
		b.Fatal(err)
	}
	router := routing.NewRouter()
	w := routing.NewWatcher(routing.WatcherConfig{Store: store, Router: router, CacheDir: cache, Logger: slog.New(slog.DiscardHandler)})
	if err := w.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("Run = %v, want nil", err)
		}
		_ = store.Close()
	})
	return w, router
}

// BenchmarkPropagation is the time from the call that makes a change to the last
// of three gateways that serve it. By polling alone an iteration takes seconds:
// use -benchtime=20x.
func BenchmarkPropagation(b *testing.B) {
	for _, how := range []string{"stream", "polling"} {
		b.Run(how, func(b *testing.B) {
			server := storetest.StartRedis(b)
			arrived := make(chan time.Time, 3)
			for range 3 {
				_, router := benchWatcher(b, server.URL(), "", how == "polling")
				router.Follow(func(t *routing.Table) {
					if t.Revision() > 0 {
						arrived <- time.Now()
					}
				})
			}
			writer, err := redisstore.Open(redisstore.Config{URL: server.URL()})
			if err != nil {
				b.Fatal(err)
			}
			defer writer.Close()
			var times []time.Duration
			for i := uint64(0); b.Loop(); i++ {
				begun := time.Now()
				storetest.Update(b, writer, &routing.Update{Expected: i, Set: []*routingv1.Route{storetest.Route("m", fmt.Sprint("v", i))}})
				var last time.Time
				for range 3 {
					if at := <-arrived; at.After(last) {
						last = at
					}
				}
				times = append(times, last.Sub(begun))
			}
			slices.Sort(times)
			for name, q := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99, "max-ms": 1} {
				at := times[min(len(times)-1, int(q*float64(len(times))))]
				b.ReportMetric(float64(at.Microseconds())/1000, name)
			}
		})
	}
}

// BenchmarkStart is a gateway's start with 10,000 routes: from Redis, from Redis
// with last time's state on disk, and without Redis.
func BenchmarkStart(b *testing.B) {
	server := storetest.StartRedis(b)
	store, err := redisstore.Open(redisstore.Config{URL: server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	var routes []*routingv1.Route
	for i := range 10_000 {
		routes = append(routes, storetest.Route(fmt.Sprint("team/model-", i), "v1", "v2"))
	}
	storetest.Update(b, store, &routing.Update{Set: routes})
	cache := filepath.Join(b.TempDir(), "cache")
	start := func(b *testing.B, cache string) {
		b.Helper()
		router := routing.NewRouter()
		w := routing.NewWatcher(routing.WatcherConfig{Store: store, Router: router, CacheDir: cache, Logger: slog.New(slog.DiscardHandler)})
		if err := w.Start(context.Background()); err != nil || router.Current().Len() != 10_000 {
			b.Fatalf("Start = %v with %d routes", err, router.Current().Len())
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		b.StopTimer()
		if err := w.Run(ended); err != nil { // gives the folder back
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.Run("redis", func(b *testing.B) {
		for b.Loop() {
			start(b, "")
		}
	})
	start(b, cache)
	b.Run("redis and disk", func(b *testing.B) {
		for b.Loop() {
			start(b, cache)
		}
	})
	server.Kill()
	b.Run("disk", func(b *testing.B) {
		for b.Loop() {
			start(b, cache)
		}
	})
}
