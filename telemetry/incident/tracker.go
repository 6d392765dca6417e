package incident

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	adminv1 "sluice/proto/sluice/admin/v1"
)

const (
	// stuck is after how long a store that has failed is left alone until the next time: it would hold up each incident in turn,
	// and meanwhile nobody would look at how callers fare. For the same reason all that is written at a time, or swept, has
	// no longer than an interval.
	stuck = time.Second
	// calm is how long nothing may be wrong before an incident is over: a breaker that opens and
	// closes every few seconds is one incident.
	calm = 60 * time.Second
	// interval is how often open incidents are brought up to date.
	interval = 5 * time.Second
	// sweepEvery is how often somebody looks for incidents whose gateways are gone.
	sweepEvery = time.Minute
	// stale is the age from which a gateway's last word no longer keeps an incident open: it has
	// ended, or cannot reach the store.
	stale = 2 * time.Minute
	// lastWrite is how long the last words of a gateway that ends may take to be written.
	lastWrite = 2 * time.Second
	// room is how much may wait to be looked at.
	room = 1024
	// maxPending bounds the events of one model that wait to be written.
	maxPending = 100
	// maxBefore bounds what is remembered of models before they are in trouble: an endpoint is cut off, and then its version.
	// Of one model it is maxBeforeEach, so that one whose endpoints come and go takes nobody's place.
	maxBefore     = 1000
	maxBeforeEach = 10
	// lead is how long before an incident's onset what happened is still part of it: health checks often find an endpoint
	// down before the first call meets it.
	lead = time.Minute
)

// What makes an incident.
const (
	Breaker  = "breaker"
	BurnRate = "burn rate"
	Rollback = "rollback"
)

// Health is the kind of an event that makes no incident, but is often why there is one: an endpoint was found unhealthy, or well
// again.
const Health = "health"

// The objectives that have error budgets.
const (
	Availability = "availability"
	Latency      = "latency"
)

// Trouble is something wrong with a model.
type Trouble struct {
	Model string
	// Name tells it from other troubles of the model, such as "breaker v8".
	Name string
	// Trigger is Breaker, BurnRate or Rollback.
	Trigger string
	// At is when it was noticed, Onset when the first call went wrong; zero means At.
	At, Onset time.Time
	// Text says what it is.
	Text string
	// Actor and Revision belong to a trouble that somebody has reported, such as by a rollback.
	Actor    string
	Revision uint64
	// RequestID names a call that shows it; it may be empty.
	RequestID string
	// Seen is what callers have noticed up to now, from Onset or shortly before.
	Seen Effect
	// Brief troubles are over with their beginning: a rollback is a sign of trouble, and ends it.
	Brief bool
}

// Effect is what callers noticed of a model, counted from wherever the counting began. Calls of which
// FellBack counts have been answered.
type Effect struct {
	Calls, Failed, FellBack uint64
	// Late are good answers that took longer than the model's objective for latency says.
	Late uint64
}

// Config says who tracks what. Gateway, Shelf, Effect and Budget have to be set.
type Config struct {
	// Gateway is this gateway's name among those that share the store.
	Gateway string
	// Shelf is where incidents are kept.
	Shelf Shelf
	// Effect returns counts of a model that only grow.
	Effect func(model string) Effect
	// Budget returns the share of a model's error budget for an objective that is left; false if
	// it has no such objective.
	Budget func(model, objective string) (left float64, ok bool)
	// Troubles returns those that can be seen now, told of before or not; it is asked at every look. Default none.
	Troubles func() []Trouble
	// Over says that a trouble can no longer be seen, how and since when that is. It is asked at every look: ends that
	// nobody tells of, or that get lost, would else leave an incident open for ever. Default: it stands until End.
	Over func(model, trouble string) (how string, at time.Time, over bool)
	// Helped says whether callers of a model are answered in the place of versions that are cut off, and by whom. It
	// is asked at every look. Default: nothing is cut off.
	Helped func(model string) (how string, is Help)
	// Samples returns calls of a model that failed lately, the latest first. Default none.
	Samples func(model string) []*adminv1.SampleCall
	// Logger receives a line per incident that opens or is over. Default slog.Default().
	Logger *slog.Logger
}

// Tracker opens and closes incidents. Its methods but Run may be called at any time by anybody and do
// not block.
type Tracker struct {
	cfg     Config
	book    *Book
	told    chan func(*Tracker)
	dropped atomic.Uint64
	failed  atomic.Uint64
	open    atomic.Int64

	// Run's own.
	models map[string]*model // in trouble, or lately
	before []note            // the latest of models that were not, the latest last
}

