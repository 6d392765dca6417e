package gateway

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/telemetry"
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
}

func newJudged(t *testing.T, availability string) *judged {
	tel := telemetry.New(telemetry.Config{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	routes := table(t, 1, fmt.Sprintf(objectiveRoute, availability))
	j := &judged{now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), series: tel.Series("fraud", "v7")}
	tel.Tally("fraud").SetLimit(100 * time.Millisecond)
	j.judge = newJudge(nil, &Config{Telemetry: tel, Logger: slog.New(slog.DiscardHandler)}, nil)
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
	if left, ok := j.budget("fraud"); !ok || left > 0 {
		t.Errorf("budget left %v, %v; want it overspent: a minute of 7 h at 99.9 %%", left, ok)
	}
	j.run(31*time.Minute, good)
	if got := j.severity(t, "availability"); got == slo.Page {
		t.Errorf("half an hour later: %v", got)
	}
	if _, ok := j.budget("other"); ok {
		t.Error("a model without an objective has a budget")
	}
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
	if left, _ := j.budget("fraud"); left != 1 || j.severity(t, "availability") != slo.Fine {
		t.Errorf("the new objective has %v of its budget left", left)
	}
	if j.severity(t, "latency") != slo.Page {
		t.Error("the other objective has forgotten")
	}
	j.use(table(t, 3, strings.ReplaceAll(fmt.Sprintf(objectiveRoute, "99.5"), "    slo:", "    #")))
	j.run(5 * time.Second)
	if len(j.models) != 0 {
		t.Errorf("objectives that nobody has any more: %v", j.models)
	}
}

// TestFailingCanaryIsAnIncident, from its first bad call to the probe that succeeds, without
// anybody's doing, and with what callers noticed.
func TestFailingCanaryIsAnIncident(t *testing.T) {
	shelf := memstore.New(memstore.Config{}).Shelf("incidents")
	v8, v7 := serve(t, fails(codes.Internal, "bad weights")), serve(t, nil)
	r := start(t, withFallback(v8.addr, v7.addr, "breaker: {consecutive: 5, open_for: 10s}"), func(c *Config) {
		c.Incidents, c.Name = shelf, "gw-1"
	})
	began := time.Now()
	for range 10 {
		if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
			t.Fatalf("a caller got %v %q", a.code, a.message)
		}
	}
	var in *adminv1.Incident
	for in == nil {
		all, err := r.Incidents().Book().All(t.Context())
		if err != nil || time.Since(began) > patience {
			t.Fatalf("no incident: %v", err)
		}
		if len(all) > 0 {
			in = all[0]
		}
		time.Sleep(ms)
	}
	onset, detected := in.GetOnset().AsTime(), in.GetDetected().AsTime()
	if in.GetModel() != "fraud" || in.GetTrigger() != "breaker" || onset.Before(began) || detected.Before(onset) {
		t.Errorf("incident %v, want one of fraud, found by a breaker after %v", in, began)
	}
	if in.GetMitigation() != "the breaker cut v8 off, v7 answers" || !in.GetMitigated().AsTime().Equal(detected) {
		t.Errorf("mitigated %v: %q", in.GetMitigated().AsTime(), in.GetMitigation())
	}
	e := in.GetGateways()["gw-1"].GetEffect()
	if e.GetCalls() < 4 || e.GetFailed() != 0 || e.GetFellBack() < 4 { // the fifth is still under way
		t.Errorf("effect %v, want at least the calls that opened the breaker, none failed", e)
	}
	// No call has failed for its caller: those that fell back show what is wrong.
	s := in.GetSamples()
	if len(s) == 0 || s[0].GetVersion() != "v7" || s[0].GetCode() != "OK" || s[0].GetReason() != "after v8: INTERNAL" || s[0].GetRequestId() == "" {
		t.Errorf("calls to look at: %v", s)
	}
}

// TestEndpointsThatStayAsTheyAreAreNoNews: of a long outage, the story is when breakers opened and closed, not each
// probe that failed meanwhile.
func TestEndpointsThatStayAsTheyAreAreNoNews(t *testing.T) {
	r := start(t, routesOf(version("v7", "127.0.0.1:1")), func(c *Config) {
		c.Incidents, c.Name = memstore.New(memstore.Config{}).Shelf("incidents"), "gw-1"
	})
	now := time.Now()
	tell := func(endpoint string, to breaker.State, cause breaker.Cause, calls uint32) {
		now = now.Add(time.Second)
		r.tellIncidents(breaker.Event{
			Name: breaker.Name{Version: "fraud v7", Endpoint: endpoint}, At: now, To: to, Cause: cause, Counts: breaker.Counts{Calls: calls, Failures: calls},
		})
	}
	tell("", breaker.Open, breaker.CauseConsecutive, 5)
	tell("127.0.0.1:1", breaker.Open, breaker.CauseConsecutive, 5)
	for range 1000 {
		tell("127.0.0.1:1", breaker.HalfOpen, breaker.CauseProbeDue, 0)
		tell("127.0.0.1:1", breaker.Open, breaker.CauseProbeFailed, 0)
	}
	tell("127.0.0.1:1", breaker.HalfOpen, breaker.CauseProbeDue, 0)
	tell("127.0.0.1:1", breaker.Closed, breaker.CauseProbeSucceeded, 0)
	tell("", breaker.Closed, breaker.CauseProbeSucceeded, 0)
	var got []string
	r.until(t, "the end is written down", func() bool {
		all, err := r.Incidents().Book().All(t.Context())
		if err != nil || len(all) != 1 {
			return false
		}
		got = nil
		for _, e := range all[0].GetEvents() {
			got = append(got, e.GetText())
		}
		return strings.Contains(fmt.Sprint(got), "v7 closed")
	})
	want := []string{
		"breaker of v7 open: consecutive failures (of 5 calls, 5 failed, 0 were slow)",
		"breaker of v7 at 127.0.0.1:1 open: consecutive failures (of 5 calls, 5 failed, 0 were slow)",
		"breaker of v7 at 127.0.0.1:1 closed: probe succeeded", "breaker of v7 closed: probe succeeded",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the events are\n%s", strings.Join(got, "\n"))
	}
}

// TestTroublesThatCannotEndByThemselvesAreEnded by a change of the routes.
func TestTroublesThatCannotEndByThemselvesAreEnded(t *testing.T) {
	const route = `
routes:
  - model: fraud
    versions: [{name: v7, endpoints: ["h:1"]}, {name: v8, endpoints: ["h:2"]}, {name: v9, endpoints: ["h:3"]}]
    weights: {v7: 1}
    fallback: {to: [v9], on: [UNAVAILABLE]}
`
	routes := table(t, 1, route)
	for _, c := range []struct {
		model, trouble, how string
		ended               bool
	}{
		{"fraud", "breaker of v7", "", false},
		{"fraud", "breaker of v8", "v8 has lost its weight", true},
		{"fraud", "breaker of v9", "", false}, // others fall back to it
		{"fraud", "breaker of v6", "v6 was taken out of the route", true},
		{"fraud", "budget for latency", "the route has no such objective any more", true},
		{"gone", "breaker of v1", "the route was deleted", true},
	} {
		if how, ended := troubleEnded(routes, c.model, c.trouble); how != c.how && c.ended || ended != c.ended {
			t.Errorf("%s, %s: %q, %v, want %q, %v", c.model, c.trouble, how, ended, c.how, c.ended)
		}
	}
}
