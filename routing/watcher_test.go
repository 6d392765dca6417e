package routing_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
)

// route returns a valid document with one version.
func route(model, version string) *routingv1.Route {
	return &routingv1.Route{
		Model:    model,
		Versions: []*routingv1.Version{{Name: version, Endpoints: []string{"127.0.0.1:1"}}},
		Weights:  map[string]uint32{version: 1},
	}
}

func TestWatcherQuick(t *testing.T) {
	store := memstore.New(memstore.Config{})
	router := routing.NewRouter()
	w := routing.NewWatcher(routing.WatcherConfig{Store: store, Router: router, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Seed: &routingv1.Document{Routes: []*routingv1.Route{route("a", "v1")}}, SeedFile: "x", CacheDir: t.TempDir() + "/c"})
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t0 := time.Now()
	c, err := w.Update(t.Context(), &routing.Update{Expected: 1, Set: []*routingv1.Route{route("b", "v2")}, Actor: "me"})
	t.Log(c, err, time.Since(t0))
	t.Logf("%+v", w.Status())
	cancel()
	<-done
}
