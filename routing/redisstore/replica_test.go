package redisstore_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/redisstore"
	"sluice/routing/storetest"
)

// replica is what a gateway has of the routing state, over a Redis. It fails the
// test if its revision ever goes back.
type replica struct {
	*routing.Watcher
	t      *testing.T
	router *routing.Router
	store  *redisstore.Store
	log    *logBuffer
	stop   func()
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

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startReplica starts a replica, which runs until its stop is called or the test
// ends. A cache of "" keeps none.
func startReplica(t *testing.T, url, cache string, alter ...func(*redisstore.Config)) *replica {
	t.Helper()
	return startReplicaWith(t, url, cache, nil, alter...)
}

// startReplicaWith starts one whose watcher is otherwise than usual.
func startReplicaWith(t *testing.T, url, cache string, watch func(*routing.WatcherConfig), alter ...func(*redisstore.Config)) *replica {
	t.Helper()
	r := &replica{t: t, router: routing.NewRouter(), log: new(logBuffer), store: open(t, url, alter...)}
	cfg := routing.WatcherConfig{
		Store: r.store, Router: r.router, CacheDir: cache, SaveEvery: 10 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	if watch != nil {
		watch(&cfg)
	}
	r.Watcher = routing.NewWatcher(cfg)
	last := uint64(0)
	unfollow := r.router.Follow(func(table *routing.Table) {
		if table.Revision() < last {
			t.Errorf("a replica went back from revision %d to %d", last, table.Revision())
		}
		last = table.Revision()
	})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		unfollow()
		if t.Failed() {
			t.Logf("log of a replica:\n%s", r.log)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// serving returns the versions that the replica serves of a model, and its
// revision.
func (r *replica) serving(model string) string {
	table := r.router.Current()
	route, ok := table.Route(model)
	if !ok {
		return "nothing at " + table.RevisionText()
	}
	var names []string
	for _, v := range route.Versions {
		names = append(names, v.Name)
	}
	return strings.Join(names, ",") + " at " + table.RevisionText()
}

func (r *replica) await(model, want string) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for r.serving(model) != want {
		if time.Now().After(deadline) {
			r.t.Fatalf("serving %s: %s, want %s; status: %v", model, r.serving(model), want, r.Status().Err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// awaitProblem waits until the status says something.
func (r *replica) awaitProblem(want string) {
	r.t.Helper()
	storetest.Eventually(r.t, fmt.Sprintf("the status says %q", want), func() bool {
		err := r.Status().Err
		return err != nil && strings.Contains(err.Error(), want)
	})
}

// awaitWell waits until nothing is wrong.
func (r *replica) awaitWell() {
	r.t.Helper()
	var err error
	for range 5000 {
		s := r.Status()
		if err = s.Err; err == nil && s.Following {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.t.Fatalf("not well within 10 s: %v", err)
}

// set changes one route through the replica, as an operator who sees what it
// serves.
func (r *replica) set(route *routingv1.Route) (*routingv1.Change, error) {
	return r.Update(r.t.Context(), &routing.Update{
		Expected: r.router.Current().Revision(), Set: []*routingv1.Route{route}, Actor: "operator",
	})
}

func (r *replica) mustSet(route *routingv1.Route) *routingv1.Change {
	r.t.Helper()
	c, err := r.set(route)
	if err != nil {
		r.t.Fatalf("Update: %v", err)
	}
	return c
}
