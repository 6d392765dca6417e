package gateway

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/breaker"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/incident"
)

// The names of troubles begin like that.
const (
	breakerTrouble = "breaker of "
	burnTrouble    = "budget for "
)

// tellIncidents tells of a change of a breaker. The breaker of a version makes an incident; that of an
// endpoint, which others stand in for, is only part of one, and so is an operator's order.
func (g *Gateway) tellIncidents(e breaker.Event) {
	t := g.incidents
	if e.DryRun && e.To != breaker.Closed {
		return
	}
	model, version, _ := strings.Cut(e.Name.Version, " ")
	text := changeOf(e.Name, e.To, e.Cause, e.Counts)
	note := &adminv1.IncidentEvent{Time: timestamppb.New(e.At), Kind: incident.Breaker, Text: text, RequestId: e.RequestID}
	switch {
	case e.Name.Endpoint != "" && (e.To == breaker.HalfOpen || e.Cause == breaker.CauseProbeFailed):
		return // It is as it was. In a long outage there would be nothing else to read.
	case e.Name.Endpoint != "":
		t.Note(model, note)
		return
	case e.Cause == breaker.CauseForced:
		t.Note(model, note)
	case e.To == breaker.Open:
		t.Begin(g.opened(model, version, text, e.Cause, e.At, e.BadSince, e.RequestID))
	case e.To == breaker.Closed:
		t.End(model, breakerTrouble+version, text, e.At)
	}
	switch how, is := g.helped(model); is {
	case incident.Helped:
		t.Mitigate(model, how, e.At)
	case incident.Helpless:
		t.Worsen(model, how, e.At)
	case incident.NothingCutOff:
	}
}

// changeOf says a change of a breaker in words.
func changeOf(n breaker.Name, to breaker.State, why breaker.Cause, c breaker.Counts) string {
	_, whose, _ := strings.Cut(n.Version, " ")
	if n.Endpoint != "" {
		whose += " at " + n.Endpoint
	}
	text := fmt.Sprintf("breaker of %s %s: %s", whose, to, why)
	if to == breaker.Open && c.Calls > 0 {
		text += fmt.Sprintf(" (of %d calls, %d failed, %d were slow)", c.Calls, c.Failures+c.Overloaded, c.Slow)
	}
	return text
}

// opened is the trouble of a version whose breaker has opened.
func (g *Gateway) opened(model, version, text string, why breaker.Cause, at, badSince time.Time, requestID string) incident.Trouble {
	if why == breaker.CauseProbeFailed || badSince.IsZero() {
		// Either this is known, or it was over although the breaker never closed; the first bad result is of then.
		badSince = at
	}
	return incident.Trouble{
		Model: model, Name: breakerTrouble + version, Trigger: incident.Breaker, At: at, Onset: badSince, Text: text,
		RequestID: requestID, Seen: effectOf(g.cfg.Telemetry.Tally(model).Since(badSince)),
	}
}

// troubles are those that can be seen now.
func (g *Gateway) troubles() []incident.Trouble {
	all := g.judge.burning()
	s, now := g.director.snapshot.Load(), time.Now()
	for r := range s.table.Routes() {
		for _, v := range r.Versions {
			b := s.targets.get(v).guard.Breaker()
			if !b.CutsOff() {
				continue
			}
			st := b.Status(now)
			if _, _, over := s.breakerOver(r, v, now); over || st.State != breaker.Open {
				continue
			}
			all = append(all, g.opened(v.Model, v.Name, changeOf(st.Name, st.State, st.Cause, st.Counts), st.Cause, st.Since, st.BadSince, st.Sample))
		}
	}
	return all
}

// over says which troubles cannot be seen any more.
func (g *Gateway) over(model, trouble string) (how string, at time.Time, over bool) {
	s, now := g.director.snapshot.Load(), time.Now()
	r, ok := s.table.Route(model)
	if !ok {
		return "the route was deleted", now, true
	}
	name, ok := strings.CutPrefix(trouble, breakerTrouble)
	if !ok {
		return g.judge.over(model, strings.TrimPrefix(trouble, burnTrouble), now)
	}
	v, ok := r.Version(name)
	if !ok {
		return name + " was taken out of the route", now, true
	}
	return s.breakerOver(r, v, now)
}

// breakerOver says whether the breaker of a version is no trouble: it is closed, or nobody meets it.
func (s *snapshot) breakerOver(r *routing.Route, v *routing.Version, now time.Time) (how string, at time.Time, over bool) {
	b := s.targets.get(v).guard.Breaker()
	st := b.Status(now)
	switch {
	case st.State == breaker.Closed:
		return changeOf(st.Name, st.State, st.Cause, st.Counts), st.Since, true
	case st.Forced:
		return "an operator has cut " + v.Name + " off", st.Since, true
	case st.DryRun:
		return "the breaker of " + v.Name + " only reports now", now, true
	case v.Dark() && !slices.Contains(r.Fallback, v):
		return v.Name + " has lost its weight", now, true
	case v.Dark() && b.ProbeDue(now) && !slices.ContainsFunc(r.Versions, func(o *routing.Version) bool { return !o.Dark() && s.cutsOff(o) }):
		return "nobody has to fall back to " + v.Name + " any more", now, true // no call will be the probe that closes it
	}
	return "", time.Time{}, false
}

// cutsOff reports whether the breaker of a version keeps calls from it.
func (s *snapshot) cutsOff(v *routing.Version) bool {
	return s.targets.get(v).guard.Breaker().CutsOff()
}

