package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing/memstore"
	"sluice/telemetry"
	"sluice/telemetry/incident"
)

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
	if e.GetCalls() < 3 || e.GetFailed() != 0 || e.GetFellBack() < 3 { // the fifth is still under way, and the fourth may be being recorded
		t.Errorf("effect %v, want at least the calls that opened the breaker, none failed", e)
	}
	// No call has failed for its caller: those that fell back show what is wrong.
	s := in.GetSamples()
	if len(s) == 0 || s[0].GetVersion() != "v7" || s[0].GetCode() != "OK" || s[0].GetReason() != "after v8: INTERNAL" || s[0].GetRequestId() == "" {
		t.Errorf("calls to look at: %v", s)
	}
}

// TestEffectBeginsWithTheFirstBadCall: good calls of the seconds before are no part of it.
func TestEffectBeginsWithTheFirstBadCall(t *testing.T) {
	v8, failing := switched(t)
	r := start(t, withFallback(v8, serve(t, nil).addr, "breaker: {consecutive: 5, open_for: 10s}"), keepsIncidents)
	const before = 40
	for range before {
		r.call(modelInfer, infer("fraud", ""))
	}
	time.Sleep(time.Second) // counts are kept by the second
	failing.Store(true)
	for range 10 {
		r.call(modelInfer, infer("fraud", ""))
	}
	e := r.incident("open", func(*adminv1.Incident) bool { return true }).GetGateways()["gw-1"].GetEffect()
	if e.GetCalls() < 3 || e.GetCalls() > 10 || e.GetFellBack() < 3 {
		t.Errorf("effect %v, want 3 to 10 calls that fell back, of the %d good ones before none", e, before)
	}
}

// TestEndpointsThatStayAsTheyAreAreNoNews: of a long outage, the story is when breakers opened and closed, not each
// probe that failed meanwhile.
func TestEndpointsThatStayAsTheyAreAreNoNews(t *testing.T) {
	r := start(t, routesOf(version("v7", "127.0.0.1:1")), func(c *Config) {
		c.Incidents, c.Name = memstore.New(memstore.Config{}).Shelf("incidents"), "gw-1"
	})
	trip(t, r, "fraud v7")
	r.incident("open", func(*adminv1.Incident) bool { return true }) // what is told below comes after the breaker's own event
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
	guard, _ := r.director.guardOf("fraud v7")
	guard.Reset(time.Now())
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

// TestUnhealthyEndpointIsPartOfTheStory: that it was found so shortly before the first bad call, in the server's own words, and
// that it is well again; each once.
func TestUnhealthyEndpointIsPartOfTheStory(t *testing.T) {
	t.Parallel()
	var loading atomic.Bool
	loading.Store(true)
	v7 := serve(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		if loading.Load() {
			fails(codes.Unavailable, "loading %FF"+strings.Repeat("x", 1000))(w, q)
			return
		}
		ok(w, q)
	})
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%q]}]
    weights: {v7: 1}
    breaker: {open_for: 1h, max_open_for: 1h}
    health: {interval: 100ms, timeout: 1m, fail_after: 1}