// note is something that happened to a model.
type note struct {
	model  string
	event  *adminv1.IncidentEvent
	remedy bool // which the event's text names; else it is told as it is
}

// Book returns the incidents that all gateways keep.
func (t *Tracker) Book() *Book { return t.book }

// New returns a tracker that does nothing before Run.
func New(cfg Config) *Tracker {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Samples == nil {
		cfg.Samples = func(string) []*adminv1.SampleCall { return nil }
	}
	if cfg.Troubles == nil {
		cfg.Troubles = func() []Trouble { return nil }
	}
	if cfg.Over == nil {
		cfg.Over = func(string, string) (string, time.Time, bool) { return "", time.Time{}, false }
	}
	if cfg.Helped == nil {
		cfg.Helped = func(string) (string, Help) { return "", NothingCutOff }
	}
	return &Tracker{
		cfg: cfg, book: NewBook(cfg.Shelf), told: make(chan func(*Tracker), room), models: make(map[string]*model),
	}
}

// Stats are counters and a gauge, for metrics.
type Stats struct {
	Open    int    // models of this gateway in an incident
	Dropped uint64 // things told that there was no room for
	Failed  uint64 // times that an incident could not be written
}

// Stats returns them. It may be called at any time.
func (t *Tracker) Stats() Stats {
	return Stats{Open: int(t.open.Load()), Dropped: t.dropped.Load(), Failed: t.failed.Load()}
}

func (t *Tracker) tell(f func(*Tracker)) {
	select {
	case t.told <- f:
	default:
		t.dropped.Add(1)
	}
}

// Begin tells of a trouble. One that is known already is only brought up to date.
func (t *Tracker) Begin(tr Trouble) { t.tell(func(t *Tracker) { t.begin(tr) }) }

// End tells that a trouble is over, and how.
func (t *Tracker) End(model, name, text string, at time.Time) {
	t.tell(func(t *Tracker) {
		m := t.models[model]
		if m != nil && m.troubles[name] {
			m.end(name, text, at)
		}
	})
}

// Note tells of something that happened to a model. It matters only in an incident, or if it turns out to have
// happened since the onset of one, or less than a minute before.
func (t *Tracker) Note(model string, e *adminv1.IncidentEvent) {
	t.tell(func(t *Tracker) {
		if m := t.models[model]; m != nil {
			m.note(e)
			return
		}
		t.keep(note{model, e, false})
	})
}

// keep remembers what happened to a model that is not in trouble, and forgets what there is no room for beside it.
func (t *Tracker) keep(latest note) {
	of, oldest := 0, 0
	for i, n := range slices.Backward(t.before) {
		if n.model == latest.model {
			of, oldest = of+1, i
		}
	}
	switch {
	case of == maxBeforeEach:
		t.before = slices.Delete(t.before, oldest, oldest+1)
	case len(t.before) == maxBefore:
		t.before = slices.Delete(t.before, 0, 1)
	}
	t.before = append(t.before, latest)
}

// Mitigate tells that something has been done that ought to help callers of a model, and what. Only the first such thing
// counts, only in an incident, and only as long as it helps: see [Config].Helped and Effect.
func (t *Tracker) Mitigate(model, how string, at time.Time) {
	t.tell(func(t *Tracker) {
		if m := t.models[model]; m != nil {
			m.mitigate(how, at)
		}
	})
}

// Worsen tells that callers of a model are not helped, whatever was said before.
func (t *Tracker) Worsen(model, why string, at time.Time) {
	t.tell(func(t *Tracker) {
		if m := t.models[model]; m != nil {
			m.worsen(why, at)
		}
	})
}

// Run keeps incidents until ctx ends, and then writes down what it has been told. It is called once.
func (t *Tracker) Run(ctx context.Context) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			t.finish(ctx)
			return nil
		case f := <-t.told:
			f(t)
			t.drain()
			t.write(ctx, false)
		case <-tick.C:
			t.look()
			t.write(ctx, true)
		case <-sweep.C:
			t.sweep(ctx)
		}
	}
}

// finish writes down what was told in the last moment: it may be why the gateway ends.
func (t *Tracker) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	t.drain()
	t.write(ctx, false)
}

// drain takes what else has been told, so that it is written together.
func (t *Tracker) drain() {
	for {
		select {
		case f := <-t.told:
			f(t)
		default:
			return
		}
	}
}

