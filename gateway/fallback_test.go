package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	pb "sluice/proto/inference"
)

// withFallback is a route to v8 that falls back to v7. settings are further lines.
func withFallback(v8, v7 string, settings ...string) string {
	return fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v8, endpoints: [%q]}
      - {name: v7, endpoints: [%q]}
    weights: {v8: 1}
    fallback: {to: [v7], on: [UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED]}
`, v8, v7) + "    " + strings.Join(settings, "\n    ") + "\n"
}

// open cuts a version off.
func (r *rig) open(t *testing.T, id string) {
	t.Helper()
	guard, ok := r.director.guardOf(id)
	if !ok {
		t.Fatalf("no breaker of %q", id)
	}
	guard.Breaker().ForceOpen(time.Now())
}

// What a server has said is not replaced by why nobody else could be asked.
func TestServersStatusStaysWhereFallbackIsRefused(t *testing.T) {
	v8 := serve(t, fails(codes.Internal, "out of memory"))
	v7 := serve(t, nil)
	r := start(t, withFallback(v8.addr, v7.addr))
	r.open(t, "fraud v7")
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.Internal || a.message != "out of memory" || a.info() != nil {
		t.Errorf("got %v %q, %v; want what the server said", a.code, a.message, a.details)
	}
	if a.one("sluice-version") != "v8" || a.one("sluice-fallback") != "" || a.one("sluice-attempts") != "1" {
		t.Errorf("got fields %v, want those of v8 alone", a.header)
	}
}

// The same where the relay has to make the status.
func TestLostCallsAreTheirVersionsWhereFallbackIsRefused(t *testing.T) {
	v8, _ := rawServer(t, hangsUp)
	r := start(t, withFallback(v8, serve(t, nil).addr))
	r.open(t, "fraud v7")
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.Unavailable || a.info().GetReason() != "UPSTREAM_LOST" || a.one("sluice-version") != "v8" || a.one("sluice-fallback") != "" {
		t.Errorf("got %v %q, %v, fields %v", a.code, a.message, a.details, a.header)
	}
}

// When no version may be called, the answer is about the one that was chosen.
func TestRefusalIsAboutTheChosenVersion(t *testing.T) {
	r := start(t, withFallback("192.0.2.1:1", "192.0.2.2:1"))
	r.open(t, "fraud v8")
	r.open(t, "fraud v7")
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.Unavailable || a.info().GetReason() != "BREAKER_OPEN" || !strings.Contains(a.message, `"v8"`) {
		t.Errorf("got %v %q, %v", a.code, a.message, a.details)
	}
	if a.one("sluice-version") != "v8" || a.one("sluice-fallback") != "" || a.one("sluice-attempts") != "0" {
		t.Errorf("got fields %v, want those of v8 alone", a.header)
	}
}

// A version all of whose endpoints are known to be unhealthy costs no attempt where
// another version can answer. Where none can, it is asked all the same.
func TestUnhealthyVersionIsPassedOverForOneThatIsWell(t *testing.T) {
	for _, c := range []struct {
		name     string
		unwell   []string
		open     string
		fields   []string
		version  string
		fallback string
	}{
		{name: "nobody was asked yet", version: "v8"},
		{name: "unhealthy", unwell: []string{"v8"}, version: "v7", fallback: "v8 NO_ENDPOINT"},
		{name: "the fallback is unhealthy, too", unwell: []string{"v8", "v7"}, version: "v8"},
		{name: "the fallback is cut off", unwell: []string{"v8"}, open: "fraud v7", version: "v8"},
		{name: "asked for by name", unwell: []string{"v8"}, fields: []string{"sluice-version", "v8"}, version: "v8"},
		{name: "only the fallback is unhealthy", unwell: []string{"v7"}, version: "v8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v8, v7 := serve(t, nil), serve(t, nil)
			r := start(t, withFallback(v8.addr, v7.addr))
			for _, v := range c.unwell {
				r.makeWell(v, false)
			}
			if c.open != "" {
				r.open(t, c.open)
			}
			a := r.call(modelInfer, infer("fraud", ""), c.fields...)
			if a.code != codes.OK || a.one("sluice-version") != c.version || a.one("sluice-fallback") != c.fallback || a.one("sluice-attempts") != "1" {
				t.Errorf("got %v %q, fields %v, want %s", a.code, a.message, a.header, c.version)
			}
			if n := len(v8.calls()) + len(v7.calls()); n != 1 {
				t.Errorf("the servers got %d calls, want 1", n)
			}
		})
	}
}

// While one endpoint is well there is no reason to leave the version, though in a panic
// the unhealthy ones get calls, too.
func TestVersionWithOneEndpointThatIsWellIsAsked(t *testing.T) {
	well, sick, sicker, v7 := serve(t, nil), serve(t, nil), serve(t, nil), serve(t, nil)
	all := fmt.Sprintf("[%q, %q, %q]", well.addr, sick.addr, sicker.addr)
	r := start(t, strings.Replace(withFallback(well.addr, v7.addr), fmt.Sprintf("[%q]", well.addr), all, 1))
	r.makeWell("v8", false)
	for _, e := range r.director.snapshot.Load().endpoints() {
		if e.addr == well.addr {
			e.unhealthy.Store(false)
		}
	}
	for range 50 {
		if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-version") != "v8" {
			t.Fatalf("got %v %q, fields %v, want v8", a.code, a.message, a.header)
		}
	}
	if len(sick.calls())+len(sicker.calls()) == 0 {
		t.Error("the unhealthy ones got no calls: this shows nothing")
	}
	r.makeWell("v8", false)
	if a := r.call(modelInfer, infer("fraud", "")); a.one("sluice-fallback") != "v8 NO_ENDPOINT" {
		t.Errorf("got %v %q, fields %v, want the fallback", a.code, a.message, a.header)
	}
}

// Managing one version's server is no business of another's.
func TestManagementDoesNotFallBack(t *testing.T) {
	v7 := serve(t, nil)
	r := start(t, withFallback(serve(t, fails(codes.Internal, "no")).addr, v7.addr, "allow_management: true"))
	a := r.call("/inference.GRPCInferenceService/RepositoryModelUnload", message(&pb.RepositoryModelUnloadRequest{ModelName: "fraud"}))
	if a.code != codes.Internal || len(v7.calls()) != 0 {
		t.Errorf("got %v %q by %q", a.code, a.message, a.one("sluice-version"))
	}
}

// A server that gives up at the very deadline leaves no time for another one.
func TestNoFallbackAfterTheDeadline(t *testing.T) {
	t.Parallel()
	v8 := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		fails(codes.DeadlineExceeded, "too slow")(w, r)
	})
	v7 := serve(t, nil)
	// More patience than callers have here: no breaker opens.
	r := start(t, withFallback(v8.addr, v7.addr, "breaker: {slow_call: 60s}"))
	if a := r.call(modelInfer, infer("fraud", ""), "grpc-timeout", "10S"); a.code != codes.OK || a.one("sluice-fallback") != "v8 DEADLINE_EXCEEDED" {
		t.Errorf("with time left: got %v %q, fields %v", a.code, a.message, a.header)
	}
	for range 5 { // who notices first is a matter of microseconds
		a := r.call(modelInfer, infer("fraud", ""), "grpc-timeout", "1S")
		if a.code != codes.DeadlineExceeded || a.one("sluice-version") != "v8" || a.one("sluice-attempts") != "1" {
			t.Errorf("with none left: got %v %q, fields %v", a.code, a.message, a.header)
		}
	}
}

// After an endpoint that was not available, those that cannot be reached do not
// keep a call from the one that is well.
func TestRetryPassesEndpointsThatAreNotThere(t *testing.T) {
	unavailable := serve(t, fails(codes.Unavailable, "shutting down"))
	good := serve(t, nil)
	const routes = 20
	var document strings.Builder
	document.WriteString("routes:\n")
	for i := range routes { // each with endpoints of which nothing is known
		fmt.Fprintf(&document, "  - {model: m%d, versions: [%s], weights: {v1: 1}}\n", i,
			version("v1", unavailable.addr, closedPort(t), closedPort(t), good.addr))
	}
	r := start(t, document.String())
	for i := range routes {
		if a := r.call(modelInfer, infer(fmt.Sprint("m", i), "")); a.code != codes.OK {
			t.Errorf("got %v %q after %s attempts", a.code, a.message, a.one("sluice-attempts"))
		}
	}
	if len(unavailable.calls()) == 0 {
		t.Error("the endpoint that is not available was never tried: this shows nothing")
	}
}

// Every call earns a tenth of a second attempt, beside what time brings.
func TestCallsEarnSecondAttempts(t *testing.T) {
	r := start(t, routesOf(version("v7", serve(t, nil).addr)))
	var budget *breaker.Budget
	for _, tg := range r.director.snapshot.Load().targets.all() {
		budget = tg.budget
	}
	for budget.Take(time.Now()) { // empty it
	}
	emptied := time.Now()
	const calls = 50
	for range calls {
		r.call(modelInfer, infer("fraud", ""))
	}
	least := min(10, calls/10+5*time.Since(emptied).Seconds())
	if got := budget.Status(time.Now()).Left; got < least-1e-6 {
		t.Errorf("%d calls and %v have earned %v second attempts, want %v", calls, time.Since(emptied), got, least)
	}
}

// A call is one call to the budget, however many endpoints it could not reach.
func TestUnreachableEndpointsEarnNothing(t *testing.T) {
	r := start(t, routesOf(version("v7", closedPort(t), closedPort(t), closedPort(t), serve(t, nil).addr)))
	budget := func() float64 {
		for _, tg := range r.director.snapshot.Load().targets.all() {
			return tg.budget.Status(time.Now()).Left
		}
		return 0
	}
	for _, tg := range r.director.snapshot.Load().targets.all() {
		for tg.budget.Take(time.Now()) { // empty it
		}
	}
	started := time.Now()
	left := budget() // what time has brought since the last was taken
	r.call(modelInfer, infer("fraud", ""))
	if got, most := budget(), left+0.1+5*time.Since(started).Seconds()+0.05; got > most {
		t.Errorf("one call earned %v second attempts, want at most %v", got, most)
	}
}
