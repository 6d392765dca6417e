package gateway

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/telemetry"
	"sluice/telemetry/incident"
	"sluice/telemetry/slo"
)

const objectiveRoute = `
routes:
  - model: fraud
    versions: [{name: v7, endpoints: ["127.0.0.1:1"]}]
    weights: {v7: 1}
    slo: {availability: %s, latency: {p90: 100ms}}
  - model: other
    versions: [{name: v1, endpoints: ["127.0.0.1:1"]}]
    weights: {v1: 1}
`

// judged is a judge whose time and calls are the test's.
type judged struct {
	*judge
	now    time.Time
	series *telemetry.Series
	took   time.Duration // calls of live
}

func newJudged(t *testing.T, availability string) *judged {
	return newJudgedAt(t, availability, time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC))
}

func newJudgedAt(t *testing.T, availability string, now time.Time) *judged {
	tel := telemetry.New(telemetry.Config{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	routes := table(t, 1, fmt.Sprintf(objectiveRoute, availability))
	j := &judged{now: now, series: tel.Series("fraud", "v7")}
	tel.Tally("fraud").SetLimit(100 * time.Millisecond)
	j.judge = newJudge(nil, &Config{Telemetry: tel, troubles: telemetry.NewChangeLog(slog.New(slog.DiscardHandler), tel, "budgets")})
	j.use(routes)
	j.look(j.now)
	return j
}

// run makes a call of each kind every second.
func (j *judged) run(d time.Duration, calls ...telemetry.Call) {
	for end := j.now.Add(d); j.now.Before(end); {
		j.now = j.now.Add(time.Second)
		for _, c := range calls {
			c.Series = j.series
			j.telemetry.Record(&c)
		}
		if j.now.Unix()%5 == 0 {
			j.look(j.now)
		}
	}
}

// use makes a table the current one.
func (j *judged) use(routes *routing.Table) { j.table = func() *routing.Table { return routes } }

func (j *judged) severity(t *testing.T, objective string) slo.Severity {
	t.Helper()
	for _, o := range j.models["fraud"] {
		if o.name == objective {
			return o.verdict.Severity
		}
	}
	t.Fatalf("nobody follows %s", objective)
	return 0
}

// lasting is a call that took so long.
func lasting(d time.Duration, code codes.Code) telemetry.Call {
	now := time.Now()
	return telemetry.Call{Opened: now, Ended: now.Add(d), Code: uint32(code), Unary: true}
}

// TestObjectivesCountWhatTheySay: of all calls, those unanswered; of good answers of unary
// calls, the late ones.
func TestObjectivesCountWhatTheySay(t *testing.T) {
	j := newJudged(t, "99")
	good, late := lasting(time.Millisecond, codes.OK), lasting(time.Second, codes.OK)
	stream := late
	stream.Unary = false
	canceled := lasting(time.Millisecond, codes.Unavailable)
	canceled.Canceled = true
	full := lasting(time.Millisecond, codes.ResourceExhausted)
	full.Reason = "IN_FLIGHT_LIMIT"
	servers := lasting(time.Millisecond, codes.ResourceExhausted)
	for _, c := range []struct {
		call         telemetry.Call
		failed, late uint64
	}{
		{good, 0, 0}, {late, 0, 1}, {stream, 0, 0}, {canceled, 0, 0}, {full, 1, 0}, {servers, 0, 0},
		{lasting(time.Second, codes.InvalidArgument), 0, 0}, {lasting(time.Second, codes.NotFound), 0, 0},
		{lasting(time.Second, codes.Internal), 1, 0}, {lasting(0, codes.DeadlineExceeded), 1, 0},
		{lasting(0, codes.Unknown), 1, 0}, {lasting(0, codes.Unavailable), 1, 0}, {lasting(0, codes.DataLoss), 1, 0},
	} {
		before := j.telemetry.Tally("fraud").Read()
		j.run(time.Second, c.call)
		after := j.telemetry.Tally("fraud").Read()
		if after.Failed-before.Failed != c.failed || after.Late-before.Late != c.late {
			t.Errorf("%v of %v (reason %q, canceled %v): failed %d, late %d", codes.Code(c.call.Code), c.call.Ended.Sub(c.call.Opened),
				c.call.Reason, c.call.Canceled, after.Failed-before.Failed, after.Late-before.Late)
		}
	}
}

// TestOutagePagesAndEnds, for the objective that it breaks and no other.
func TestOutagePagesAndEnds(t *testing.T) {
	j := newJudged(t, "99.9")
	good := lasting(time.Millisecond, codes.OK)
	j.run(7*time.Hour, good)
	j.run(time.Minute, lasting(time.Millisecond, codes.Unavailable))
	if got := j.severity(t, "availability"); got != slo.Page {
		t.Errorf("after a minute without answers: %v, want a page", got)
	}
	if got := j.severity(t, "latency"); got != slo.Fine {
		t.Errorf("latency of what was answered: %v, want it fine", got)
	}
	if left, ok := j.budget("fraud", incident.Availability); !ok || left > 0 {
		t.Errorf("budget left %v, %v; want it overspent: a minute of 7 h at 99.9 %%", left, ok)
	}
	j.run(31*time.Minute, good)
	if got := j.severity(t, "availability"); got == slo.Page {
		t.Errorf("half an hour later: %v", got)
	}
	if _, ok := j.budget("other", incident.Availability); ok {
		t.Error("a model without an objective has a budget")
	}
}

// TestBudgetsAreReadInTheSameOrderAgain, so that what a scrape has compressed is good for the next one.
func TestBudgetsAreReadInTheSameOrderAgain(t *testing.T) {
	j := newJudged(t, "99.9")
	if _, err := j.telemetry.Registry().Read(j.judge); err != nil {
		t.Fatal(err)
	}
	routes := "routes:\n"
	for i := range 50 {
		routes += fmt.Sprintf("  - {model: m%02d, versions: [{name: v1, endpoints: [\"127.0.0.1:1\"]}], weights: {v1: 1}, slo: {availability: 99.9}}\n", i)
	}
	j.use(table(t, 2, routes))
	j.look(j.now)
	w := httptest.NewRecorder()
	j.telemetry.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var got []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "sluice_slo_target{") {
			got = append(got, line)
		}
	}
	if len(got) != 50 || !slices.IsSorted(got) {
		t.Errorf("%d targets, want 50 in the order of the models:\n%s", len(got), strings.Join(got, ""))
	}
}

