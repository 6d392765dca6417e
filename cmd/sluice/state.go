package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/stores"
	"sluice/telemetry/drift"
	"sluice/telemetry/labels"
	"sluice/telemetry/payload"
)

// stateOptions say where the routing state of a gateway comes from.
type stateOptions struct {
	routes   string // file; empty for none
	store    string // as of stores.Open
	stateDir string // empty for the default
	listen   string // the data address, which tells gateways on one machine apart
}

// state is the routing state of one gateway: the store, what follows it and, if
// the store is in memory, the file of routes.
type state struct {
	*routing.Watcher
	store routing.Store
	kind  stores.Kind
	file  *routing.FileSource // nil if no file is followed
	log   *slog.Logger
}

// openState publishes the first routes to router, if there are any to be had.
func openState(ctx context.Context, o stateOptions, router *routing.Router, log *slog.Logger) (*state, error) {
	store, kind, err := openStore(o.store, "sluice serve")
	if err != nil {
		return nil, err
	}
	s := &state{store: store, kind: kind, log: log}
	if err := s.start(ctx, o, router); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

// openStore opens the store that a command's flag names.
func openStore(spec, command string) (routing.Store, stores.Kind, error) {
	store, kind, err := stores.Open(spec)
	var bad *stores.SpecError
	if errors.As(err, &bad) {
		err = &usageError{fmt.Errorf("--%w", err), command}
	}
	return store, kind, err
}

func (s *state) start(ctx context.Context, o stateOptions, router *routing.Router) error {
	seed, err := readRoutes(o.routes)
	if err != nil && s.kind == stores.Memory {
		return fmt.Errorf("routes: %w", err)
	}
	if err != nil {
		s.log.Error("the file of routes cannot be used, the store has to do", "error", err)
	}
	s.Watcher = routing.NewWatcher(routing.WatcherConfig{
		Store: s.store, Router: router, Logger: s.log,
		CacheDir: s.cacheDir(o), Seed: seed, SeedFile: o.routes,
	})
	if err := s.Watcher.Start(ctx); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	if s.kind != stores.Memory || o.routes == "" {
		return nil
	}
	s.file = routing.NewFileSource(routing.FileConfig{Path: o.routes, Watcher: s.Watcher, Logger: s.log})
	return s.file.Load()
}

// cacheDir is where the last good state is kept. A store on this machine needs
// none, and without a place for it a gateway runs all the same.
func (s *state) cacheDir(o stateOptions) string {
	if s.kind != stores.Redis {
		return ""
	}
	base := o.stateDir
	if base == "" {
		var err error
		if base, err = routing.DefaultStateDir(); err != nil {
			s.log.Warn("the last good state will not be kept", "error", err)
			return ""
		}
	}
	return routing.CacheDir(base, s.store, o.listen)
}

// readRoutes reads a file of routes; none without a name.
func readRoutes(file string) (*routingv1.Document, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return routing.Parse(file, data)
}

// run follows store and file until ctx ends.
func (s *state) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Watcher.Run(ctx) })
	group.Go(func() error { return s.onHangup(ctx) })
	if s.file != nil {
		group.Go(func() error { return s.file.Run(ctx) })
	}
	return group.Wait()
}

// close gives the store back, once run has ended.
func (s *state) close() {
	if err := s.store.Close(); err != nil {
		s.log.Warn("closing the store", "error", err)
	}
}

// announce says where the routing state is and what becomes of it.
func (s *state) announce() {
	status := s.Status()
	log := s.log.With("store", status.Store, "revision", status.Revision)
	switch {
	case s.kind != stores.Memory:
		log.Info("routing state is in the store", "source", status.Source.String(), "cache", status.CacheDir)
	case s.file != nil:
		log.Info("routing state is in memory, seeded from the file of routes: changes end with the process, and a new content of the file replaces them")
	default:
		log.Info("routing state is in memory: changes end with the process")
	}
	if !status.Ready() {
		s.log.Warn("no routes yet, so not ready; try: sluice apply -f routes.yaml")
	}
}

// onHangup reads the file of routes again whenever SIGHUP comes.
func (s *state) onHangup(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			if s.file == nil {
				s.log.Info("no file of routes is followed: the store has the routing state; try: sluice apply -f routes.yaml")
				continue
			}
			s.file.Reload()
		}
	}
}

// newDrift returns what watches the data of versions, by way of the store, and writes samples down unless payloads is nil.
func newDrift(store routing.Store, kind stores.Kind, payloads *payload.Sampler, log *slog.Logger) *drift.Monitor {
	return drift.New(drift.Config{
		Payloads: payloads,
		Shelf:    func(name string) drift.Shelf { return store.Shelf(name) }, Shared: kind == stores.Redis, Logger: log,
	})
}

// newLabels returns what takes labels, by way of the store. Without a file of keys, ids are good for this process alone.
func newLabels(keyFile string, store routing.Store, log *slog.Logger) (*labels.Monitor, error) {
	signer := labels.NewSigner()
	if keyFile != "" {
		var err error
		if signer, err = labels.ReadSigner(keyFile); err != nil {
			return nil, err
		}
	}
	marker, _ := store.(routing.Marker) // nil, if this gateway is alone
	return labels.New(labels.Config{
		Marker: marker, Signer: signer, Shelf: func(name string) labels.Shelf { return store.Shelf(name) }, Logger: log,
		OwnKey: keyFile == "",
	}), nil
}
