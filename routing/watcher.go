package routing

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// WatcherConfig says what a [Watcher] follows. Store and Router have to be set.
type WatcherConfig struct {
	Store  Store
	Router *Router
	// CacheDir is the folder for the last good state, one per store and data
	// address, see [CacheDir]; empty keeps none. A store that is itself on this
	// machine needs none.
	CacheDir string
	// Seed, unless nil, is written to the store if nothing ever was. SeedFile is
	// the name of the file it comes from.
	Seed     *routingv1.Document
	SeedFile string
	Logger   *slog.Logger // default slog.Default()
	// StartTimeout bounds how long [Watcher.Start] waits for the store. Default
	// 2 s.
	StartTimeout time.Duration
	// SaveEvery is the least time between two writes of the cache. Default 1 s.
	SaveEvery time.Duration
	// ConfirmEvery is the time between two notes beside the cache that the store still
	// says the same. Default 10 s.
	ConfirmEvery time.Duration
}

// Watcher is the one writer of a [Router]: it follows a [Store] and publishes
// each state whole, with those routes that did not change shared between tables.
//
// What it publishes never goes back to a lower revision. A store that fails,
// loses changes or holds bad documents leaves the last good routes serving, and
// [Watcher.Status] says why. A route goes away only when the store says that it
// was deleted; one that the store merely does not mention stays.
//
// The last good state is kept on disk, so that a gateway can start without its
// store. All methods may be called concurrently.
type Watcher struct {
	cfg   WatcherConfig
	cache *cache // nil without one

	mustLoad atomic.Bool // following changes is not enough
	loading  sync.Mutex  // serialises loading; taken before mu

	mu       sync.Mutex // serialises publishing; never held while the store is asked
	local    *State     // what is published, and tombstones
	storeAt  Position   // what the store was last seen to hold
	known    bool       // storeAt says so
	source   Source
	taken    time.Time // when the store last confirmed local, but for answers while it is being followed
	refused  map[string]Refusal
	orphans  map[string]bool // entries of local that the store does not mention
	removed  int             // entries that the store should have
	recent   ring
	failure  error // why the store is not being followed
	late     bool  // changes are seen late, and that has been logged
	counts   StoreCounts
	seedDiff []string
	waiters  chan struct{} // closed and replaced when something is published
	tell     []func(*routingv1.Change)
}

// NewWatcher returns a Watcher that has not read anything yet.
func NewWatcher(cfg WatcherConfig) *Watcher {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = 2 * time.Second
	}
	if cfg.SaveEvery == 0 {
		cfg.SaveEvery = time.Second
	}
	if cfg.ConfirmEvery == 0 {
		cfg.ConfirmEvery = 10 * time.Second
	}
	w := &Watcher{
		cfg:     cfg,
		local:   StateOf(nil),
		refused: make(map[string]Refusal),
		orphans: make(map[string]bool),
		waiters: make(chan struct{}),
		counts:  newStoreCounts(),
	}
	w.mustLoad.Store(true)
	return w
}

// Tell has f called with each change that is about to be published from now on, in order, one at a time. What is only found out
// by loading the whole state anew is not told. f must not block, alter the change, nor call the watcher.
func (w *Watcher) Tell(f func(*routingv1.Change)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell = append(w.tell, f)
}

// Start publishes what there is: the store's state, or while the store does not
// answer, the one kept on disk. Without either it publishes nothing, so that the
// gateway is live but not ready, and [Watcher.Run] goes on trying. Only what
// cannot heal by itself is an error. Start is called once, before Run.
func (w *Watcher) Start(ctx context.Context) error {
	w.openCache()
	ctx, cancel := context.WithTimeout(ctx, w.cfg.StartTimeout)
	defer cancel()
	err := w.reload(ctx)
	_ = w.remember(err)
	if err != nil {
		w.sayWhatIsServed(err)
	}
	var invalid *FieldError
	if errors.As(err, &invalid) {
		return err // a seed that is refused will be refused again
	}
	return nil
}

