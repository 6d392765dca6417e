package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
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
	lines     *telemetry.ChangeLog

	mu     sync.Mutex
	models map[string][]*objective // in the order of the routes' settings
	// names are the models in order, so that a scrape's pieces have the same lines as those of the scrape before.
	names []string
	// looked is when the latest look was, known are the models that there were then.
	looked time.Time
	known  map[string]bool
}

// objective is one objective of one route.
type objective struct {
	name    string // incident.Availability or Latency
	target  float64
	limit   time.Duration // of a good answer; 0 for availability
	series  slo.Series
	verdict slo.Verdict
	// since is when the verdict's severity was reached, paged the rule by which it was last a page.
	since time.Time
	paged slo.Rule
}

func newJudge(table func() *routing.Table, cfg *Config) *judge {
	return &judge{table: table, telemetry: cfg.Telemetry, lines: cfg.troubles, models: make(map[string][]*objective)}
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
	known := make(map[string]bool, table.Len())
	j.names = j.names[:0]
	for r := range table.Routes() {
		known[r.Model] = true
		if r.Objectives == (routing.Objectives{}) {
			continue
		}
		j.names = append(j.names, r.Model)
		tally := j.telemetry.Tally(r.Model)
		n := tally.Read()
		for _, o := range j.objectives(r, n, tally) {
			o.add(now, n, tally, j.looked)
			j.decide(r.Model, o, now)
		}
	}
	j.looked, j.known = now, known
	for model := range j.models {
		if r, ok := table.Route(model); !ok || r.Objectives == (routing.Objectives{}) {
			delete(j.models, model)
		}
	}
}

// objectives returns those of a route, whose calls have been counted as n so far. One that is new, or has another target
// or limit, begins anew: what was good enough for the old one, or came before there was any, says nothing about it.
func (j *judge) objectives(r *routing.Route, n telemetry.Tallied, tally *telemetry.Tally) []*objective {
	var want []*objective
	if r.Objectives.Availability > 0 {
		want = append(want, &objective{name: incident.Availability, target: r.Objectives.Availability})
	}
	if r.Objectives.Fast > 0 {
		want = append(want, &objective{name: incident.Latency, target: r.Objectives.Fast, limit: r.Objectives.Latency})
	}
	have := j.models[r.Model]
	for i, w := range want {
		same := func(h *objective) bool { return h.name == w.name && h.target == w.target && h.limit == w.limit }
		if at := slices.IndexFunc(have, same); at >= 0 {
			want[i] = have[at]
		} else if j.known[r.Model] { // all calls of a model that was not there at the latest look were made under it
			w.series.Skip(w.counts(n))
			w.takeFirst(tally)
		}
	}
	j.models[r.Model] = want
	return want
}

// add takes the counts of a look. When what is bad among them began, the tally knows.
func (o *objective) add(now time.Time, n telemetry.Tallied, tally *telemetry.Tally, looked time.Time) {
	c := o.counts(n)
	first := looked
	if c.Bad > o.series.Seen().Bad {
		first = later(looked, o.takeFirst(tally)) // it may not have been counted yet at the latest look
	}
	o.series.AddSince(now, c, first)
}

// takeFirst returns when the first of the bad events was that nobody has asked about yet.
func (o *objective) takeFirst(tally *telemetry.Tally) time.Time {
	if o.name == incident.Latency {
		return tally.TakeFirstLate()
	}
	return tally.TakeFirstFailed()
}

// counts are the events that matter to the objective.
func (o *objective) counts(n telemetry.Tallied) slo.Counts {
	if o.name == incident.Latency {
		return slo.Counts{Total: n.Timed, Bad: n.Late}
	}
	return slo.Counts{Total: n.Calls, Bad: n.Failed}
}

// decide tells when the severity changes.
func (j *judge) decide(model string, o *objective, now time.Time) {
	was := o.verdict
	o.verdict = slo.Judge(&o.series, o.target)
	v := o.verdict
	if v.Severity == slo.Page {
		o.paged = v.Rule
	}
	if v.Severity == was.Severity {
		return
	}
	o.since = now
	level := slog.LevelInfo
	if v.Severity > was.Severity {
		level = slog.LevelWarn
	}
	j.lines.Log(level, "error budget: "+v.Severity.String(), "model", model, "objective", o.name,
		"target", o.target, "burn_rate", round(slo.BurnRate(v.Long, o.target)), "window", window(v.Rule.Long),
		"budget_left", round(slo.BudgetLeft(o.series.Last(slo.Period), o.target)))
}

