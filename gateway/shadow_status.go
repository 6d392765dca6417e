package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/breaker"
	"sluice/routing"
	"sluice/shadow"
)

// ShadowStatus is what is known of a shadow.
type ShadowStatus struct {
	shadow.Status
	Breaker breaker.Status // its own
}

// Shadow returns what is known of a shadow in the current table; it reports false if
// the version is none. It may be called at any time.
func (g *Gateway) Shadow(v *routing.Version) (ShadowStatus, bool) {
	s := g.director.snapshot.Load()
	if s == nil || s.targets.get(v) == nil || g.shadows == nil {
		return ShadowStatus{}, false
	}
	m := g.shadows.of(s.targets.get(v).group.key)
	if m == nil {
		return ShadowStatus{}, false
	}
	return ShadowStatus{m.Status(), m.guard.Breaker().Status(time.Now())}, true
}

// shadowGauges reads what is known of shadows when somebody asks for metrics.
type shadowGauges struct{ gateway *Gateway }

var (
	descCopies      = desc("sluice_shadow_copies_total", "Copies of calls that were asked for.", "model", "version")
	descAnswered    = desc("sluice_shadow_answered_total", "Copies that the shadow has answered.", "model", "version")
	descDropped     = desc("sluice_shadow_dropped_total", "Copies that were not sent.", "model", "version", "reason")
	descFailed      = desc("sluice_shadow_failed_total", "Copies that were sent and not answered.", "model", "version", "reason")
	descQueued      = desc("sluice_shadow_queued", "Copies that wait.", "model", "version")
	descShadowBytes = desc("sluice_shadow_buffer_bytes", "Memory of the copies that wait or are under way.", "model", "version")
	descCompared    = desc("sluice_shadow_compared_total", "Calls whose answers were compared.", "model", "version")
	descMismatches  = desc("sluice_shadow_mismatches_total", "Calls whose answers differ.", "model", "version", "difference")
	descKept        = desc("sluice_kept_calls_total", "Calls that were written to files, for a replay.", "model")
	descKeptDropped = desc("sluice_kept_calls_dropped_total", "Calls that were to be written to files and were not.", "model")
	descShadowState = desc("sluice_shadow_breaker_state", "State of a shadow's own breaker: 0 closed, 1 half-open, 2 open.", "model", "version")
)

// Describe implements [prometheus.Collector].
func (c shadowGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCopies, descAnswered, descDropped, descFailed, descQueued, descShadowBytes,
		descCompared, descMismatches, descShadowState, descKept, descKeptDropped} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. Names of outputs come from model servers
// and are in no label.
func (c shadowGauges) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch}
	if s := c.gateway.director.snapshot.Load(); s != nil {
		for r, tape := range s.tapes {
			written, dropped := tape.Counts()
			out.counter(descKept, float64(written), r.Model)
			out.counter(descKeptDropped, float64(dropped), r.Model)
		}
	}
	for _, m := range c.gateway.shadows.list() {
		st := m.Status()
		out.counter(descCopies, float64(st.Offered), m.model, m.version)
		out.counter(descAnswered, float64(st.Answered), m.model, m.version)
		for reason, n := range st.Dropped {
			out.counter(descDropped, float64(n), m.model, m.version, reason.String())
		}
		for reason, n := range st.Failed {
			out.counter(descFailed, float64(n), m.model, m.version, reason.String())
		}
		out.gauge(descQueued, float64(st.Queued), m.model, m.version)
		out.gauge(descShadowBytes, float64(st.Bytes), m.model, m.version)
		out.counter(descCompared, float64(st.Compared), m.model, m.version)
		for difference, n := range st.Differences {
			out.counter(descMismatches, float64(n), m.model, m.version, difference.String())
		}
		out.gauge(descShadowState, breakerNumbers[m.guard.Breaker().Status(time.Now()).State], m.model, m.version)
	}
}
