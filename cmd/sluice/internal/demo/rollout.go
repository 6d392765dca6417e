package demo

import (
	"context"
	"fmt"
	"strconv"
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

// split is the weights of both versions, in percent.
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

// stageTime is how long a stage lasts when the demo has no end.
const stageTime = 10 * time.Second

// splitOf is the split that the demo published as a revision, in the decimal
// form in which answers carry it; false for a revision that it did not.
func splitOf(revision string) (split, bool) {
	n, err := strconv.ParseUint(revision, 10, 64)
	if err != nil || n == 0 {
		return split{}, false
	}
	return stages[(n-1)%uint64(len(stages))], true
}

// rollout publishes one split after the other to a router.
type rollout struct {
	router    *routing.Router
	endpoints map[string][]string // by version
	revision  uint64              // published last
}

// newRollout publishes the first split.
func newRollout(endpoints map[string][]string) (*rollout, error) {
	r := &rollout{router: routing.NewRouter(), endpoints: endpoints}
	if err := r.next(); err != nil {
		return nil, err
	}
	return r, nil
}

// next publishes the split of the next stage; after the last comes the first.
func (r *rollout) next() error {
	r.revision++
	s := r.current()
	route := &routingv1.Route{
		Model:   sample.ModelName,
		Weights: map[string]uint32{before: s.before, after: s.after},
	}
	for _, version := range []string{before, after} {
		route.Versions = append(route.Versions, &routingv1.Version{Name: version, Endpoints: r.endpoints[version]})
	}
	table, err := routing.Build(&routingv1.Document{Routes: []*routingv1.Route{route}}, r.revision)
	if err != nil {
		return fmt.Errorf("split %v: %w", s, err)
	}
	r.router.Publish(table)
	return nil
}

// current is the split published last.
func (r *rollout) current() split {
	s, _ := splitOf(strconv.FormatUint(r.revision, 10))
	return s
}

// progress tells where the rollout stands.
type progress struct {
	elapsed  time.Duration // since the rollout began
	split    split         // published last
	revision uint64        // of that split
}

// run goes through the stages until ctx ends, telling its progress every
// second. With a total time each stage takes its equal part of it; without, each
// takes stageTime and they begin again after the last.
func (r *rollout) run(ctx context.Context, total time.Duration, tell func(progress)) error {
	each := stageTime
	if total > 0 {
		each = total / time.Duration(len(stages))
	}
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	change := time.NewTicker(each)
	defer change.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tell(progress{elapsed: time.Since(begin), split: r.current(), revision: r.revision})
		case <-change.C:
			if total > 0 && r.revision == uint64(len(stages)) {
				continue // the end is near; rounding may put it behind the last change
			}
			if err := r.next(); err != nil {
				return err
			}
		}
	}
}
