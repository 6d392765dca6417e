package gateway

import (
	"time"

	"sluice/breaker"
	"sluice/routing"
	"sluice/shadow"
	"sluice/telemetry"
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
	descCopies      = telemetry.NewCounter("sluice_shadow_copies_total", "Copies of calls that were asked for.", "model", "version")
	descAnswered    = telemetry.NewCounter("sluice_shadow_answered_total", "Copies that the shadow has answered.", "model", "version")
	descDropped     = telemetry.NewCounter("sluice_shadow_dropped_total", "Copies that were not sent.", "model", "version", "reason")
	descFailed      = telemetry.NewCounter("sluice_shadow_failed_total", "Copies that were sent and not answered.", "model", "version", "reason")
	descQueued      = telemetry.NewGauge("sluice_shadow_queued", "Copies that wait.", "model", "version")
	descShadowBytes = telemetry.NewGauge("sluice_shadow_buffer_bytes", "Memory of the copies that wait or are under way.", "model", "version")
	descCompared    = telemetry.NewCounter("sluice_shadow_compared_total", "Calls whose answers were compared.", "model", "version")
	descMismatches  = telemetry.NewCounter("sluice_shadow_mismatches_total", "Calls whose answers differ.", "model", "version", "difference")
	descKept        = telemetry.NewCounter("sluice_kept_calls_total", "Calls that were written to files, for a replay.", "model")
	descKeptDropped = telemetry.NewCounter("sluice_kept_calls_dropped_total", "Calls that were to be written to files and were not.", "model")
	descShadowState = telemetry.NewGauge("sluice_shadow_breaker_state", "State of a shadow's own breaker: 0 closed, 1 half-open, 2 open.", "model", "version")
)

// Families implements [telemetry.Reader].
func (c shadowGauges) Families() []*telemetry.Family {
	return []*telemetry.Family{descCopies, descAnswered, descDropped, descFailed, descQueued, descShadowBytes,
		descCompared, descMismatches, descShadowState, descKept, descKeptDropped}
}

// Read implements [telemetry.Reader]. Names of outputs come from model servers
// and are in no label.
func (c shadowGauges) Read(out *telemetry.Values) {
	if s := c.gateway.director.snapshot.Load(); s != nil {
		for r, tape := range s.tapes {
			written, dropped := tape.Counts()
			out.Add(descKept, float64(written), r.Model)
			out.Add(descKeptDropped, float64(dropped), r.Model)
		}
	}
	for _, m := range c.gateway.shadows.list() {
		st := m.Totals()
		out.Add(descCopies, float64(st.Offered), m.model, m.version)
		out.Add(descAnswered, float64(st.Answered), m.model, m.version)
		for reason, n := range st.Dropped {
			out.Add(descDropped, float64(n), m.model, m.version, reason.String())
		}
		for reason, n := range st.Failed {
			out.Add(descFailed, float64(n), m.model, m.version, reason.String())
		}
		out.Add(descQueued, float64(st.Queued), m.model, m.version)
		out.Add(descShadowBytes, float64(st.Bytes), m.model, m.version)
		out.Add(descCompared, float64(st.Compared), m.model, m.version)
		for difference, n := range st.Differences {
			out.Add(descMismatches, float64(n), m.model, m.version, difference.String())
		}
		out.Add(descShadowState, breakerNumbers[m.guard.Breaker().Status(time.Now()).State], m.model, m.version)
	}
}