`, v7.addr), keepsIncidents, func(c *Config) { c.askNobody = false })
	r.until(t, "the endpoint is unhealthy", func() bool { return strings.Contains(r.log.String(), "endpoint unhealthy") })
	trip(t, r, "fraud v7")
	story := func(in *adminv1.Incident) string { return incident.Postmortem(in, nil, time.Now()) }
	found := "| v7 at " + v7.addr + " is unhealthy: loading ?xxx"
	in := r.incident("explained", func(in *adminv1.Incident) bool { return strings.Contains(story(in), found) })
	if e := in.GetEvents()[0]; len(e.GetText()) > 300 || e.GetKind() != incident.Health || !e.GetTime().AsTime().Before(in.GetOnset().AsTime()) {
		t.Errorf("the first event is %v, want the endpoint's, before the onset at %v", e, in.GetOnset().AsTime())
	}
	loading.Store(false)
	again := "| v7 at " + v7.addr + " is healthy again |"
	in = r.incident("explained to its end", func(in *adminv1.Incident) bool { return strings.Contains(story(in), again) })
	if len(in.GetEvents()) != 3 {
		t.Errorf("%d events, want the breaker's and two of the endpoint's:\n%s", len(in.GetEvents()), story(in))
	}
}

// trip opens the breaker of a version, as failures do.
func trip(t *testing.T, r *rig, id string) {
	t.Helper()
	guard, ok := r.director.guardOf(id)
	if !ok {
		t.Fatalf("no breaker of %q", id)
	}
	for range 100 {
		p, err := guard.Breaker().Allow(time.Now())
		if err != nil {
			return
		}
		p.Done(breaker.Result{Outcome: breaker.Failure, At: time.Now()})
	}
	t.Fatalf("the breaker of %q did not open", id)
}

// keepsIncidents is a gateway's configuration that has them kept.
func keepsIncidents(c *Config) {
	c.Incidents, c.Name = memstore.New(memstore.Config{}).Shelf("incidents"), "gw-1"
}

// incident waits until the only incident is as wanted.
func (r *rig) incident(what string, is func(*adminv1.Incident) bool) (in *adminv1.Incident) {
	r.t.Helper()
	for end := time.Now().Add(3 * patience); ; time.Sleep(10 * ms) {
		all, err := r.Incidents().Book().All(r.t.Context())
		if err == nil && len(all) == 1 {
			if in = all[0]; is(in) {
				return in
			}
		}
		if time.Now().After(end) {
			r.t.Fatalf("timed out waiting for an incident that is %s; there are %v, %v", what, all, err)
		}
	}
}

// troubles are those that the gateway sees in an incident.
func troublesIn(in *adminv1.Incident) []string { return in.GetGateways()["gw-1"].GetTroubles() }

// switched is a server that can be made to fail.
func switched(t *testing.T) (addr string, failing *atomic.Bool) {
	failing = new(atomic.Bool)
	s := serve(t, func(w http.ResponseWriter, q *http.Request) {
		if failing.Load() {
			fails(codes.Internal, "bad weights")(w, q)
			return
		}
		ok(w, q)
	})
	return s.addr, failing
}

// TestFallbackThatFailsTooHelpsNobody: an incident is mitigated while another version answers, and is over when both versions
// are well, though nobody calls the one that was only a fallback.
func TestFallbackThatFailsTooHelpsNobody(t *testing.T) {
	t.Parallel()
	v8, v8Fails := switched(t)
	v7, v7Fails := switched(t)
	v8Fails.Store(true)
	v7Fails.Store(true)
	r := start(t, withFallback(v8, v7, "breaker: {consecutive: 5, open_for: 300ms, max_open_for: 300ms}"), keepsIncidents)
	call := func() { r.call(modelInfer, infer("fraud", "")) }
	for range 20 {
		call()
	}
	in := r.incident("of both versions", func(in *adminv1.Incident) bool { return len(troublesIn(in)) == 2 })
	if in.GetMitigated() != nil {
		t.Errorf("mitigated: %q, while all calls fail", in.GetMitigation())
	}
	began := time.Now()
	v7Fails.Store(false)
	in = r.incident("mitigated", func(in *adminv1.Incident) bool { call(); return in.GetMitigated() != nil })
	if in.GetMitigated().AsTime().Before(began) || in.GetMitigation() != "the breaker cut v8 off, v7 answers" {
		t.Errorf("mitigated at %v by %q, want it after %v, when v7 answered", in.GetMitigated().AsTime(), in.GetMitigation(), began)
	}
	v7Fails.Store(true)
	r.incident("mitigated no more", func(in *adminv1.Incident) bool { call(); return in.GetMitigated() == nil && len(troublesIn(in)) == 2 })
	v8Fails.Store(false)
	v7Fails.Store(false)
	r.until(t, "v8 is well", func() bool { call(); v, _ := r.director.guardOf("fraud v8"); return !v.Breaker().CutsOff() })
	r.incident("without troubles", func(in *adminv1.Incident) bool { call(); return len(troublesIn(in)) == 0 })
}

// TestBreakerThatOnlyReportsEndsItsTrouble: made so by an operator in the middle of an incident.
func TestBreakerThatOnlyReportsEndsItsTrouble(t *testing.T) {
	t.Parallel()
	v8, failing := switched(t)
	failing.Store(true)
	v7 := serve(t, nil)
	r := start(t, withFallback(v8, v7.addr, "breaker: {consecutive: 5, open_for: 1h, max_open_for: 1h}"), keepsIncidents)
	for range 10 {
		r.call(modelInfer, infer("fraud", ""))
	}
	r.incident("open", func(in *adminv1.Incident) bool { return len(troublesIn(in)) == 1 })
	r.publish(2, withFallback(v8, v7.addr, "breaker: {consecutive: 5, open_for: 1h, max_open_for: 1h, dry_run: true}"))
	in := r.incident("without troubles", func(in *adminv1.Incident) bool { return len(troublesIn(in)) == 0 })
	if e := in.GetEvents(); e[len(e)-1].GetText() != "the breaker of v8 only reports now" {
		t.Errorf("the last event is %q", e[len(e)-1].GetText())
	}
}

// TestTroublesAreWhatCanBeSeen, whatever was told: breakers that keep calls away from versions that get some, and no
// operator's order.
func TestTroublesAreWhatCanBeSeen(t *testing.T) {
	t.Parallel()
	const route = `
