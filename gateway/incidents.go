package gateway

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/breaker"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/incident"
	"sluice/telemetry/slo"
)

// The names of troubles begin like that.
const (
	breakerTrouble = "breaker of "
	burnTrouble    = "budget for "
)

// burning says how an error budget burns.
func burning(o *objective) string {
	v := o.verdict
	return fmt.Sprintf("the error budget for %s burns %.1f times as fast as allowed: of %d calls of the last %v, %d were bad",
		o.name, slo.BurnRate(v.Long, o.target), v.Long.Total, v.Rule.Long, v.Long.Bad)
}

// tellIncidents tells of a change of a breaker. The breaker of a version makes an incident; that of an
// endpoint, which others stand in for, is only part of one.
func (g *Gateway) tellIncidents(e breaker.Event) {
	t, table := g.incidents, g.router.Current()
	if e.DryRun {
		return
	}
	model, version, _ := strings.Cut(e.Name.Version, " ")
	text := fmt.Sprintf("breaker of %s %s: %s", version, e.To, e.Cause)
	if e.Name.Endpoint != "" {
		text = fmt.Sprintf("breaker of %s at %s %s: %s", version, e.Name.Endpoint, e.To, e.Cause)
	}
	if e.To == breaker.Open && e.Counts.Calls > 0 {
		text += fmt.Sprintf(" (of %d calls, %d failed, %d were slow)", e.Counts.Calls, e.Counts.Failures+e.Counts.Overloaded, e.Counts.Slow)
	}
	name := breakerTrouble + version
	switch {
	case e.Name.Endpoint != "" && (e.To == breaker.HalfOpen || e.Cause == breaker.CauseProbeFailed):
		// It is as it was. In a long outage there would be nothing else to read.
	case e.Name.Endpoint != "":
		t.Note(model, &adminv1.IncidentEvent{Time: timestamppb.New(e.At), Kind: incident.Breaker, Text: text, RequestId: e.RequestID})
	case e.To == breaker.Open:
		t.Begin(incident.Trouble{
			Model: model, Name: name, Trigger: incident.Breaker, At: e.At, Onset: e.BadSince, Text: text, RequestID: e.RequestID,
			Seen: g.judge.lately(model),
		})
		if other := standIn(table, model, version); other != "" {
			t.Mitigate(model, fmt.Sprintf("the breaker cut %s off, %s answers", version, other), e.At)
		}
	case e.To == breaker.Closed:
		t.End(model, name, text, e.At)
	}
}

// standIn is the version that answers while another one is cut off; empty if none does.
func standIn(table *routing.Table, model, version string) string {
	if r, ok := table.Route(model); ok {
		for _, v := range r.Fallback {
			if v.Name != version {
				return v.Name
			}
		}
	}
	return ""
}

// troubleEnded says which troubles cannot end by themselves any more: those of versions that get no
// calls, for whose breakers no probe comes, and those of objectives that nobody has.
func troubleEnded(table *routing.Table, model, trouble string) (how string, ended bool) {
	r, ok := table.Route(model)
	if !ok {
		return "the route was deleted", true
	}
	if version, ok := strings.CutPrefix(trouble, breakerTrouble); ok {
		v, ok := r.Version(version)
		switch {
		case !ok:
			return version + " was taken out of the route", true
		case v.Dark() && !slices.Contains(r.Fallback, v):
			return version + " has lost its weight", true
		}
		return "", false
	}
	return "the route has no such objective any more", r.Objectives == (routing.Objectives{})
}

// watchObjectives prepares what follows objectives and incidents.
func (g *Gateway) watchObjectives() {
	if g.cfg.Incidents != nil {
		g.incidents = incident.New(incident.Config{
			Gateway: g.cfg.Name, Shelf: g.cfg.Incidents, Logger: g.cfg.Logger,
			Effect:  func(model string) incident.Effect { return effectOf(g.cfg.Telemetry, model) },
			Budget:  func(model string) (float64, bool) { return g.judge.budget(model) },
			Samples: func(model string) []*adminv1.SampleCall { return samplesOf(g.cfg.Telemetry, model) },
		})
	}
	g.judge = newJudge(g.router.Current, &g.cfg, g.incidents)
}

// Incidents returns what keeps incidents, nil if nothing does.
func (g *Gateway) Incidents() *incident.Tracker { return g.incidents }

// samplesOf returns calls of a model that have failed lately, the latest first, and then those that another version
// than the chosen one has answered: while that goes well, no other call shows what is wrong.
func samplesOf(tel *telemetry.Telemetry, model string) []*adminv1.SampleCall {
	var samples []*adminv1.SampleCall
	for _, f := range slices.Concat(tel.Failures(), tel.Fallbacks()) {
		if f.Model != model {
			continue
		}
		reason := f.Reason
		if f.Fallback != "" {
			reason = strings.TrimPrefix(fmt.Sprintf("%s, after %s: %s", reason, f.Primary, f.Fallback), ", ")
		}
		samples = append(samples, &adminv1.SampleCall{
			Time: timestamppb.New(f.At), RequestId: f.RequestID, TraceId: f.TraceID, Version: f.Version, Code: f.Code, Reason: reason,
		})
	}
	return samples
}

// effectOf returns how an incident counts a model's calls.
func effectOf(tel *telemetry.Telemetry, model string) incident.Effect {
	n := tel.Tally(model).Read()
	return incident.Effect{Calls: n.Calls, Failed: n.Failed, FellBack: n.FellBack}
}
