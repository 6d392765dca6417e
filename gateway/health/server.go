package health

import (
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// soon is the pause after a failure that is to be confirmed.
	soon = time.Second
	// modelsPerRound bounds the models asked about in one round. A server with more
	// of them is asked about each less often, and about itself as often as any.
	modelsPerRound = 32
)

// server is one that is asked. Its goroutine is the only one to use prober.
type server struct {
	settings Settings
	prober   *prober
	slots    chan struct{}
	stop     context.CancelFunc

	mu      sync.Mutex
	targets map[Model]*target
	last    Model // the last one asked about
}

// join adds a watch of a model.
func (s *server) join(m Model, w *Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[m]
	if t == nil {
		t = &target{model: m, watches: make(map[*Watch]struct{})}
		s.targets[m] = t
	}
	t.watches[w] = struct{}{}
	w.check = t
	if t.State != Unknown {
		w.changed(t.Status)
	}
}

// leave ends a watch, and reports whether it was the server's last one.
func (s *server) leave(w *Watch) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := w.check.watches[w]; !ok {
		return false
	}
	delete(w.check.watches, w)
	if len(w.check.watches) == 0 {
		delete(s.targets, w.check.model)
	}
	return len(s.targets) == 0
}

// run asks round after round until ctx ends. The first one is anywhere within an
// interval: a table brings many servers at once.
func (s *server) run(ctx context.Context) {
	defer s.prober.close()
	pause := time.Duration(rand.Float64() * float64(s.settings.Interval))
	for sleep(ctx, pause) {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		doubtful := s.round(ctx)
		<-s.slots
		pause = time.Duration(float64(s.settings.Interval) * (0.9 + 0.2*rand.Float64()))
		if doubtful {
			pause = min(pause, soon)
		}
	}
}

// sleep waits for d and reports whether ctx is still on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// round asks once. It reports whether a failure is yet to be confirmed.
func (s *server) round(ctx context.Context) (doubtful bool) {
	began := time.Now()
	base := s.prober.aboutServer(ctx)
	most := modelsPerRound
	if base.verdict == failed {
		most = math.MaxInt // it concerns them all
	}
	stuck := s.prober.aboutModels(ctx, base, s.due(most), func(m Model, f finding) {
		doubtful = s.note(m, f, began) || doubtful
	})
	if stuck != nil {
		s.mu.Lock()
		s.last = *stuck // the others come before it next time
		s.mu.Unlock()
	}
	return doubtful
}

// due returns the models to ask about now, at most so many, in turn.
func (s *server) due(most int) []Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.SortedFunc(maps.Keys(s.targets), Model.compare)
	next, found := slices.BinarySearchFunc(all, s.last, Model.compare)
	if found {
		next++
	}
	models := append(slices.Clone(all[next:]), all[:next]...)
	models = models[:min(most, len(models))]
	if len(models) > 0 {
		s.last = models[len(models)-1]
	}
	return models
}

// note takes a finding about a model, and tells who watches it if that changed its
// state. It reports whether a failure is yet to be confirmed.
func (s *server) note(m Model, f finding, began time.Time) (doubtful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[m]
	if t == nil {
		return false // nobody watches it any more
	}
	if t.add(f, began, time.Now(), time.Unix(0, t.answered.Load()), s.settings.FailAfter) {
		for w := range t.watches {
			w.changed(t.Status)
		}
	}
	return t.row > 0 && t.State != Unhealthy
}

func (m Model) compare(o Model) int {
	if c := strings.Compare(m.Name, o.Name); c != 0 {
		return c
	}
	return strings.Compare(m.Version, o.Version)
}