routes:
  - model: fraud
    versions: [{name: v6, endpoints: ["127.0.0.1:1"]}, {name: v7, endpoints: ["127.0.0.1:1"]}, {name: v8, endpoints: ["127.0.0.1:1"]}, {name: v9, endpoints: ["127.0.0.1:1"]}]
    weights: {v6: 1, v7: 1}
    breaker: {consecutive: 5, open_for: 1s%s}
    fallback: {to: [v9], on: [UNAVAILABLE]}
`
	r := start(t, fmt.Sprintf(route, ""))
	seen := func() string {
		var all []string
		for _, tr := range r.troubles() {
			all = append(all, tr.Name)
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	over := func(trouble string) string {
		how, _, over := r.over("fraud", trouble)
		if !over {
			return "it stands"
		}
		return how
	}
	check := func(when string, want string, ends map[string]string) {
		t.Helper()
		if got := seen(); got != want {
			t.Errorf("%s: troubles %q, want %q", when, got, want)
		}
		for trouble, how := range ends {
			if got := over(trouble); got != how {
				t.Errorf("%s: %s: %q, want %q", when, trouble, got, how)
			}
		}
	}
	check("at first", "", map[string]string{
		"breaker of v7": "breaker of v7 closed: new", "breaker of v5": "v5 was taken out of the route",
		"budget for latency": "the objective for latency was changed",
	})
	for _, v := range []string{"v7", "v8", "v9"} {
		trip(t, r, "fraud "+v)
	}
	check("when they open", "breaker of v7, breaker of v9", map[string]string{
		"breaker of v7": "it stands", "breaker of v8": "v8 has lost its weight", "breaker of v9": "it stands",
	})
	if onset := r.troubles()[0].Onset; onset.IsZero() || time.Since(onset) > time.Minute {
		t.Errorf("onset %v, want that of the first failure", onset)
	}
	v7, _ := r.director.guardOf("fraud v7")
	v9, _ := r.director.guardOf("fraud v9")
	r.until(t, "v9 waits for a probe", func() bool { return v9.Breaker().ProbeDue(time.Now()) })
	check("while calls may fall back", "breaker of v7, breaker of v9", map[string]string{"breaker of v9": "it stands"})
	v7.Reset(time.Now())
	check("when nobody has to", "", map[string]string{
		"breaker of v7": "breaker of v7 closed: reset", "breaker of v9": "nobody has to fall back to v9 any more",
	})
	v7.Breaker().ForceOpen(time.Now())
	check("by an operator", "breaker of v9", map[string]string{"breaker of v7": "an operator has cut v7 off"})
	v7.Reset(time.Now())
	trip(t, r, "fraud v7")
	r.publish(2, fmt.Sprintf(route, ", dry_run: true"))
	check("when breakers only report", "", map[string]string{"breaker of v7": "the breaker of v7 only reports now"})
	r.publish(3, strings.ReplaceAll(fmt.Sprintf(route, ""), "fraud", "other"))
	check("without the route", "", map[string]string{"breaker of v7": "the route was deleted"})
}

// TestOperatorWhoCutsAVersionOffMakesNoIncident, but takes part in one.
func TestOperatorWhoCutsAVersionOffMakesNoIncident(t *testing.T) {
	t.Parallel()
	v8, v7 := serve(t, fails(codes.Internal, "bad weights")), serve(t, nil)
	const settings = "breaker: {consecutive: 5, open_for: 1h, max_open_for: 1h}"
	r := start(t, withFallback(v8.addr, v7.addr, settings), keepsIncidents)
	r.open(t, "fraud v7")
	for range 10 {
		r.call(modelInfer, infer("fraud", ""))
	}
	in := r.incident("open", func(*adminv1.Incident) bool { return true })
	if in.GetTrigger() != incident.Breaker || in.GetMitigated() != nil || !slices.Equal(troublesIn(in), []string{"breaker of v8"}) {
		t.Errorf("%v: want the breaker of v8 alone, and nobody helped: v7 is cut off", in)
	}
	guard, _ := r.director.guardOf("fraud v7")
	guard.Reset(time.Now())
	in = r.incident("mitigated", func(in *adminv1.Incident) bool { return in.GetMitigated() != nil })
	if in.GetMitigation() != "the breaker cut v8 off, v7 answers" {
		t.Errorf("mitigated by %q", in.GetMitigation())
	}
}

// TestFallbackThatCannotBeReachedHelpsNobody, though its breaker is closed: no call has gone there yet.
func TestFallbackThatCannotBeReachedHelpsNobody(t *testing.T) {
	t.Parallel()
	v8, v7 := serve(t, fails(codes.Internal, "bad weights")), serve(t, nil)
	r := start(t, withFallback(v8.addr, v7.addr, "breaker: {consecutive: 5, open_for: 1h, max_open_for: 1h}"), keepsIncidents)
	r.makeWell("v7", false)
	trip(t, r, "fraud v8")
	if how, is := r.helped("fraud"); is != incident.Helpless {
		t.Errorf("%q, %v, want nobody to help", how, is)
	}
	r.makeWell("v7", true)
	if how, is := r.helped("fraud"); is != incident.Helped || how != "the breaker cut v8 off, v7 answers" {
		t.Errorf("%q, %v, want v7 to help", how, is)
	}
}

// TestProbeThatFailsIsNoNewOnset: what opened the breaker may be long ago, and not known as trouble any more.
func TestProbeThatFailsIsNoNewOnset(t *testing.T) {
	r := start(t, routesOf(version("v7", "127.0.0.1:1")), keepsIncidents)
	at := time.Now()
	first := at.Add(-time.Hour)
	if got := r.opened("fraud", "v7", "", breaker.CauseConsecutive, at, first, "").Onset; !got.Equal(first) {
		t.Errorf("opened by failures: onset %v, want that of the first, %v", got, first)
	}
	if got := r.opened("fraud", "v7", "", breaker.CauseProbeFailed, at, first, "").Onset; !got.Equal(at) {
		t.Errorf("opened by a probe: onset %v, want %v", got, at)
	}
}

// TestSamplesAreTheModelsOwn: those that failed, and after them those that fell back.
func TestSamplesAreTheModelsOwn(t *testing.T) {
	tel := telemetry.New(telemetry.Config{Logger: slog.New(slog.DiscardHandler)})
	now := time.Now()
	record := func(id, model string, code codes.Code, fallback string) {
		tel.Record(&telemetry.Call{
			Series: tel.Series(model, "v7"), Primary: tel.Series(model, "v8"), RequestID: id, Opened: now, Ended: now, Code: uint32(code), FallbackReason: fallback,
		})
	}
	record("fell back", "fraud", codes.OK, "INTERNAL")
	record("failed", "fraud", codes.Internal, "")
	record("another's", "rank", codes.Internal, "")
	record("another's, too", "rank", codes.OK, "INTERNAL")
	record("good", "fraud", codes.OK, "")
	tel.Tally("fraud").SetLimit(time.Second)
	tel.Record(&telemetry.Call{Series: tel.Series("fraud", "v7"), RequestID: "slow", Opened: now, Ended: now.Add(2 * time.Second), Unary: true})
	var got []string
	for _, s := range samplesOf(tel, "fraud") {
		got = append(got, s.GetRequestId()+": "+s.GetReason())
	}
	if want := []string{"failed: ", "fell back: after v8: INTERNAL", "slow: late"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// unwritable is a shelf that takes nothing.
type unwritable struct{ incident.Shelf }

func (unwritable) Swap(context.Context, string, []byte, []byte) (bool, error) {
	return false, errors.New("read-only")
}

// TestIncidentsHaveMetrics: how many are open, and what of them could not be written or had no room.
func TestIncidentsHaveMetrics(t *testing.T) {
	const open, late, lost = "sluice_incidents_open", "sluice_incident_writes_failed_total", "sluice_incident_events_dropped_total"
	r := start(t, routesOf(version("v7", "127.0.0.1:1")), func(c *Config) {
		c.Incidents, c.Name = unwritable{memstore.New(memstore.Config{}).Shelf("incidents")}, "gw-1"
	})
	if m := r.metrics(t); m[open] != 0 || m[late] != 0 || m[lost] != 0 {
		t.Errorf("at first: %v open, %v late, %v lost", m[open], m[late], m[lost])
	}
	trip(t, r, "fraud v7")
	r.until(t, "an incident that cannot be written is counted", func() bool {
		m := r.metrics(t)
		return m[open] == 1 && m[late] > 0
	})
	r.until(t, "what has no room is counted", func() bool {
		for range 10_000 { // faster than they are taken
			r.Incidents().Note("fraud", &adminv1.IncidentEvent{})
		}
		return r.metrics(t)[lost] > 0
	})
}

// TestWeightThatIsTakenAwayHelps, where nothing but the objective says that something is wrong.
func TestWeightThatIsTakenAwayHelps(t *testing.T) {
	t.Parallel()
	v8, v7 := serve(t, fails(codes.Internal, "bad weights")), serve(t, nil)
	routes := func(weights string) string {
		return fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v8, endpoints: [%q]}, {name: v7, endpoints: [%q]}]
    weights: {%s}
    breaker: {dry_run: true}
    slo: {availability: 99.9}
`, v8.addr, v7.addr, weights)
	}
	r := start(t, routes("v8: 1"), keepsIncidents)
	for range 20 {
		r.call(modelInfer, infer("fraud", ""))
	}
	in := r.incident("open", func(*adminv1.Incident) bool { return true })
	if in.GetTrigger() != incident.BurnRate || in.GetMitigated() != nil {
		t.Fatalf("%v: want it found by the budget, and nobody helped", in)
	}
	r.publish(2, routes("v8: 9, v7: 1"))
	began := time.Now()
	r.publish(3, routes("v7: 1"))
	in = r.incident("mitigated", func(in *adminv1.Incident) bool { return in.GetMitigated() != nil })
	if at := in.GetMitigated().AsTime(); in.GetMitigation() != "v8 lost its weight by revision 3" || at.Before(began) || at.After(began.Add(patience)) {
		t.Errorf("mitigated at %v by %q, want by the change at %v", at, in.GetMitigation(), began)
	}
}

