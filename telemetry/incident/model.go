package incident

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// model is what one gateway knows of a model in trouble.
type model struct {
	id       string // of the incident, once it has been written
	trigger  string
	onset    time.Time
	detected time.Time
	joined   time.Time // when this was made

	troubles  map[string]bool   // that are not over
	kinds     map[string]string // their triggers
	calmSince time.Time         // when a trouble last began or ended
	burnt     time.Time         // when the budget burnt last, of those that have ended

	help   help
	effect counted

	events []*adminv1.IncidentEvent // to be written
	lost   uint32                   // events there was no room for

	budgetBefore, lateBudgetBefore *float64

	dirty bool
}

func newModel(tr Trouble, cfg Config, now time.Time) *model {
	return &model{
		trigger: tr.Trigger, onset: tr.Onset, detected: tr.At, joined: now,
		troubles: make(map[string]bool), kinds: make(map[string]string),
		help:         help{since: now, seen: tr.Seen},
		effect:       counted{sum: tr.Seen, last: cfg.Effect(tr.Model)},
		budgetBefore: budget(cfg, tr.Model, Availability), lateBudgetBefore: budget(cfg, tr.Model, Latency),
	}
}

func budget(cfg Config, model, objective string) *float64 {
	if left, ok := cfg.Budget(model, objective); ok {
		return &left
	}
	return nil
}

// burnBlur is how much before the first call that an incident is about a budget may seem to have begun to burn: it is
// looked at in steps of that length, and calls that failed for another reason may lie in the first of them.
const burnBlur = 30 * time.Second

// begin takes a trouble that has an onset, and reports whether it is news.
func (m *model) begin(tr Trouble) (news bool) {
	switch {
	case m.routine() && !tr.Brief && !tr.Onset.Before(m.detected):
		// Somebody had rolled back while all was well; that has neither detected nor mended what came after.
		m.trigger, m.onset, m.detected = tr.Trigger, tr.Onset, tr.At
		m.help = help{since: m.help.since, seen: m.help.seen}
	case tr.Onset.Before(m.onset) && (tr.Trigger != BurnRate || m.onset.Sub(tr.Onset) >= burnBlur || m.routine()):
		m.onset = tr.Onset
	}
	if m.troubles[tr.Name] {
		return false
	}
	// What has not helped so far is none the less believed once calls no longer fail; of late ones, only the budget tells.
	if tr.Trigger == BurnRate && tr.Onset.After(m.help.from) && (!m.help.from.IsZero() || tr.Seen.Failed == 0) {
		m.help.withdraw() // that was no help against this
	}
	m.calmSince = later(m.calmSince, tr.At)
	if !tr.Brief {
		m.troubles[tr.Name] = true
		m.kinds[tr.Name] = tr.Trigger
	}
	m.note(&adminv1.IncidentEvent{
		Time: stamp(tr.At), Kind: tr.Trigger, Text: tr.Text, Actor: tr.Actor, Revision: tr.Revision, RequestId: tr.RequestID,
	})
	return true
}

// seek asks whether callers are helped, as of a time.
func (m *model) seek(name string, cfg Config, at time.Time) {
	if how, is := cfg.Helped(name); is == Helpless {
		m.worsen(how, at)
	} else if is == Helped {
		m.mitigate(how, at)
	}
}

// routine reports whether nothing is known to have gone wrong before somebody rolled back.
func (m *model) routine() bool { return m.trigger == Rollback && !m.onset.Before(m.detected) }

func (m *model) note(e *adminv1.IncidentEvent) {
	m.dirty = true
	if len(m.events) == maxPending {
		m.lost++
		return
	}
	m.events = append(m.events, e)
}

// end tells that a trouble is over.
func (m *model) end(trouble, how string, at time.Time) {
	m.note(&adminv1.IncidentEvent{Time: stamp(at), Kind: m.kinds[trouble], Text: how})
	delete(m.troubles, trouble)
	if m.kinds[trouble] == BurnRate {
		m.burnt = later(m.burnt, at)
	}
	// One that is found to have been over for long does not make others end sooner.
	m.calmSince = later(m.calmSince, at)
}

// burns reports whether a budget burns.
func (m *model) burns() bool {
	for trouble := range m.troubles {
		if m.kinds[trouble] == BurnRate {
			return true
		}
	}
	return false
}

// look brings up to date what can be seen at any time: which troubles stand, what callers notice, and whether they are
// helped.
func (m *model) look(name string, cfg Config, now time.Time) {
	for trouble := range m.troubles {
		if how, at, over := cfg.Over(name, trouble); over {
			m.end(trouble, how, at)
		}
	}
	if len(m.troubles) > 0 && !m.burns() {
		m.help.restore(m.burnt)
	}
	m.seek(name, cfg, now)
	m.effect.observe(cfg.Effect(name), now)
	if text := m.help.look(m.effect.sum, now); text != "" {
		m.note(&adminv1.IncidentEvent{Time: stamp(now), Kind: m.trigger, Text: text})
	}
}