// sayWhatIsServed tells operators how a start without the store went.
func (w *Watcher) sayWhatIsServed(err error) {
	s := w.Status()
	if s.Source == FromCache {
		w.cfg.Logger.Warn("the store cannot be read, serving the last good state kept on disk",
			"store", w.cfg.Store, "revision", s.Revision, "age", s.Age().Round(time.Second), "error", err)
		return
	}
	w.cfg.Logger.Error("the store cannot be read and no state is kept on disk: not ready",
		"store", w.cfg.Store, "error", err)
}

// Backoff between attempts to follow a store that fails.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// Run follows the store until ctx ends, and then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer w.closeCache()
	defer group.Wait()
	group.Go(func() { w.saveWhenChanged(ctx) })
	backoff := minBackoff
	for ctx.Err() == nil {
		begun := time.Now()
		err := w.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		w.note(err)
		if time.Since(begun) > maxBackoff {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff/2)): // not all gateways at once
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// follow applies what the store tells until that ends. It loads the whole state
// only when it has to.
func (w *Watcher) follow(ctx context.Context) error {
	if w.mustLoad.Load() {
		if err := w.reload(ctx); err != nil {
			return err
		}
	}
	at := w.storePosition()
	// A Watch that waits says nothing; this says whether the store is there.
	_, err := w.cfg.Store.History(ctx, HistoryQuery{From: at.Revision, Limit: 1})
	if err != nil {
		return err
	}
	w.note(nil)
	err = w.cfg.Store.Watch(ctx, at, w.apply)
	if errors.Is(err, ErrGap) {
		w.mustLoad.Store(true)
		return w.reload(ctx)
	}
	return err
}

func (w *Watcher) storePosition() Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.storeAt
}

// reload brings the published state in line with the store's whole state. Changes that
// operators make find out about losses too, so there may be two at a time.
func (w *Watcher) reload(ctx context.Context) error {
	w.loading.Lock()
	defer w.loading.Unlock()
	return w.loadAgain(ctx)
}

// loadAgain is reload for those that hold w.loading.
func (w *Watcher) loadAgain(ctx context.Context) error {
	for {
		before := w.position()
		s, err := w.cfg.Store.Load(ctx)
		if err == nil {
			err = w.reconcile(ctx, s)
		}
		w.mustLoad.Store(err != nil)
		if err == nil || w.position() == before || ctx.Err() != nil {
			return err
		} // a change was applied meanwhile, and what was loaded may have been too old
	}
}

// note remembers why the store is not being followed, nil if it is, and logs it
// when that becomes something else.
func (w *Watcher) note(err error) {
	before := w.remember(err)
	log := w.cfg.Logger.With("store", w.cfg.Store.String(), "revision", w.position().Revision)
	switch {
	case err != nil && (before == nil || kindOf(err) != kindOf(before)):
		log.Warn("the store is not being followed, the last good routes stay", "error", err)
	case err == nil && before != nil:
		log.Info("the store is being followed again")
	}
}

// remember keeps why the store is not being followed and returns what was kept.
func (w *Watcher) remember(err error) (before error) {
	health := w.cfg.Store.Health()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil && err != nil {
		w.taken = w.confirmed(health) // from now on the store's answers say nothing about it
	}
	before, w.failure = w.failure, err
	w.count(OpFollow, err)
	if err == nil && before != nil {
		w.counts.Reconnects++
	}
	return before
}

// kindOf is what matters of an error to somebody who reads the log: that a store
// cannot be reached is the same news from whatever port it was tried.
func kindOf(err error) string {
	var refused *RefusedError
	var unavailable *UnavailableError
	switch {
	case errors.As(err, &refused):
		return refused.Reason
	case errors.As(err, &unavailable):
		return "unavailable"
	default:
		return err.Error()
	}
}
