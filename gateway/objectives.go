package gateway

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"sluice/routing"
	"sluice/telemetry"
	"sluice/telemetry/incident"
	"sluice/telemetry/slo"
)

// judgeEvery is how often objectives are looked at; a fraction of [slo.Step].
const judgeEvery = 5 * time.Second

// judge follows the objectives of the routes: what is left of their error budgets, and
// whether they burn so fast that somebody has to know. It knows this gateway's calls since its
// start; what a fleet does over a month is for Prometheus to say.
type judge struct {
	table     func() *routing.Table
	telemetry *telemetry.Telemetry
	incidents *incident.Tracker // nil for none
	logger    *slog.Logger

	mu     sync.Mutex
	models map[string][]*objective // in the order of the routes' settings
	// effects are what callers had noticed at the latest look and at the one before.
	effects [2]map[string]incident.Effect
}

// objective is one objective of one route.
type objective struct {
	name    string // "availability" or "latency"
	target  float64
	series  slo.Series
	verdict slo.Verdict
}

func newJudge(table func() *routing.Table, cfg *Config, incidents *incident.Tracker) *judge {
	return &judge{
		table: table, telemetry: cfg.Telemetry, incidents: incidents, logger: cfg.Logger,
		models: make(map[string][]*objective),
	}
}

// run looks until ctx ends.
func (j *judge) run(ctx context.Context) {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			j.look(now)
		}
	}
}

// look brings everything up to date.
func (j *judge) look(now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	table := j.table()
	effects := make(map[string]incident.Effect, table.Len())
	for r := range table.Routes() {
		effects[r.Model] = effectOf(j.telemetry, r.Model)
		if r.Objectives == (routing.Objectives{}) {
			continue
		}
		n := j.telemetry.Tally(r.Model).Read()
		for _, o := range j.objectives(r, n) {
			o.series.Add(now, o.counts(n))
			j.decide(r.Model, o, now)
		}
	}
	j.effects = [2]map[string]incident.Effect{effects, j.effects[0]}
	if j.incidents != nil {
		j.incidents.Reconcile(func(model, trouble string) (string, bool) { return troubleEnded(table, model, trouble) })
	}
	for model := range j.models {
		if r, ok := table.Route(model); !ok || r.Objectives == (routing.Objectives{}) {
			delete(j.models, model)
		}
	}
}

// lately is what callers of a model have noticed in the last seconds, at least in judgeEvery.
func (j *judge) lately(model string) incident.Effect {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, before := effectOf(j.telemetry, model), j.effects[1][model]
	if before.Calls > now.Calls {
		before = incident.Effect{} // the route was deleted in between
	}
	return incident.Effect{Calls: now.Calls - before.Calls, Failed: now.Failed - before.Failed, FellBack: now.FellBack - before.FellBack}
}

// objectives returns those of a route. One that is new, or has another target, begins
// anew: what was good enough for the old one says nothing about it.
func (j *judge) objectives(r *routing.Route, n telemetry.Tallied) []*objective {
	var want []*objective
	if r.Objectives.Availability > 0 {
		want = append(want, &objective{name: "availability", target: r.Objectives.Availability})
	}
	if r.Objectives.Fast > 0 {
		want = append(want, &objective{name: "latency", target: r.Objectives.Fast})
	}
	have, known := j.models[r.Model]
	for i, w := range want {
		for _, h := range have {
			if h.name == w.name && h.target == w.target {
				want[i] = h
			}
		}
		if want[i] == w && known {
			w.series.Skip(w.counts(n))
		}
	}
	j.models[r.Model] = want
	return want
}

// counts are the events that matter to the objective.
func (o *objective) counts(n telemetry.Tallied) slo.Counts {
	if o.name == "latency" {
		return slo.Counts{Total: n.Timed, Bad: n.Late}
	}
	return slo.Counts{Total: n.Calls, Bad: n.Failed}
}