// sample adds calls that have failed since the onset, the first one of each version, status and reason.
func (m *model) sample(in *adminv1.Incident, calls []*adminv1.SampleCall) {
	for _, s := range slices.Backward(calls) {
		if s.GetTime().AsTime().Before(m.onset) || len(in.Samples) == maxSamples {
			continue
		}
		alike := func(o *adminv1.SampleCall) bool {
			return o.GetVersion() == s.GetVersion() && o.GetCode() == s.GetCode() && o.GetReason() == s.GetReason()
		}
		if !slices.ContainsFunc(in.Samples, alike) {
			in.Samples = append(in.Samples, s)
		}
	}
}

// What an incident has room for.
const (
	maxEvents  = 200
	maxSamples = 20
)

// addTo adds what the gateway knows to an incident, its own or one that it joins.
func (m *model) addTo(in *adminv1.Incident, cfg Config, now time.Time) {
	m.addMoments(in)
	for _, e := range m.events {
		e.Gateway = cfg.Gateway
		// A store that did not answer may have written it all the same.
		if !slices.ContainsFunc(in.Events, func(o *adminv1.IncidentEvent) bool { return proto.Equal(o, e) }) {
			in.Events = append(in.Events, e)
		}
	}
	slices.SortStableFunc(in.Events, func(a, b *adminv1.IncidentEvent) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	in.DroppedEvents += m.lost
	if n := len(in.Events); n > maxEvents {
		// The beginning explains the rest, and the end says how it went.
		in.DroppedEvents += uint32(n - maxEvents)
		in.Events = slices.Delete(in.Events, maxEvents/2, maxEvents/2+n-maxEvents)
	}
	m.sample(in, cfg.Samples(in.GetModel()))
	slices.SortStableFunc(in.Samples, func(a, b *adminv1.SampleCall) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	if in.Gateways == nil {
		in.Gateways = make(map[string]*adminv1.GatewayView)
	}
	in.Gateways[cfg.Gateway] = m.view(in, cfg, now)
	setMitigation(in, now)
}

// addMoments adds when it began and when that was noticed. Of several gateways the first one counts; a rollback while
// all is well gives way to what goes wrong later.
func (m *model) addMoments(in *adminv1.Incident) {
	if in.GetDetected() == nil || routine(in) && !m.routine() && !m.onset.Before(in.GetDetected().AsTime()) {
		in.Trigger, in.Onset, in.Detected = m.trigger, stamp(m.onset), stamp(m.detected)
		return
	}
	if m.routine() && !m.detected.After(in.GetOnset().AsTime()) {
		return
	}
	if m.onset.Before(in.GetOnset().AsTime()) {
		in.Onset = stamp(m.onset)
	}
	if m.detected.Before(in.GetDetected().AsTime()) {
		in.Trigger, in.Detected = m.trigger, stamp(m.detected)
	}
}

// view is what the gateway contributes. What it has contributed before, if it has left the incident or was restarted
// since, stays.
func (m *model) view(in *adminv1.Incident, cfg Config, now time.Time) *adminv1.GatewayView {
	switch old := in.GetGateways()[cfg.Gateway]; {
	case old == nil:
		m.effect.before = Effect{} // it is another incident
	case m.id != in.GetId() && !old.GetJoined().AsTime().Equal(m.joined): // else the store has taken this without saying so
		e := old.GetEffect()
		m.effect.before = Effect{e.GetCalls(), e.GetFailed(), e.GetFellBack(), e.GetLate()}
		if e.BudgetBefore != nil {
			m.budgetBefore = e.BudgetBefore
		}
		if e.LateBudgetBefore != nil {
			m.lateBudgetBefore = e.LateBudgetBefore
		}
	}
	m.effect.observe(cfg.Effect(in.GetModel()), now)
	e := m.effect.all()
	if len(m.troubles) == 0 {
		e = m.effect.until(m.calmSince) // calls of the time in which nothing was wrong are no part of it
	}
	v := &adminv1.GatewayView{
		Updated: stamp(now), Joined: stamp(m.joined), Troubles: slices.Sorted(maps.Keys(m.troubles)),
		Effect: &adminv1.Effect{
			Calls: e.Calls, Failed: e.Failed, FellBack: e.FellBack, Late: e.Late,
			BudgetBefore: m.budgetBefore, BudgetAfter: budget(cfg, in.GetModel(), Availability),
			LateBudgetBefore: m.lateBudgetBefore, LateBudgetAfter: budget(cfg, in.GetModel(), Latency),
		},
	}
	if len(m.troubles) == 0 {
		v.Updated = stamp(m.calmSince) // when it was over, not when that was believed
	}
	if !m.help.from.IsZero() {
		v.Mitigated, v.Mitigation = stamp(m.help.from), m.help.how
	}
	return v
}

// quiet reports whether nothing has been wrong for so long that it is over.
func (m *model) quiet(now time.Time) bool {
	return len(m.troubles) == 0 && now.Sub(m.calmSince) >= calm
}

// told reports whether the store has it all.
func (m *model) told() bool { return m.id != "" && !m.dirty }

// written tells that the store has it all.
func (m *model) written(id string) {
	m.id, m.dirty, m.lost = id, false, 0
	m.events = nil
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