// TestWeightOfTheOtherVersionIsNoHelp, where a breaker says which version fails.
func TestWeightOfTheOtherVersionIsNoHelp(t *testing.T) {
	t.Parallel()
	const route = `
routes:
  - model: fraud
    versions: [{name: v8, endpoints: ["127.0.0.1:1"]}, {name: v7, endpoints: ["127.0.0.1:1"]}]
    weights: {%s}
    breaker: {open_for: 1h, max_open_for: 1h}
`
	r := start(t, fmt.Sprintf(route, "v8: 1, v7: 1"), keepsIncidents)
	trip(t, r, "fraud v8")
	r.incident("open", func(*adminv1.Incident) bool { return true })
	r.publish(2, fmt.Sprintf(route, "v8: 1"))
	r.publish(3, fmt.Sprintf(route, "v8: 1, v7: 1"))
	r.publish(4, fmt.Sprintf(route, "v7: 1"))
	in := r.incident("mitigated", func(in *adminv1.Incident) bool { return in.GetMitigated() != nil })
	if in.GetMitigation() != "v8 lost its weight by revision 4" {
		t.Errorf("mitigated by %q, want by the weight of the version that fails", in.GetMitigation())
	}
}

// TestNobodyIsHelpedBeforeThereAreRoutes: a breaker that an operator has opened tells so before the first snapshot.
func TestNobodyIsHelpedBeforeThereAreRoutes(t *testing.T) {
	g := &Gateway{director: &director{}}
	if how, is := g.helped("fraud"); is != incident.NothingCutOff || how != "" {
		t.Errorf("helped is %v, %q, want nothing cut off", is, how)
	}
}