// TestBudgetsHaveLinesAndMetrics of what they ask for, by objective and window.
func TestBudgetsHaveLinesAndMetrics(t *testing.T) {
	var log bytes.Buffer
	j := newJudged(t, "99.9")
	j.lines = telemetry.NewChangeLog(slog.New(slog.NewTextHandler(&log, nil)), j.telemetry, "budgets")
	if _, err := j.telemetry.Registry().Read(j.judge); err != nil {
		t.Fatal(err)
	}
	read := func() map[string]float64 { return gathered(t, j.telemetry) }
	good := lasting(time.Millisecond, codes.OK)
	j.run(2*time.Hour, good)
	j.run(2*time.Minute, lasting(time.Millisecond, codes.Unavailable))
	for name, want := range map[string]float64{
		`sluice_slo_severity{model="fraud",objective="availability"}`:               2,
		`sluice_slo_severity{model="fraud",objective="latency"}`:                    0,
		`sluice_slo_burn_rate{model="fraud",objective="availability",window="5m"}`:  400, // two of five minutes
		`sluice_slo_burn_rate{model="fraud",objective="availability",window="30m"}`: 1000. * 2 / 30,
		`sluice_slo_burn_rate{model="fraud",objective="availability",window="1h"}`:  1000. * 2 / 60,
	} {
		if got := read()[name]; math.Abs(got-want) > want/10 {
			t.Errorf("%s is %v, want about %v", name, got, want)
		}
	}
	j.run(35*time.Minute, good)
	for _, line := range []string{
		`level=WARN msg="error budget: page" model=fraud objective=availability target=0.999 burn_rate=`, " window=6h ",
		`level=INFO msg="error budget: `,
	} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("no %q in\n%s", line, log.String())
		}
	}
	if got := read()[`sluice_slo_severity{model="fraud",objective="availability"}`]; got == 2 {
		t.Error("still a page after half an hour")
	}
}

// TestOnsetUnderANewObjective is the first call that was bad since, whatever failed before it was there.
func TestOnsetUnderANewObjective(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJudgedAt(t, "99.9", time.Now())
		with := table(t, 3, fmt.Sprintf(objectiveRoute, "99.9"))
		j.use(table(t, 2, strings.ReplaceAll(fmt.Sprintf(objectiveRoute, "99.9"), "    slo:", "    #")))
		j.live(time.Minute, 250*time.Millisecond, codes.Unavailable)
		j.use(with)
		j.live(62*time.Second, 0, codes.OK) // to between two looks
		first := time.Now().Add(250 * time.Millisecond)
		j.live(time.Minute, 250*time.Millisecond, codes.Unavailable)
		if all := j.burning(); len(all) != 1 || all[0].Onset.Sub(first).Abs() > time.Millisecond {
			t.Errorf("%+v, want one since %v", all, first)
		}
	})
}

