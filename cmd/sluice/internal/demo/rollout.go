package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/sample"
)

// The versions that the demo rolls out.
const (
	before = "v1"
	after  = "v2"
)

// split is the weights of both versions, in percent unless an operator has set
// others.
type split struct{ before, after uint32 }

func (s split) String() string { return fmt.Sprintf("%s=%d %s=%d", before, s.before, after, s.after) }

// weight is that of one version.
func (s split) weight(version string) uint32 {
	switch version {
	case before:
		return s.before
	case after:
		return s.after
	}
	return 0
}

// stages are the splits of the rollout, in order.
var stages = []split{{90, 10}, {50, 50}, {0, 100}}

// stageTime is how long a stage lasts when the demo has no end, and retryTime how
// long one waits that could not begin because the store did not answer.
const (
	stageTime = 10 * time.Second
	retryTime = time.Second
)

// actor is the demo's name in the history.
const actor = "demo"

// rollout changes the split through a store, one stage after the other. Others may
// change it as well, and what they make of it is what counts.
type rollout struct {
	router    *routing.Router
	watcher   *routing.Watcher
	endpoints map[string][]string // by version
	stage     int                 // how many have begun
	unfollow  func()

	mu     sync.Mutex
	splits map[uint64]split // by the revision that published it
}

// newRollout begins no stage yet. Its watcher has to run, and close has to be
// called in the end.
func newRollout(ctx context.Context, store routing.Store, endpoints map[string][]string, log *slog.Logger) (*rollout, error) {
	r := &rollout{router: routing.NewRouter(), endpoints: endpoints, splits: make(map[uint64]split)}
	r.watcher = routing.NewWatcher(routing.WatcherConfig{Store: store, Router: r.router, Logger: log})
	if err := r.watcher.Start(ctx); err != nil {
		return nil, err
	}
	if _, _, taken := r.watcher.Entry(sample.ModelName); taken {
		return nil, fmt.Errorf("the store has a route for %q already: the demo would replace it, and delete it in the end", sample.ModelName)
	}
	r.unfollow = r.router.Follow(r.note)
	return r, nil
}

func (r *rollout) close() { r.unfollow() }

// note remembers the split of a table.
func (r *rollout) note(t *routing.Table) {
	route, ok := t.Route(sample.ModelName)
	if !ok {
		return
	}
	var s split
	if v, ok := route.Version(before); ok {
		s.before = v.Weight
	}
	if v, ok := route.Version(after); ok {
		s.after = v.Weight
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.splits[t.Revision()] = s
}

// splitOf is the split that was published as a revision, in the decimal form in
// which answers carry it; false for a revision that was not.
func (r *rollout) splitOf(revision string) (split, bool) {
	n, err := strconv.ParseUint(revision, 10, 64)
	if err != nil {
		return split{}, false
	}
	if s, ok := r.noted(n); ok {
		return s, true
	}
	// The gateway may have been told of a table first. Following waits until
	// everyone has been.
	r.router.Follow(func(*routing.Table) {})()
	return r.noted(n)
}

func (r *rollout) noted(revision uint64) (split, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.splits[revision]
	return s, ok
}

// next publishes the split of the next stage; after the last comes the first.
func (r *rollout) next(ctx context.Context) error {
	n := r.stage % len(stages)
	route := &routingv1.Route{
		Model:   sample.ModelName,
		Weights: map[string]uint32{before: stages[n].before, after: stages[n].after},
	}
	for _, version := range []string{before, after} {
		route.Versions = append(route.Versions, &routingv1.Version{Name: version, Endpoints: r.endpoints[version]})
	}
	reason := fmt.Sprintf("stage %d of %d", n+1, len(stages))
	if err := r.update(ctx, &routing.Update{Set: []*routingv1.Route{route}, Reason: reason}); err != nil {
		return fmt.Errorf("split %v: %w", stages[n], err)
	}
	r.stage++
	return nil
}

// end takes the route away: its endpoints go with the demo, and others may share
// the store.
func (r *rollout) end(ctx context.Context) error {
	if _, _, ok := r.watcher.Entry(sample.ModelName); !ok {
		return nil
	}
	return r.update(ctx, &routing.Update{Delete: []string{sample.ModelName}, Reason: "the demo is over"})
}

// update makes a change, after whatever others change at the same time.
func (r *rollout) update(ctx context.Context, u *routing.Update) error {
	u.Actor = actor
	for {
		at := r.watcher.State()
		u.Expected, u.ExpectedID = at.Revision, at.ID
		_, err := r.watcher.Update(ctx, u)
		var conflict *routing.ConflictError
		if errors.Is(err, routing.ErrUnchanged) {
			return nil
		}
		if !errors.As(err, &conflict) || ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond) // until that change has come here
	}
}

// current is the split published last.
func (r *rollout) current() split {
	s, _ := r.splitOf(r.router.Current().RevisionText())
	return s
}

// progress tells where the rollout stands.
type progress struct {
	elapsed  time.Duration // since the rollout began
	split    split         // published last
	revision uint64        // of that split
}

func (r *rollout) progress(elapsed time.Duration) progress {
	return progress{elapsed: elapsed, split: r.current(), revision: r.router.Current().Revision()}
}

// run goes through the stages until ctx ends, telling its progress every
// second; the first has begun. With a total time each stage takes its equal part
// of it; without, each takes stageTime and they begin again after the last.
func (r *rollout) run(ctx context.Context, total time.Duration, tell func(progress)) error {
	each := stageTime
	if total > 0 {
		each = total / time.Duration(len(stages))
	}
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	change := time.NewTimer(each)
	defer change.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tell(r.progress(time.Since(begin)))
		case <-change.C:
			if total > 0 && r.stage == len(stages) {
				continue // the end is near; rounding may put it behind the last change
			}
			err := r.next(ctx)
			var unavailable *routing.UnavailableError
			switch {
			case err == nil:
				change.Reset(each)
			case ctx.Err() != nil:
				return nil
			case errors.As(err, &unavailable):
				change.Reset(retryTime) // calls go on meanwhile, which is what there is to see
			default:
				return err
			}
		}
	}
}
