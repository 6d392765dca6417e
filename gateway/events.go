package gateway

import (
	"log/slog"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/breaker"
	"sluice/gateway/health"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/telemetry"
	"sluice/telemetry/incident"
)

// eventRoom is how many changes of breakers may wait to be logged and counted.
const eventRoom = 1024

// followBreakers writes a line for each change of a breaker, counts it and tells of it, until the
// subscription is closed.
func (g *Gateway) followBreakers(events *breaker.Subscription) {
	tel := g.cfg.Telemetry
	lost := uint64(0)
	for e := range events.C() {
		countEvent(e, tel)
		if g.incidents != nil {
			g.tellIncidents(e)
		}
		if n := events.Dropped(); n > lost {
			tel.Dropped("breaker_events", "queue_full", n-lost)
			lost = n
		}
		level := slog.LevelInfo
		if e.To == breaker.Open {
			level = slog.LevelWarn
		}
		model, version, _ := strings.Cut(e.Name.Version, " ")
		g.cfg.changes.Log(level, "breaker "+e.To.String(),
			"model", model, "version", version, "endpoint", e.Name.Endpoint, "from", e.From.String(),
			"cause", e.Cause.String(), "calls", e.Counts.Calls, "failures", e.Counts.Failures, "overloaded", e.Counts.Overloaded,
			"slow", e.Counts.Slow, "sample_request_id", e.RequestID, "dry_run", e.DryRun)
	}
}

// countEvent counts a change of a breaker for its version. Endpoints come and go with
// names in DNS, so theirs are summed up.
func countEvent(e breaker.Event, tel *telemetry.Telemetry) {
	scope := "version"
	if e.Name.Endpoint != "" {
		scope = "endpoint"
	}
	model, version, _ := strings.Cut(e.Name.Version, " ")
	tel.Known(model, version).Transition(scope, e.To.String(), e.Cause.String())
}

// tellHealth tells the log, and incidents unless there are none, that an endpoint of the version of that id is found unhealthy,
// or well again.
func tellHealth(log *telemetry.ChangeLog, incidents *incident.Tracker, id, addr string, was health.State, s health.Status) {
	model, version, _ := strings.Cut(id, " ")
	text := version + " at " + addr
	switch {
	case s.State == health.Unhealthy:
		why := strings.ToValidUTF8(clip(s.Why), "?") // a server's words, in part
		log.Log(slog.LevelWarn, "endpoint unhealthy", "model", model, "version", version, "endpoint", addr, "reason", why)
		text += " is unhealthy: " + why
	case was == health.Unhealthy:
		log.Log(slog.LevelInfo, "endpoint healthy again", "model", model, "version", version, "endpoint", addr)
		text += " is healthy again"
	default:
		return
	}
	if incidents != nil {
		incidents.Note(model, &adminv1.IncidentEvent{Time: timestamppb.New(s.Since), Kind: incident.Health, Text: text})
	}
}
