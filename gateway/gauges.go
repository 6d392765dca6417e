package gateway

import (
	"time"

	"sluice/breaker"
	"sluice/routing"
	"sluice/telemetry"
)

// gauges reads, when somebody asks for metrics, what the gateway knows anyway. Only
// what the current table has is there, so that series end with their routes.
type gauges struct{ gateway *Gateway }

var (
	descReady         = telemetry.NewGauge("sluice_ready", "1 while there is a routing state and no drain.")
	descCalls         = telemetry.NewGauge("sluice_calls_in_flight", "Calls under way.")
	descConns         = telemetry.NewGauge("sluice_connections", "Connections of clients.")
	descReplay        = telemetry.NewGauge("sluice_replay_buffer_bytes", "Memory of requests kept for another attempt.")
	descBuffered      = telemetry.NewGauge("sluice_write_buffer_bytes", "Memory of bytes that wait for a peer's flow-control window.")
	descHeld          = telemetry.NewGauge("sluice_identify_held_bytes", "Bytes of compressed messages that have to be read and are not complete.")
	descCapture       = telemetry.NewGauge("sluice_capture_buffer_bytes", "Memory of copies of calls, for shadows and samples.")
	descCapturesLost  = telemetry.NewCounter("sluice_captures_lost_total", "Copies of calls given up because they grew too large.")
	descRevision      = telemetry.NewGauge("sluice_route_revision", "Revision of the routing state that calls follow.")
	descRoutes        = telemetry.NewGauge("sluice_routes", "Routes, one for each model.")
	descWeight        = telemetry.NewGauge("sluice_version_weight", "Weight of a version, relative to the others of its model.", "model", "version")
	descInFlight      = telemetry.NewGauge("sluice_in_flight", "Attempts under way at a version.", "model", "version")
	descLimit         = telemetry.NewGauge("sluice_in_flight_limit", "Attempts that may be under way at a version now.", "model", "version")
	descP95           = telemetry.NewGauge("sluice_version_latency_p95_seconds", "Latency that 95 of 100 good answers of the last seconds stay below; absent while unknown.", "model", "version")
	descBreaker       = telemetry.NewGauge("sluice_breaker_state", "State of a version's breaker: 0 closed, 1 half-open, 2 open.", "model", "version")
	descBreakerOpen   = telemetry.NewCounter("sluice_breaker_open_seconds_total", "Time for which a version's breaker was not closed.", "model", "version")
	descBreakerDryRun = telemetry.NewGauge("sluice_breaker_dry_run", "1 if a version's breaker only reports.", "model", "version")
	descBudgetLeft    = telemetry.NewGauge("sluice_budget_left", "Second attempts that a model's budget could pay for now.", "model")
	descBudgetTaken   = telemetry.NewCounter("sluice_budget_taken_total", "Second attempts that a model's budget has paid for.", "model")
	descBudgetShort   = telemetry.NewCounter("sluice_budget_refused_total", "Second attempts that a model's budget had nothing left for.", "model")
	descCounted       = telemetry.NewCounter("sluice_slo_calls_total", "Calls that an objective counts.", "model", "objective")
	descBad           = telemetry.NewCounter("sluice_slo_bad_calls_total", "Calls that an objective wants not to happen.", "model", "objective")
	descReachable     = telemetry.NewGauge("sluice_endpoint_reachable", "1 unless the last attempt to connect to an endpoint failed.", "model", "version", "endpoint")
	descEjected       = telemetry.NewGauge("sluice_endpoint_ejected", "1 while an endpoint is to get no calls: it is unhealthy, or its own breaker is not closed.", "model", "version", "endpoint")
	descHealthy       = telemetry.NewGauge("sluice_endpoint_healthy", "0 while an endpoint does not answer when asked how it is, or says that it is not ready, else 1; absent if it is not asked.", "model", "version", "endpoint")
	descShare         = telemetry.NewGauge("sluice_endpoint_share", "Part of its full share of calls that an endpoint gets: less than 1 when it has just come back.", "model", "version", "endpoint")
	descUnhealthy     = telemetry.NewCounter("sluice_endpoints_unhealthy_total", "How often an endpoint of a version has become unhealthy.", "model", "version")
	descEndpointCalls = telemetry.NewGauge("sluice_endpoint_in_flight", "Attempts under way at an endpoint.", "model", "version", "endpoint")
	descEndpointConns = telemetry.NewGauge("sluice_endpoint_connections", "Connections to an endpoint that take calls.", "model", "version", "endpoint")
	descWaiting       = telemetry.NewGauge("sluice_endpoint_waiting", "Attempts that wait for a connection to an endpoint.", "model", "version", "endpoint")

	allGauges = []*telemetry.Family{
		descReady, descCalls, descConns, descReplay, descBuffered, descHeld, descCapture, descCapturesLost,
		descRevision, descRoutes, descWeight, descInFlight, descLimit, descP95, descBreaker, descBreakerOpen,
		descBreakerDryRun, descBudgetLeft, descBudgetTaken, descBudgetShort, descCounted, descBad,
		descReachable, descEjected, descHealthy, descShare, descUnhealthy, descEndpointCalls, descEndpointConns, descWaiting,
	}
)

