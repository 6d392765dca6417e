package labels

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	labelsv1 "sluice/proto/sluice/labels/v1"
)

const (
	// tallyShelf has a tally for each "MODEL VERSION GATEWAY".
	tallyShelf = "label-tallies"
	// baselineShelf has a baseline for each "MODEL VERSION".
	baselineShelf = "label-baselines"

	shortestBeat = 250 * time.Millisecond
	longestBeat  = 5 * time.Second
	// storeTimeout bounds one look into the store.
	storeTimeout = 2 * time.Second
)

// keeper exchanges counts with other gateways through the store, and looks for changes in their sums. It is one
// goroutine; a store that hangs makes it late, and then it goes on with what is known.
type keeper struct {
	*Monitor
	published map[Key]uint64  // changes of what was published last
	broken    bool            // the store, as was logged
	strange   map[string]bool // keys of what is no tally, as was logged
}

// Run exchanges and judges until ctx ends, and returns nil.
func (m *Monitor) Run(ctx context.Context) error {
	k := &keeper{Monitor: m, published: make(map[Key]uint64), strange: make(map[string]bool)}
	for {
		k.step(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(k.beat()):
		}
	}
}

// beat is the time between two steps: short against the shortest window.
func (k *keeper) beat() time.Duration {
	beat := longestBeat
	for _, v := range k.all() {
		v.mu.Lock()
		beat = min(beat, v.settings.Window/20)
		v.mu.Unlock()
	}
	return max(beat, shortestBeat)
}

func (k *keeper) step(ctx context.Context, now time.Time) {
	all := k.all()
	if len(all) == 0 {
		return
	}
	err := k.exchange(ctx, all, now)
	switch {
	case err != nil && !k.broken && ctx.Err() == nil:
		k.broken = true
		k.cfg.Logger.Warn("labels: the store cannot be used, going on with what this gateway knows", "error", err)
	case err == nil && k.broken:
		k.broken = false
		k.cfg.Logger.Info("labels: the store is back")
	}
	for _, v := range all {
		if a, raised := v.look(now); raised {
			k.raise(a)
		}
	}
}

// exchange leaves this gateway's counts for the others, and takes theirs.
func (k *keeper) exchange(ctx context.Context, all []*Version, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	tallies := k.cfg.Shelf(tallyShelf)
	for _, v := range all {
		t, changes := v.tally(now)
		if changes == k.published[v.key] {
			continue
		}
		data, err := proto.Marshal(t)
		if err != nil {
			return err
		}
		if err := tallies.Put(ctx, v.key.shelfKey()+" "+k.gateway, data); err != nil {
			return err
		}
		k.published[v.key] = changes
	}
	stored, err := tallies.All(ctx)
	if err != nil {
		return err
	}
	others, err := k.sort(ctx, tallies, stored, now)
	if err != nil {
		return err
	}
	for _, v := range all {
		v.setOthers(others[v.key.shelfKey()])
	}
	return k.baselines(ctx, all)
}

// longestUse is for how long a tally can be of use: the longest max_age and the longest windows that routes may have.
const longestUse = 90*24*time.Hour + 2*7*24*time.Hour

// sort returns the tallies of other gateways, by version and gateway, and removes those that are of no use any more. What is
// no tally does not keep the others from being added.
func (k *keeper) sort(ctx context.Context, shelf Shelf, stored map[string][]byte, now time.Time) (map[string]map[string]*labelsv1.Tally, error) {
	sorted := make(map[string]map[string]*labelsv1.Tally)
	for key, data := range stored {
		at := strings.LastIndexByte(key, ' ')
		if at < 0 || key[at+1:] == k.gateway {
			continue
		}
		version, gateway := key[:at], key[at+1:]
		t := new(labelsv1.Tally)
		if err := proto.Unmarshal(data, t); err != nil {
			if !k.strange[key] {
				k.strange[key] = true
				k.cfg.Logger.Warn("labels: what a gateway has left in the store cannot be read, and is not added", "key", key, "error", err)
			}
			continue
		}
		use := longestUse
		if v := k.version(keyOf(version)); v != nil {
			use = v.use()
		}
		if now.Sub(time.Unix(t.GetChanged(), 0)) > use {
			if err := shelf.Put(ctx, key, nil); err != nil {
				return nil, err
			}
			continue
		}
		if sorted[version] == nil {
			sorted[version] = make(map[string]*labelsv1.Tally)
		}
		sorted[version][gateway] = t
	}
	return sorted, nil
}

// baselines agrees on what share of errors is usual. Of several gateways that have learnt one, the first one's is taken.
func (k *keeper) baselines(ctx context.Context, all []*Version) error {
	shelf := k.cfg.Shelf(baselineShelf)
	stored, err := shelf.All(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		old := stored[v.key.shelfKey()]
		b := new(labelsv1.Baseline)
		if err := proto.Unmarshal(old, b); err != nil {
			b = new(labelsv1.Baseline) // and what is learnt takes its place
		}
		learnt := v.takeBaseline(b)
		if learnt == nil {
			continue
		}
		data, err := proto.Marshal(learnt)
		if err != nil {
			return err
		}
		swapped, err := shelf.Swap(ctx, v.key.shelfKey(), old, data)
		if err != nil {
			return err
		}
		if swapped {
			v.takeBaseline(learnt)
			k.cfg.Logger.Info("labels: learnt how often a version errs", "model", v.key.Model, "version", v.key.Version,
				"errors", learnt.GetErrors(), "labels", learnt.GetLabels())
		}
	}
	return nil
}

// tally is what this gateway has counted, and how often anything was.
func (v *Version) tally(now time.Time) (*labelsv1.Tally, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance(now)
	t := &labelsv1.Tally{
		Layout: v.layout, Total: &labelsv1.Totals{Labels: v.total.labels, Errors: v.total.errors}, Changed: v.changed.Unix(),
	}
	for i, w := range v.windows {
		if w.labels > 0 {
			t.Windows = append(t.Windows, w.encode(v.current-int64(i)))
		}
	}
	for n, c := range v.cohorts {
		t.Cohorts = append(t.Cohorts, &labelsv1.Cohort{Number: n, Predictions: c.predictions, Labels: c.labels})
	}
	return t, v.changes
}

// use is for how long a tally of the version is of use.
func (v *Version) use() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.settings.MaxAge + 2*v.settings.Window
}

// setOthers takes what other gateways have counted by the same settings.
func (v *Version) setOthers(others map[string]*labelsv1.Tally) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for gateway, t := range others {
		if t.GetLayout() != v.layout {
			delete(others, gateway)
		}
	}
	v.others = others
}

// takeBaseline watches by a baseline from the store, if one is needed and this is one. If not, what has been learnt is
// returned, nil if nothing has.
func (v *Version) takeBaseline(b *labelsv1.Baseline) (learnt *labelsv1.Baseline) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch w := &v.change; {
	case w.learn == 0:
		return nil
	case b.GetLabels() > 0 && b.GetLayout() == v.layout:
		w.begin(rateBefore(b), &v.settings)
		return nil
	case !w.learnt():
		return nil
	default:
		return &labelsv1.Baseline{Errors: w.learning.errors, Labels: w.learning.labels, Layout: v.layout}
	}
}