// decide tells when the severity changes.
func (j *judge) decide(model string, o *objective, now time.Time) {
	was := o.verdict
	o.verdict = slo.Judge(&o.series, o.target)
	v := o.verdict
	if v.Severity == was.Severity {
		return
	}
	level := slog.LevelInfo
	if v.Severity > was.Severity {
		level = slog.LevelWarn
	}
	j.logger.Log(context.Background(), level, "error budget: "+v.Severity.String(), "model", model, "objective", o.name,
		"target", o.target, "burn_rate", round(slo.BurnRate(v.Long, o.target)), "window", v.Rule.Long,
		"budget_left", round(slo.BudgetLeft(o.series.Last(slo.Period), o.target)))
	if j.incidents == nil {
		return
	}
	name := burnTrouble + o.name
	switch {
	case v.Severity == slo.Page:
		onset := o.series.Onset(o.target, v.Rule.Rate)
		trouble := incident.Trouble{
			Model: model, Name: name, Trigger: incident.BurnRate, At: now, Onset: onset, Text: burning(o),
		}
		if !onset.IsZero() && o.name == "availability" {
			c := o.series.Last(now.Sub(onset) + slo.Step)
			trouble.Seen = incident.Effect{Calls: c.Total, Failed: c.Bad}
		}
		j.incidents.Begin(trouble)
	case was.Severity == slo.Page:
		over := o.series.LastBurn(o.target, was.Rule.Rate)
		if over.IsZero() || over.After(now) {
			over = now
		}
		j.incidents.End(model, name, "the error budget for "+o.name+" no longer burns", over)
	}
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// budget returns what is left of a model's error budget for availability.
func (j *judge) budget(model string) (left float64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range j.models[model] {
		if o.name == "availability" {
			return slo.BudgetLeft(o.series.Last(slo.Period), o.target), true
		}
	}
	return 0, false
}

// burnWindows are those of the rules.
var burnWindows = [...]struct {
	name   string
	length time.Duration
}{
	{"5m", 5 * time.Minute}, {"30m", 30 * time.Minute}, {"1h", time.Hour}, {"6h", 6 * time.Hour}, {"3d", 72 * time.Hour},
}

var (
	descTarget        = telemetry.NewGauge("sluice_slo_target", "Share of events that an objective wants to be good.", "model", "objective")
	descBurn          = telemetry.NewGauge("sluice_slo_burn_rate", "How many times as fast as allowed an error budget is spent, over a window, by this gateway's calls.", "model", "objective", "window")
	descBudget        = telemetry.NewGauge("sluice_slo_budget_left", "Share of an error budget for 30 days that this gateway's calls since its start have left.", "model", "objective")
	descOpenIncidents = telemetry.NewGauge("sluice_incidents_open", "Models that this gateway has in an open incident.")
	descLateIncidents = telemetry.NewCounter("sluice_incident_writes_failed_total", "Times that an incident could not be written to the store; it is tried again.")
	descSeverity      = telemetry.NewGauge("sluice_slo_severity", "What an error budget's burn rates ask for: 0 nothing, 1 a ticket, 2 a page.", "model", "objective")
)

// Families implements [telemetry.Reader].
func (j *judge) Families() []*telemetry.Family {
	return []*telemetry.Family{descTarget, descBurn, descBudget, descSeverity, descOpenIncidents, descLateIncidents}
}

// Read implements [telemetry.Reader].
func (j *judge) Read(out *telemetry.Values) {
	if j.incidents != nil {
		st := j.incidents.Stats()
		out.Add(descOpenIncidents, float64(st.Open))
		out.Add(descLateIncidents, float64(st.Failed))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for model, all := range j.models {
		for _, o := range all {
			out.Add(descTarget, o.target, model, o.name)
			for _, w := range burnWindows {
				out.Add(descBurn, slo.BurnRate(o.series.Last(w.length), o.target), model, o.name, w.name)
			}
			out.Add(descBudget, slo.BudgetLeft(o.series.Last(slo.Period), o.target), model, o.name)
			out.Add(descSeverity, float64(o.verdict.Severity), model, o.name)
			out.Breathe()
		}
	}
}