// TestNewObjectiveBeginsAnew: what came before it says nothing about it, while another one of
// the route goes on.
func TestNewObjectiveBeginsAnew(t *testing.T) {
	j := newJudged(t, "99.9")
	j.run(10*time.Minute, lasting(time.Millisecond, codes.Unavailable), lasting(time.Second, codes.OK))
	if j.severity(t, "availability") != slo.Page || j.severity(t, "latency") != slo.Page {
		t.Fatal("ten bad minutes have not paged")
	}
	j.use(table(t, 2, fmt.Sprintf(objectiveRoute, "99.5")))
	j.run(10*time.Second, lasting(time.Millisecond, codes.OK))
	if left, _ := j.budget("fraud", incident.Availability); left != 1 || j.severity(t, "availability") != slo.Fine {
		t.Errorf("the new objective has %v of its budget left", left)
	}
	if j.severity(t, "latency") != slo.Page {
		t.Error("the other objective has forgotten")
	}
	j.use(table(t, 3, strings.ReplaceAll(fmt.Sprintf(objectiveRoute, "99.5"), "p90: 100ms", "p90: 2s")))
	j.run(10*time.Second, lasting(time.Millisecond, codes.OK))
	if got := j.severity(t, "latency"); got != slo.Fine {
		t.Errorf("with a limit that allows for more, what took longer than the old one: %v", got)
	}
	j.use(table(t, 4, strings.ReplaceAll(fmt.Sprintf(objectiveRoute, "99.5"), "    slo:", "    #")))
	j.run(5 * time.Second)
	if len(j.models) != 0 {
		t.Errorf("objectives that nobody has any more: %v", j.models)
	}
}

// TestObjectiveKnowsNothingOfBefore it was there: of calls that failed while the route had none.
func TestObjectiveKnowsNothingOfBefore(t *testing.T) {
	j := newJudged(t, "99.9")
	with := table(t, 1, fmt.Sprintf(objectiveRoute, "99.9"))
	j.use(table(t, 2, strings.ReplaceAll(fmt.Sprintf(objectiveRoute, "99.9"), "    slo:", "    #")))
	j.run(10*time.Minute, lasting(time.Millisecond, codes.Unavailable), lasting(time.Second, codes.OK))
	j.use(with)
	j.run(10*time.Second, lasting(time.Millisecond, codes.OK))
	for _, o := range j.models["fraud"] {
		if left := slo.BudgetLeft(o.series.Last(slo.Period), o.target); left != 1 || o.verdict.Severity != slo.Fine {
			t.Errorf("%s: %v of the budget left, %v; no call was made under it but good ones", o.name, left, o.verdict.Severity)
		}
	}
	// The first bad call of an outage under it is not one of those before it.
	j.run(time.Minute, lasting(time.Millisecond, codes.Unavailable))
	for _, tr := range j.burning() {
		if tr.Onset.Before(j.now.Add(-time.Minute - judgeEvery)) {
			t.Errorf("%s since %v, want within the last minute before %v", tr.Name, tr.Onset, j.now)
		}
	}
	if len(j.burning()) != 1 {
		t.Errorf("burning %v, want availability", j.burning())
	}
}

