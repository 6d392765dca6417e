package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/breaker"
)

// gauges reads, when somebody asks for metrics, what the gateway knows anyway. Only
// what the current table has is there, so that series end with their routes.
type gauges struct{ gateway *Gateway }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descReady         = desc("sluice_ready", "1 while there is a routing state and no drain.")
	descCalls         = desc("sluice_calls_in_flight", "Calls under way.")
	descConns         = desc("sluice_connections", "Connections of clients.")
	descReplay        = desc("sluice_replay_buffer_bytes", "Memory of requests kept for another attempt.")
	descBuffered      = desc("sluice_write_buffer_bytes", "Memory of bytes that wait for a peer's flow-control window.")
	descHeld          = desc("sluice_identify_held_bytes", "Bytes of compressed messages that have to be read and are not complete.")
	descCapture       = desc("sluice_capture_buffer_bytes", "Memory of copies of calls, for shadows and samples.")
	descCapturesLost  = desc("sluice_captures_lost_total", "Copies of calls given up because they grew too large.")
	descRevision      = desc("sluice_route_revision", "Revision of the routing state that calls follow.")
	descRoutes        = desc("sluice_routes", "Routes, one for each model.")
	descWeight        = desc("sluice_version_weight", "Weight of a version, relative to the others of its model.", "model", "version")
	descInFlight      = desc("sluice_in_flight", "Attempts under way at a version.", "model", "version")
	descLimit         = desc("sluice_in_flight_limit", "Attempts that may be under way at a version now.", "model", "version")
	descP95           = desc("sluice_version_latency_p95_seconds", "Latency that 95 of 100 good answers of the last seconds stay below; absent while unknown.", "model", "version")
	descBreaker       = desc("sluice_breaker_state", "State of a version's breaker: 0 closed, 1 half-open, 2 open.", "model", "version")
	descBreakerOpen   = desc("sluice_breaker_open_seconds_total", "Time for which a version's breaker was not closed.", "model", "version")
	descBreakerDryRun = desc("sluice_breaker_dry_run", "1 if a version's breaker only reports.", "model", "version")
	descBudgetLeft    = desc("sluice_budget_left", "Second attempts that a model's budget could pay for now.", "model")
	descBudgetTaken   = desc("sluice_budget_taken_total", "Second attempts that a model's budget has paid for.", "model")
	descBudgetShort   = desc("sluice_budget_refused_total", "Second attempts that a model's budget had nothing left for.", "model")
	descReachable     = desc("sluice_endpoint_reachable", "1 unless the last attempt to connect to an endpoint failed.", "model", "version", "endpoint")
	descEjected       = desc("sluice_endpoint_ejected", "1 while an endpoint is to get no calls: it is unhealthy, or its own breaker is not closed.", "model", "version", "endpoint")
	descHealthy       = desc("sluice_endpoint_healthy", "0 while an endpoint does not answer when asked how it is, or says that it is not ready, else 1; absent if it is not asked.", "model", "version", "endpoint")
	descShare         = desc("sluice_endpoint_share", "Part of its full share of calls that an endpoint gets: less than 1 when it has just come back.", "model", "version", "endpoint")
	descUnhealthy     = desc("sluice_endpoints_unhealthy_total", "How often an endpoint of a version has become unhealthy.", "model", "version")
	descEndpointCalls = desc("sluice_endpoint_in_flight", "Attempts under way at an endpoint.", "model", "version", "endpoint")
	descEndpointConns = desc("sluice_endpoint_connections", "Connections to an endpoint that take calls.", "model", "version", "endpoint")
	descWaiting       = desc("sluice_endpoint_waiting", "Attempts that wait for a connection to an endpoint.", "model", "version", "endpoint")

	allGauges = []*prometheus.Desc{
		descReady, descCalls, descConns, descReplay, descBuffered, descHeld, descCapture, descCapturesLost,
		descRevision, descRoutes, descWeight, descInFlight, descLimit, descP95, descBreaker, descBreakerOpen,
		descBreakerDryRun, descBudgetLeft, descBudgetTaken, descBudgetShort,
		descReachable, descEjected, descHealthy, descShare, descUnhealthy, descEndpointCalls, descEndpointConns, descWaiting,
	}
)

// Describe implements [prometheus.Collector].
func (c gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allGauges {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c gauges) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch}
	g := c.gateway
	st := g.Stats()
	out.gauge(descReady, number(g.IsReady()))
	out.gauge(descCalls, float64(st.Calls))
	out.gauge(descConns, float64(st.Conns))
	out.gauge(descReplay, float64(st.ReplayBytes))
	out.gauge(descBuffered, float64(st.BufferedBytes))
	out.gauge(descCapture, float64(st.CaptureBytes))
	out.counter(descCapturesLost, float64(st.CapturesLost))
	out.gauge(descHeld, float64(g.director.held.Load()))
	snap := g.director.snapshot.Load()
	out.gauge(descRevision, float64(snap.table.Revision()))
	out.gauge(descRoutes, float64(snap.table.Len()))
	now := time.Now()
	for r := range snap.table.Routes() {
		for i, v := range r.Versions {
			t := snap.targets.get(v)
			if i == 0 {
				b := t.budget.Status(now)
				out.gauge(descBudgetLeft, b.Left, r.Model)
				out.counter(descBudgetTaken, float64(b.Taken), r.Model)
				out.counter(descBudgetShort, float64(b.Short), r.Model)
			}
			out.gauge(descWeight, float64(v.Weight), v.Model, v.Name)
			out.version(t, now)
		}
	}
}

// version collects what is known of one version.
func (out sink) version(t *target, now time.Time) {
	model, name := t.version.Model, t.version.Name
	st := t.guard.Status(now)
	out.gauge(descInFlight, float64(st.InFlight), model, name)
	out.gauge(descLimit, float64(st.Limit), model, name)
	if st.P95 > 0 {
		out.gauge(descP95, st.P95.Seconds(), model, name)
	}
	out.gauge(descBreaker, breakerNumbers[st.State], model, name)
	out.counter(descBreakerOpen, st.NotClosed.Seconds(), model, name)
	out.gauge(descBreakerDryRun, number(st.DryRun), model, name)
	out.counter(descUnhealthy, float64(t.group.foundUnhealthy.Load()), model, name)
	for _, e := range *t.group.list.Load() {
		out.gauge(descReachable, number(!e.up.Failing()), model, name, e.addr)
		out.gauge(descEjected, number(e.unhealthy.Load() || e.breaker.Status(now).State != breaker.Closed), model, name, e.addr)
		if e.watch.Load() != nil {
			out.gauge(descHealthy, number(!e.unhealthy.Load()), model, name, e.addr)
		}
		out.gauge(descShare, e.share(now, time.Duration(t.group.slowStart.Load())), model, name, e.addr)
		out.gauge(descEndpointCalls, float64(e.inFlight.Load()), model, name, e.addr)
		out.gauge(descEndpointConns, float64(e.up.Conns()), model, name, e.addr)
		out.gauge(descWaiting, float64(e.up.Waiting()), model, name, e.addr)
	}
}

// breakerNumbers order the states by how much they let through.
var breakerNumbers = [...]float64{breaker.Closed: 0, breaker.HalfOpen: 1, breaker.Open: 2}

// sink is where a collector's metrics go.
type sink struct{ ch chan<- prometheus.Metric }

func (out sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	out.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (out sink) counter(d *prometheus.Desc, v float64, labels ...string) {
	out.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
