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

	troubles  map[string]bool   // that are not over
	kinds     map[string]string // their triggers
	calmSince time.Time         // when a trouble last began or ended

	mitigated  time.Time
	mitigation string

	events []*adminv1.IncidentEvent // to be written
	lost   uint32                   // events there was no room for

	base, seen   Effect // when it was detected, and of before
	budgetBefore *float64
	dirty        bool
}

func newModel(tr Trouble, cfg Config) *model {
	return &model{
		trigger: tr.Trigger, onset: tr.Onset, detected: tr.At,
		troubles: make(map[string]bool), kinds: make(map[string]string),
		base: cfg.Effect(tr.Model), seen: tr.Seen, budgetBefore: budget(cfg, tr.Model),
	}
}

func budget(cfg Config, model string) *float64 {
	if left, ok := cfg.Budget(model); ok {
		return &left
	}
	return nil
}

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
	m.calmSince = at
}

// mitigate tells that callers have been helped; the first time counts.
func (m *model) mitigate(how string, at time.Time) {
	if m.mitigated.IsZero() {
		m.mitigated, m.mitigation, m.dirty = at, how, true
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
	if in.GetDetected() == nil {
		in.Trigger, in.Onset, in.Detected = m.trigger, stamp(m.onset), stamp(m.detected)
	}
	if m.onset.Before(in.GetOnset().AsTime()) {
		in.Onset = stamp(m.onset)
	}
	if m.detected.Before(in.GetDetected().AsTime()) {
		in.Trigger, in.Detected = m.trigger, stamp(m.detected)
	}
	if !m.mitigated.IsZero() && (in.GetMitigated() == nil || m.mitigated.Before(in.GetMitigated().AsTime())) {
		in.Mitigated, in.Mitigation = stamp(m.mitigated), m.mitigation
	}
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
	if in.Gateways == nil {
		in.Gateways = make(map[string]*adminv1.GatewayView)
	}
	e := cfg.Effect(in.GetModel())
	in.Gateways[cfg.Gateway] = &adminv1.GatewayView{
		Updated:  stamp(now),
		Troubles: slices.Sorted(maps.Keys(m.troubles)),
		Effect: &adminv1.Effect{
			Calls:        m.seen.Calls + e.Calls - m.base.Calls,
			Failed:       m.seen.Failed + e.Failed - m.base.Failed,
			FellBack:     m.seen.FellBack + e.FellBack - m.base.FellBack,
			BudgetBefore: m.budgetBefore,
			BudgetAfter:  budget(cfg, in.GetModel()),
		},
	}
	if len(m.troubles) == 0 {
		// When it was over, not when that was believed.
		in.Gateways[cfg.Gateway].Updated = stamp(m.calmSince)
	}
}

// written tells that the store has it all.
func (m *model) written(id string) {
	m.id, m.dirty, m.lost = id, false, 0
	m.events = nil
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