// track keeps incidents by what a judge says, and returns where they are. The test runs in a bubble of
// synctest, and its calls take the time they take.
func (j *judged) track(t *testing.T) *incident.Book {
	tracker := incident.New(incident.Config{
		Gateway: "gw-1", Shelf: memstore.New(memstore.Config{}).Shelf("incidents"), Logger: slog.New(slog.DiscardHandler),
		Effect: func(string) incident.Effect { return effectOf(j.telemetry.Tally("fraud").Read()) },
		Budget: j.budget, Troubles: j.burning,
		Over: func(model, trouble string) (string, time.Time, bool) {
			return j.over(model, strings.TrimPrefix(trouble, burnTrouble), time.Now())
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = tracker.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return tracker.Book()
}

// live makes a call of that status every second for d, in the time of the bubble, after a part of the second.
func (j *judged) live(d, part time.Duration, code codes.Code) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(part)
		c := lasting(j.took, code)
		c.Series = j.series
		j.telemetry.Record(&c)
		time.Sleep(time.Second - part)
		if time.Now().Unix()%5 == 0 {
			j.look(time.Now())
		}
	}
	synctest.Wait()
}

func only(t *testing.T, book *incident.Book) *adminv1.Incident {
	t.Helper()
	all, err := book.All(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("incidents %v, %v; want one", all, err)
	}
	return all[0]
}

// TestBurningBudgetIsAnIncident since its first bad call, and until its last one.
func TestBurningBudgetIsAnIncident(t *testing.T) {
	for _, begins := range []time.Duration{4 * time.Second, 17 * time.Second, 29 * time.Second} { // in a step of 30 s
		synctest.Test(t, func(t *testing.T) {
			j := newJudgedAt(t, "99.9", time.Now())
			book := j.track(t)
			j.live(10*time.Minute+begins, 0, codes.OK)
			first := time.Now().Add(250 * time.Millisecond)
			j.live(2*time.Minute, 250*time.Millisecond, codes.Unavailable)
			over := time.Now()
			in := only(t, book)
			if got := in.GetOnset().AsTime(); got.Sub(first).Abs() > time.Millisecond || in.GetTrigger() != incident.BurnRate || in.GetRecovered() != nil {
				t.Errorf("began %v into a step: onset %v by %s, recovered %v; want %v", begins, got, in.GetTrigger(), in.GetRecovered(), first)
			}
			j.live(time.Hour, 0, codes.OK)
			in = only(t, book)
			// Up to a step of good calls is before the first of the 120 that failed, and up to another one after the last.
			if e := in.GetGateways()["gw-1"].GetEffect(); e.GetFailed() != 120 || e.GetCalls() < 120 || e.GetCalls() > 120+2*uint64((slo.Step+judgeEvery)/time.Second) {
				t.Errorf("began %v into a step: effect %v, want all 120 calls that failed, and few others", begins, e)
			}
			if got := in.GetRecovered(); got == nil || got.AsTime().Before(over.Add(-slo.Step)) || got.AsTime().After(over.Add(slo.Step+judgeEvery)) {
				t.Errorf("recovered %v, want about when the last call failed, %v", got.AsTime(), over)
			}
		})
	}
}

// TestLateAnswersAreNoticedByCallers: an incident by the budget for latency says how many there were, and what is left of that
// budget.
func TestLateAnswersAreNoticedByCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJudgedAt(t, "99.9", time.Now())
		book := j.track(t)
		j.live(10*time.Minute, 0, codes.OK)
		j.took = 200 * time.Millisecond
		j.live(40*time.Minute, 250*time.Millisecond, codes.OK)
		j.took = 0
		j.live(2*time.Hour, 0, codes.OK)
		in := only(t, book)
		e := in.GetGateways()["gw-1"].GetEffect()
		if e.GetLate() != 40*60 || e.GetFailed() != 0 || e.GetCalls() < 40*60 || e.GetCalls() > 40*60+2*uint64((slo.Step+judgeEvery)/time.Second) || in.GetRecovered() == nil {
			t.Errorf("%v, want 2400 late answers, no failure, and few other calls", in)
		}
		if e.GetLateBudgetBefore() <= e.GetLateBudgetAfter() || e.GetLateBudgetAfter() >= 0 || e.GetBudgetAfter() != 1 {
			t.Errorf("budgets %v, want that for latency overspent, and that for availability whole", e)
		}
	})
}

// TestObjectiveThatIsReplacedEndsItsPage: the new one has no past, and nobody follows the old one.
func TestObjectiveThatIsReplacedEndsItsPage(t *testing.T) {
	for name, change := range map[string]string{
		"another target": fmt.Sprintf(objectiveRoute, "99.5"),
		"none":           strings.ReplaceAll(fmt.Sprintf(objectiveRoute, "99.9"), "availability: 99.9, ", ""),
	} {
		synctest.Test(t, func(t *testing.T) {
			j := newJudgedAt(t, "99.9", time.Now())
			book := j.track(t)
			j.live(10*time.Minute, 0, codes.Unavailable)
			if in := only(t, book); in.GetRecovered() != nil {
				t.Fatalf("%s: in an outage: %v", name, in)
			}
			j.use(table(t, 2, change))
			j.live(3*time.Minute, 0, codes.OK)
			in := only(t, book)
			if e := in.GetEvents(); in.GetRecovered() == nil || e[len(e)-1].GetText() != "the objective for availability was changed" || in.GetMitigated() != nil {
				t.Errorf("%s: three good minutes later: %v, want it over since the change, and nobody helped by that", name, in)
			}
		})
	}
}
