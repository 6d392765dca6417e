package gateway

import (
	"log/slog"

	"sluice/gateway/relay"
	"sluice/routing"
	"sluice/shadow/tape"
)

// tapes are the recorders of the routes whose calls are kept, by model. One goroutine
// prepares tables; calls find theirs in the snapshot.
type tapes struct {
	dir    string // empty: nothing is kept, whatever routes say
	log    *slog.Logger
	routes map[string]*routing.Route // of the latest table, that say so
	all    map[string]*tape.Recorder
}

func newTapes(dir string, log *slog.Logger) tapes {
	return tapes{dir: dir, log: log, routes: make(map[string]*routing.Route), all: make(map[string]*tape.Recorder)}
}

// changed notes that a model's route is another one, nil if it has none any more.
func (t *tapes) changed(model string, r *routing.Route) {
	if r == nil || r.Capture == nil {
		delete(t.routes, model)
		return
	}
	if t.routes[model] == nil && t.dir == "" {
		t.log.Warn("calls are not kept, though the route says so: the gateway was started without a folder for them", "model", model)
	}
	t.routes[model] = r
}

// current returns the recorder of each route that has one.
func (t *tapes) current() map[*routing.Route]*tape.Recorder {
	if t.dir == "" {
		return nil
	}
	now := make(map[*routing.Route]*tape.Recorder, len(t.routes))
	for model, r := range t.routes {
		settings := tape.Settings{MaxBytes: r.Capture.MaxBytes, Retain: r.Capture.Retain}
		if t.all[model] == nil {
			t.all[model] = tape.New(t.dir, model, settings, t.log)
		} else {
			t.all[model].Update(settings)
		}
		now[r] = t.all[model]
	}
	return now
}

// closeOthers ends the recorders that no route has any more; they write what they have
// been given.
func (t *tapes) closeOthers(spawn func(func())) {
	for model, r := range t.all {
		if t.routes[model] == nil {
			delete(t.all, model)
			spawn(r.Close)
		}
	}
}

// close ends all recorders.
func (t *tapes) close() {
	for _, r := range t.all {
		r.Close()
	}
}

// sampleTape decides whether the call is kept: a prediction that nobody has forced.
func (s *call) sampleTape(c *relay.Call) {
	r := s.snap.tapes[s.route]
	if r == nil || s.forced || !s.method.Predicts() || !sampled(s.id, s.route.Capture.Share) {
		return
	}
	s.tape = r
	c.Capture()
}

// keepCall hands the call, which is over, to the recorder, if there is something to be
// compared with.
func (s *call) keepCall(c *relay.Call, o relay.Outcome, k *relay.Capture) {
	if k == nil || !s.isComparable(c, o) {
		return
	}
	k.Retain()
	s.tape.Offer(s.shadowCopy(c, o, k))
}

// isComparable reports whether a call was asked whole, and has an answer of its version's
// own: a deadline that passed here, a connection that was lost, or a fault that was wanted
// says nothing of what a model answers, nor does a delay that was wanted of how fast it is.
func (s *call) isComparable(c *relay.Call, o relay.Outcome) bool {
	return o.Kind == relay.Answered && !s.struck && s.dispatch.NotBefore.IsZero() &&
		c.RequestEnded() // else nobody knows what would have been asked
}