// Families implements [telemetry.Reader].
func (c gauges) Families() []*telemetry.Family { return allGauges }

// Read implements [telemetry.Reader].
func (c gauges) Read(out *telemetry.Values) {
	g := c.gateway
	st := g.Stats()
	out.Add(descReady, number(g.IsReady()))
	out.Add(descCalls, float64(st.Calls))
	out.Add(descConns, float64(st.Conns))
	out.Add(descReplay, float64(st.ReplayBytes))
	out.Add(descBuffered, float64(st.BufferedBytes))
	out.Add(descCapture, float64(st.CaptureBytes))
	out.Add(descCapturesLost, float64(st.CapturesLost))
	out.Add(descHeld, float64(g.director.held.Load()))
	snap := g.director.snapshot.Load()
	out.Add(descRevision, float64(snap.table.Revision()))
	out.Add(descRoutes, float64(snap.table.Len()))
	now := time.Now()
	for r := range snap.table.Routes() {
		readTally(out, r, g.cfg.Telemetry.Tally(r.Model).Read())
		for i, v := range r.Versions {
			t := snap.targets.get(v)
			if i == 0 {
				b := t.budget.Status(now)
				out.Add(descBudgetLeft, b.Left, r.Model)
				out.Add(descBudgetTaken, float64(b.Taken), r.Model)
				out.Add(descBudgetShort, float64(b.Short), r.Model)
			}
			out.Add(descWeight, float64(v.Weight), v.Model, v.Name)
			readVersion(out, t, now)
			out.Breathe()
		}
	}
}

// readTally adds what the objectives of a model count, from the first moment: Prometheus cannot tell by how much a
// counter has grown that was not there before.
func readTally(out *telemetry.Values, r *routing.Route, n telemetry.Tallied) {
	for _, name := range [...]string{"availability", "latency"} {
		if name == "latency" && r.Objectives.Fast == 0 {
			continue // nothing is counted
		}
		c := (&objective{name: name}).counts(n)
		out.Add(descCounted, float64(c.Total), r.Model, name)
		out.Add(descBad, float64(c.Bad), r.Model, name)
	}
}

// readVersion adds what is known of one version.
func readVersion(out *telemetry.Values, t *target, now time.Time) {
	model, name := t.version.Model, t.version.Name
	st := t.guard.Status(now)
	out.Add(descInFlight, float64(st.InFlight), model, name)
	out.Add(descLimit, float64(st.Limit), model, name)
	if st.P95 > 0 {
		out.Add(descP95, st.P95.Seconds(), model, name)
	}
	out.Add(descBreaker, breakerNumbers[st.State], model, name)
	out.Add(descBreakerOpen, st.NotClosed.Seconds(), model, name)
	out.Add(descBreakerDryRun, number(st.DryRun), model, name)
	out.Add(descUnhealthy, float64(t.group.foundUnhealthy.Load()), model, name)
	for _, e := range *t.group.list.Load() {
		out.Add(descReachable, number(!e.up.Failing()), model, name, e.addr)
		out.Add(descEjected, number(e.unhealthy.Load() || e.breaker.Status(now).State != breaker.Closed), model, name, e.addr)
		if e.watch.Load() != nil {
			out.Add(descHealthy, number(!e.unhealthy.Load()), model, name, e.addr)
		}
		out.Add(descShare, e.share(now, time.Duration(t.group.slowStart.Load())), model, name, e.addr)
		out.Add(descEndpointCalls, float64(e.inFlight.Load()), model, name, e.addr)
		out.Add(descEndpointConns, float64(e.up.Conns()), model, name, e.addr)
		out.Add(descWaiting, float64(e.up.Waiting()), model, name, e.addr)
	}
}

// breakerNumbers order the states by how much they let through.
var breakerNumbers = [...]float64{breaker.Closed: 0, breaker.HalfOpen: 1, breaker.Open: 2}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
