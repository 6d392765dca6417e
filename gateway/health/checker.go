package health

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// maxAtOnce bounds the rounds of questions under way at the same time. Where so many
// servers hang at once, their rounds wait for each other.
const maxAtOnce = 256

// Checker asks servers, each as long as somebody watches it. Safe for concurrent use.
type Checker struct {
	ctx   context.Context
	spawn func(func())
	slots chan struct{}

	mu      sync.Mutex
	servers map[serverKey]*server
}

// serverKey tells servers apart. Watchers with other settings have it asked apart, too.
type serverKey struct {
	Server
	Settings
}

// New returns a checker that asks until ctx ends. spawn starts its goroutines, one per
// server, whose end is the caller's to await.
func New(ctx context.Context, spawn func(func())) *Checker {
	return &Checker{
		ctx: ctx, spawn: spawn,
		slots: make(chan struct{}, maxAtOnce), servers: make(map[serverKey]*server),
	}
}

// Watch is somebody's interest in a target. Safe for concurrent use.
type Watch struct {
	checker *Checker
	server  *server
	check   *target
	changed func(Status)
}

// Watch has a target asked and tells changed whenever its state changes, from now on,
// and at once if it is known already. changed must not block, nor call the checker.
func (c *Checker) Watch(t Target, s Settings, changed func(Status)) *Watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := serverKey{t.Server, s}
	srv := c.servers[key]
	if srv == nil {
		ctx, stop := context.WithCancel(c.ctx)
		srv = &server{
			settings: s, slots: c.slots, stop: stop,
			prober: newProber(t.Server, s.Timeout), targets: make(map[Model]*target),
		}
		c.servers[key] = srv
		c.spawn(func() { srv.run(ctx) })
	}
	w := &Watch{checker: c, server: srv, changed: changed}
	srv.join(t.Model, w)
	return w
}

// Stop ends the watch: changed is not called any more once it returns. It may be
// called again.
func (w *Watch) Stop() {
	c := w.checker
	c.mu.Lock()
	defer c.mu.Unlock()
	if !w.server.leave(w) {
		return
	}
	w.server.stop()
	for key, s := range c.servers {
		if s == w.server {
			delete(c.servers, key)
		}
	}
}

// Status returns what is known now.
func (w *Watch) Status() Status {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return w.check.Status
}

// Answered tells that a call to the target was answered: who answers calls is alive,
// however long it takes to say so. It may be used on the path of calls.
func (w *Watch) Answered(at time.Time) { w.check.answered.Store(at.UnixNano()) }

// target is a model that somebody watches. All but answered is guarded by its
// server's mutex.
type target struct {
	record
	model    Model
	watches  map[*Watch]struct{}
	answered atomic.Int64 // when a call was answered last, as Unix time in nanoseconds
}