// burning are the troubles of all models whose error budgets burn so fast that somebody is paged.
func (j *judge) burning() (all []incident.Trouble) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for model, of := range j.models {
		for _, o := range of {
			if o.verdict.Severity == slo.Page {
				all = append(all, o.burning(model, j.telemetry.Tally(model).Read(), j.looked))
			}
		}
	}
	return all
}

// burning is the trouble of an objective that pages, with the counts of now and the time of the latest look.
func (o *objective) burning(model string, n telemetry.Tallied, looked time.Time) incident.Trouble {
	v := o.verdict
	onset := o.series.Onset(o.target, v.Rule.Rate)
	tr := incident.Trouble{
		Model: model, Name: burnTrouble + o.name, Trigger: incident.BurnRate, At: o.since, Onset: onset,
		Text: fmt.Sprintf("the error budget for %s burns %.1f times as fast as allowed: of %d calls of the last %s, %d were bad",
			o.name, slo.BurnRate(v.Long, o.target), v.Long.Total, window(v.Rule.Long), v.Long.Bad),
	}
	if !onset.IsZero() {
		before, news := o.series.Last(looked.Truncate(slo.Step).Sub(onset.Truncate(slo.Step))+slo.Step), o.series.Since(o.counts(n))
		tr.Seen = incident.Effect{Calls: before.Total + news.Total, Failed: before.Bad + news.Bad}
		if o.name == incident.Latency { // of those that have been answered well
			tr.Seen = incident.Effect{Calls: before.Total + news.Total, Late: before.Bad + news.Bad}
		}
	}
	return tr
}

// over says that an error budget no longer burns, and since when.
func (j *judge) over(model, objective string, now time.Time) (how string, at time.Time, over bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range j.models[model] {
		switch {
		case o.name != objective:
		case o.verdict.Severity == slo.Page:
			return "", time.Time{}, false
		case o.paged.Rate > 0:
			how, at = "the error budget for "+o.name+" no longer burns", o.series.LastBurn(o.target, o.paged.Rate)
			if at.IsZero() || at.After(now) {
				at = now
			}
			return how, at, true
		}
	}
	return "the objective for " + objective + " was changed", now, true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// budget returns what is left of a model's error budget for an objective.
func (j *judge) budget(model, objective string) (left float64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, o := range j.models[model] {
		if o.name == objective {
			return slo.BudgetLeft(o.series.Last(slo.Period), o.target), true
		}
	}
	return 0, false
}

// burnWindows are those of the rules.
var burnWindows = [...]time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 6 * time.Hour, 72 * time.Hour}

// window names one of them, as people do.
func window(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

var (
	descTarget   = telemetry.NewGauge("sluice_slo_target", "Share of events that an objective wants to be good.", "model", "objective")
	descBurn     = telemetry.NewGauge("sluice_slo_burn_rate", "How many times as fast as allowed an error budget is spent, over a window, by this gateway's calls.", "model", "objective", "window")
	descBudget   = telemetry.NewGauge("sluice_slo_budget_left", "Share of an error budget for 30 days that this gateway's calls since its start have left.", "model", "objective")
	descSeverity = telemetry.NewGauge("sluice_slo_severity", "What an error budget's burn rates ask for: 0 nothing, 1 a ticket, 2 a page.", "model", "objective")
)

// Families implements [telemetry.Reader].
func (j *judge) Families() []*telemetry.Family {
	return []*telemetry.Family{descTarget, descBurn, descBudget, descSeverity}
}

// Read implements [telemetry.Reader].
func (j *judge) Read(out *telemetry.Values) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, model := range j.names {
		for _, o := range j.models[model] {
			out.Add(descTarget, o.target, model, o.name)
			for _, w := range burnWindows {
				out.Add(descBurn, slo.BurnRate(o.series.Last(w), o.target), model, o.name, window(w))
			}
			out.Add(descBudget, slo.BudgetLeft(o.series.Last(slo.Period), o.target), model, o.name)
			out.Add(descSeverity, float64(o.verdict.Severity), model, o.name)
			out.Breathe()
		}
	}
}