// helped says whether other versions of a model answer in the place of those that are cut off.
func (g *Gateway) helped(model string) (how string, is incident.Help) {
	s := g.director.snapshot.Load()
	if s == nil {
		return "", incident.NothingCutOff // what an operator has cut off is so before the first routes are served
	}
	r, ok := s.table.Route(model)
	if !ok {
		return "", incident.NothingCutOff
	}
	for _, v := range r.Versions {
		if v.Dark() || !s.cutsOff(v) {
			continue
		}
		other := s.standIn(r, v)
		if other == nil {
			return v.Name + " is cut off, and no other version can answer", incident.Helpless
		}
		if is == incident.NothingCutOff {
			who := "the breaker"
			if s.targets.get(v).guard.Breaker().Forced() {
				who = "an operator"
			}
			how, is = fmt.Sprintf("%s cut %s off, %s answers", who, v.Name, other.Name), incident.Helped
		}
	}
	return how, is
}

// standIn is the version that answers while another one is cut off, nil if none can.
func (s *snapshot) standIn(r *routing.Route, cut *routing.Version) *routing.Version {
	for _, v := range r.Fallback {
		if v != cut && !s.cutsOff(v) && s.well(v) {
			return v
		}
	}
	return nil
}

// tellUnloaded tells of versions that have lost their weight by a change of the routes. Where breakers say which
// versions fail, only they matter.
func (g *Gateway) tellUnloaded(was, is *snapshot) {
	if was == nil || g.incidents == nil {
		return
	}
	now := time.Now()
	for model := range is.table.ChangedSince(was.table) {
		before, ok := was.table.Route(model)
		after, still := is.table.Route(model)
		if !ok || !still {
			continue
		}
		var lost []*routing.Version
		failing := false
		for _, v := range before.Versions {
			if v.Dark() {
				continue
			}
			failing = failing || was.cutsOff(v)
			if n, ok := after.Version(v.Name); !ok || n.Dark() {
				lost = append(lost, v)
			}
		}
		for _, v := range lost {
			if !failing || was.cutsOff(v) {
				g.incidents.Mitigate(model, fmt.Sprintf("%s lost its weight by revision %d", v.Name, is.table.Revision()), now)
			}
		}
	}
}

// watchObjectives prepares what follows objectives and incidents.
func (g *Gateway) watchObjectives() {
	g.judge = newJudge(g.router.Current, &g.cfg)
	if g.cfg.Incidents == nil {
		return
	}
	g.incidents = incident.New(incident.Config{
		Gateway: g.cfg.Name, Shelf: g.cfg.Incidents, Logger: g.cfg.troubles.Logger(),
		Effect:   func(model string) incident.Effect { return effectOf(g.cfg.Telemetry.Tally(model).Read()) },
		Budget:   g.judge.budget,
		Samples:  func(model string) []*adminv1.SampleCall { return samplesOf(g.cfg.Telemetry, model) },
		Troubles: g.troubles, Over: g.over, Helped: g.helped,
	})
}

// Incidents returns what keeps incidents, nil if nothing does.
func (g *Gateway) Incidents() *incident.Tracker { return g.incidents }

// samplesOf returns calls of a model that have failed lately, the latest first, and then those that another version
// than the chosen one has answered, and those that were late: while others go well, no other call shows what is wrong.
func samplesOf(tel *telemetry.Telemetry, model string) []*adminv1.SampleCall {
	var samples []*adminv1.SampleCall
	add := func(f telemetry.Failure, reason string) {
		if f.Model == model {
			samples = append(samples, &adminv1.SampleCall{
				Time: timestamppb.New(f.At), RequestId: f.RequestID, TraceId: f.TraceID, Version: f.Version, Code: f.Code, Reason: reason,
			})
		}
	}
	for _, f := range slices.Concat(tel.Failures(), tel.Fallbacks()) {
		reason := f.Reason
		if f.Fallback != "" {
			reason = strings.TrimPrefix(fmt.Sprintf("%s, after %s: %s", reason, f.Primary, f.Fallback), ", ")
		}
		add(f, reason)
	}
	for _, f := range tel.Late() {
		add(f, "late")
	}
	return samples
}

// effectOf returns how an incident counts a model's calls.
func effectOf(n telemetry.Tallied) incident.Effect {
	return incident.Effect{Calls: n.Calls, Failed: n.Failed, FellBack: n.FellBack, Late: n.Late}
}

var (
	descOpenIncidents = telemetry.NewGauge("sluice_incidents_open", "Models that this gateway has in an open incident.")
	descLateIncidents = telemetry.NewCounter("sluice_incident_writes_failed_total", "Times that an incident could not be written to the store; it is tried again.")
	descLostIncidents = telemetry.NewCounter("sluice_incident_events_dropped_total", "Things that belong to incidents and were not written down, because too many waited.")
)

// incidentGauges are the metrics of what keeps incidents.
type incidentGauges struct{ tracker *incident.Tracker }

// Families implements [telemetry.Reader].
func (incidentGauges) Families() []*telemetry.Family {
	return []*telemetry.Family{descOpenIncidents, descLateIncidents, descLostIncidents}
}

// Read implements [telemetry.Reader].
func (c incidentGauges) Read(out *telemetry.Values) {
	st := c.tracker.Stats()
	out.Add(descOpenIncidents, float64(st.Open))
	out.Add(descLateIncidents, float64(st.Failed))
	out.Add(descLostIncidents, float64(st.Dropped))
}