func (t *Tracker) begin(tr Trouble) {
	if tr.Onset.IsZero() || tr.Onset.After(tr.At) {
		tr.Onset = tr.At
	}
	m := t.models[tr.Model]
	if m == nil || m.told() && m.quiet(time.Now()) {
		m = newModel(tr, t.cfg, time.Now())
		t.models[tr.Model] = m
		t.open.Store(int64(len(t.models)))
		t.recall(tr.Model, m)
	}
	if m.begin(tr) {
		m.seek(tr.Model, t.cfg, tr.At) // so that what is written first says so, too
	}
}

// recall takes what happened to a model since its onset, and shortly before, until it was known to be in trouble.
func (t *Tracker) recall(name string, m *model) {
	t.before = slices.DeleteFunc(t.before, func(n note) bool {
		at := n.event.GetTime().AsTime()
		switch {
		case n.model != name:
			return false
		case n.remedy && !at.Before(m.onset):
			m.mitigate(n.event.GetText(), at)
		case !n.remedy && !at.Before(m.onset.Add(-lead)):
			m.note(n.event)
		}
		return true
	})
}

// look finds out how things stand. What is told in between is only faster, and more exact: an incident neither begins
// nor ends by it alone, since what is told may get lost.
func (t *Tracker) look() {
	for _, tr := range t.cfg.Troubles() {
		t.begin(tr)
	}
	now := time.Now()
	for name, m := range t.models {
		m.look(name, t.cfg, now)
	}
}

// write brings the store up to date: with what is new, or, at each tick, with all that is open.
func (t *Tracker) write(ctx context.Context, tick bool) {
	ctx, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	now := time.Now()
	for name, m := range t.models {
		begun := time.Now()
		if !m.dirty && !tick {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		in, opened, err := t.put(ctx, name, m, now)
		if err != nil {
			t.failed.Add(1)
			t.cfg.Logger.Warn("an incident cannot be written yet", "model", name, "error", err)
			if time.Since(begun) >= stuck {
				return
			}
			continue // it stays dirty
		}
		if opened {
			t.cfg.Logger.Warn("incident open", "incident", in.GetId(), "model", name, "trigger", in.GetTrigger(), "onset", m.onset)
		}
		m.written(in.GetId())
		if !m.quiet(now) {
			continue
		}
		// To this gateway all is well. Whoever finds that it is so to all closes the incident.
		delete(t.models, name)
		t.open.Store(int64(len(t.models)))
		t.closeIfCalm(ctx, in)
	}
}

// put writes what is known of a model to its incident. One to which all is well opens no other: its incident may have been
// closed by another gateway since, and it has no more to add than how that one ended.
func (t *Tracker) put(ctx context.Context, name string, m *model, now time.Time) (in *adminv1.Incident, opened bool, err error) {
	add := func(in *adminv1.Incident) { m.addTo(in, t.cfg, now) }
	if len(m.troubles) > 0 || m.id == "" {
		return t.book.update(ctx, name, m.id, add)
	}
	in, err = t.book.Change(ctx, m.id, func(in *adminv1.Incident) error {
		add(in)
		if in.GetRecovered() != nil {
			// It had not been heard of for so long that nobody waited.
			in.Recovered = stamp(later(in.GetRecovered().AsTime(), m.calmSince))
		}
		return nil
	})
	if errors.Is(err, ErrUnknown) {
		return &adminv1.Incident{Id: m.id, Model: name}, false, nil // forgotten
	}
	return in, false, err
}

// sweep closes incidents that nobody keeps open any more, such as those of a gateway that has ended, and forgets the oldest.
func (t *Tracker) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	open, over, err := t.book.open(ctx, time.Now())
	if err != nil {
		return // it is tried again
	}
	if over > maxIncidents {
		_ = t.book.forget(ctx, time.Now()) // the next one tries again
	}
	for _, in := range open {
		if ctx.Err() != nil {
			return
		}
		if t.models[in.GetModel()] == nil {
			t.closeIfCalm(ctx, in)
		}
	}
}

func (t *Tracker) closeIfCalm(ctx context.Context, in *adminv1.Incident) {
	closed, err := t.book.closeIfCalm(ctx, in.GetId(), time.Now())
	if err != nil {
		t.failed.Add(1) // the next sweep finds it
		return
	}
	if closed != nil {
		t.cfg.Logger.Info("incident over", "incident", closed.GetId(), "model", closed.GetModel(),
			"lasted", closed.GetRecovered().AsTime().Sub(closed.GetOnset().AsTime()).Round(time.Second))
	}
}
