package gateway

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/routing"
)

// faultLine is a fault as a line of a route that acts for an hour, from a minute
// ago.
func faultLine(fault string) string {
	from := time.Now().Add(-time.Minute)
	return fmt.Sprintf("faults: [{%s, from: %q, until: %q}]", fault,
		from.Format(time.RFC3339), from.Add(routing.MaxFault).Format(time.RFC3339))
}

func TestInjectedStatusReachesTheCallerAndSaysSo(t *testing.T) {
	s := serve(t, nil)
	r := start(t, withFallback(s.addr, serve(t, nil).addr, faultLine("version: v8, percent: 100, status: DATA_LOSS")))
	a := r.call(modelInfer, infer("fraud", ""))
	info := a.info()
	if a.code != codes.DataLoss || info.GetReason() != "FAULT_INJECTED" || info.GetDomain() != "sluice" {
		t.Errorf("got %v %q with %v, want DATA_LOSS and FAULT_INJECTED", a.code, a.message, info)
	}
	for name, want := range map[string]string{
		"sluice-fault": "v8 DATA_LOSS", "sluice-version": "v8", "sluice-attempts": "1", "sluice-fallback": "",
	} {
		if got := a.one(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("the model server got %d calls, want none", n)
	}
}

// TestInjectedFailuresAreTreatedAsTheServers: they fall back, and the breaker opens.
func TestInjectedFailuresAreTreatedAsTheServers(t *testing.T) {
	for _, kind := range []struct{ fault, reason string }{
		{"status: UNAVAILABLE", "v8 UNAVAILABLE"}, {"reset_stream: true", "v8 INTERNAL"},
	} {
		v8, v7 := serve(t, nil), serve(t, nil)
		r := start(t, withFallback(v8.addr, v7.addr, "breaker: {consecutive: 3, open_for: 1h}", faultLine("version: v8, percent: 100, "+kind.fault)))
		for i := range 3 {
			a := r.call(modelInfer, infer("fraud", ""))
			if a.code != codes.OK || a.one("sluice-fallback") != kind.reason || a.one("sluice-attempts") != "2" {
				t.Fatalf("%s: call %d: %v with %v, want an answer of the fallback", kind.fault, i, a.code, a.header)
			}
		}
		a := r.call(modelInfer, infer("fraud", ""))
		if a.code != codes.OK || a.one("sluice-fallback") != "v8 BREAKER_OPEN" || a.one("sluice-fault") != "" {
			t.Errorf("%s: %v with %v, want the breaker to be open", kind.fault, a.code, a.header)
		}
		if len(v8.calls()) != 0 || len(v7.calls()) != 4 {
			t.Errorf("%s: v8 got %d calls, v7 %d; want 0 and 4", kind.fault, len(v8.calls()), len(v7.calls()))
		}
	}
}

func TestInjectedDelayIsTheEndpointsLatency(t *testing.T) {
	s := serve(t, nil)
	r := start(t, withFallback(s.addr, serve(t, nil).addr, faultLine("percent: 100, delay: 120ms")))
	begin := time.Now()
	a := r.call(modelInfer, infer("fraud", ""))
	if took := time.Since(begin); a.code != codes.OK || took < 120*ms {
		t.Errorf("%v after %v, want OK after 120ms at least", a.code, took)
	}
	if got := a.one("sluice-fault"); got != "v8 delay 120ms" {
		t.Errorf("sluice-fault: %q", got)
	}
	e := r.director.snapshot.Load().endpoints()
	if len(e) != 2 || max(e[0].latency.load(time.Now(), 0), e[1].latency.load(time.Now(), 0)) < 0.1 {
		t.Error("the endpoint's latency does not know of the delay")
	}
}

func TestInjectedDelayNeverOutlastsTheDeadline(t *testing.T) {
	s := serve(t, nil)
	r := start(t, withFallback(s.addr, serve(t, nil).addr, faultLine("percent: 100, delay: 30s")))
	begin := time.Now()
	a := r.call(modelInfer, infer("fraud", ""), "grpc-timeout", "80m")
	if took := time.Since(begin); a.code != codes.DeadlineExceeded || took > 8*time.Second {
		t.Errorf("%v after %v, want DEADLINE_EXCEEDED", a.code, took)
	}
	if a.info().GetReason() != "DEADLINE" || a.info().GetMetadata()["sluice-fault"] != "v8 delay 30s" {
		t.Errorf("got %v, want the deadline, and the fault named", a.info())
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("the model server got %d calls, want none", n)
	}
}

// TestFaultsStrikeTheirShare draws as calls do: within five standard deviations,
// and one fault's choice says nothing about another's.
func TestFaultsStrikeTheirShare(t *testing.T) {
	now := time.Now()
	v := &routing.Version{Model: "fraud", Name: "v8"}
	for _, share := range []float64{0.0001, 0.1, 0.5, 1} {
		v.Faults = append(v.Faults, routing.Fault{Share: share, Delay: ms, From: now, Until: now.Add(time.Minute)})
	}
	faults := faultsOf(v, nil)
	const calls = 200_000
	struck, both := make([]int, len(faults)), 0
	random := rand.New(rand.NewPCG(4, 2))
	for range calls {
		id := random.Uint64()
		for i := range faults {
			if faults[i].strikes(id, now) {
				struck[i]++
			}
		}
		if faults[1].strikes(id, now) && faults[2].strikes(id, now) {
			both++
		}
	}
	within := func(what string, got int, share float64) {
		if slack := 5 * math.Sqrt(calls*share*(1-share)); math.Abs(float64(got)-calls*share) > slack {
			t.Errorf("%s: %d of %d calls, want %.0f +- %.0f", what, got, calls, calls*share, slack)
		}
	}
	for i, f := range v.Faults {
		within(fmt.Sprint(f.Share), struck[i], f.Share)
	}
	within("both of two", both, 0.05)
	for i := range faults {
		if faults[i].strikes(1, now.Add(time.Minute)) || faults[i].strikes(1, now.Add(-1)) {
			t.Errorf("fault %d acts outside of its time", i)
		}
	}
}

// TestFaultsEndByThemselves without any change of the routes.
func TestFaultsEndByThemselves(t *testing.T) {
	s := serve(t, nil)
	from := time.Now()
	until := from.Add(700 * ms)
	r := start(t, withFallback(s.addr, serve(t, nil).addr, "breaker: {consecutive: 1000000, min_calls: 1000000}",
		fmt.Sprintf("faults: [{percent: 100, status: DATA_LOSS, from: %q, until: %q}]", from.Format(time.RFC3339Nano), until.Format(time.RFC3339Nano))))
	for time.Now().Before(until.Add(patience)) {
		begun := time.Now()
		a := r.call(modelInfer, infer("fraud", ""))
		switch {
		case a.code == codes.OK && time.Now().Before(until):
			t.Fatal("a call was let through while the fault acts")
		case a.code == codes.OK:
			if a.one("sluice-revision") != "1" {
				t.Error("the routes have changed")
			}
			return
		case begun.After(until.Add(time.Second)): // the gateway may have woken for it a little earlier
			t.Fatalf("a call failed after the fault's end: %v %q", a.code, a.message)
		}
	}
}

// TestManagementCallsAreSpared: an experiment loads no model.
func TestManagementCallsAreSpared(t *testing.T) {
	s := serve(t, nil)
	r := start(t, withFallback(s.addr, serve(t, nil).addr, "allow_management: true", faultLine("percent: 100, status: UNAVAILABLE")))
	a := r.call("/inference.GRPCInferenceService/RepositoryModelLoad", message(nil), "sluice-model", "fraud")
	if a.code != codes.OK || a.one("sluice-fault") != "" {
		t.Errorf("%v %q with %v, want it to pass", a.code, a.message, a.header)
	}
}

// TestTablesSwapWhileFaultsDelayCalls ends with everything given back, which the
// rig checks.
func TestTablesSwapWhileFaultsDelayCalls(t *testing.T) {
	v8, v7 := serve(t, nil), serve(t, nil)
	routes := []string{
		withFallback(v8.addr, v7.addr, faultLine("version: v8, percent: 50, delay: 15ms")),
		withFallback(v8.addr, v7.addr, faultLine("percent: 30, reset_stream: true")),
		withFallback(v7.addr, v8.addr),
		withFallback(v8.addr, v7.addr, "cut_off: [{version: v8}]", faultLine("percent: 50, delay: 15ms")),
	}
	r := start(t, routes[0])
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	var answered, refused atomic.Int64
	for i := range 8 {
		working.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				call, cancel := context.WithCancel(ctx)
				if (n+i)%5 == 0 {
					time.AfterFunc(5*ms, cancel) // while it is delayed
				}
				a, err := r.try(call, modelInfer, infer("fraud", ""))
				cancel()
				switch {
				case err != nil: // cancelled
				case a.code == codes.OK:
					answered.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	for i := range 60 {
		r.publish(uint64(i+2), routes[(i+1)%len(routes)])
		time.Sleep(10 * ms)
	}
	stop()
	working.Wait()
	if answered.Load() == 0 {
		t.Error("no call was answered: this shows nothing")
	}
	t.Logf("%d answered, %d failed", answered.Load(), refused.Load())
}

// TestStruckAttemptsAreCounted for the metrics, and for each fault as long as it stays
// as it is, whatever else of its route changes.
func TestStruckAttemptsAreCounted(t *testing.T) {
	v8, v7 := serve(t, nil), serve(t, nil)
	status, delay := faultLine("version: v8, percent: 100, status: INTERNAL"), faultLine("version: v8, percent: 100, delay: 1ms")
	both := strings.TrimSuffix(status, "]") + ", " + strings.TrimPrefix(delay, "faults: [")
	settings := "breaker: {dry_run: true}"
	r := start(t, withFallback(v8.addr, v7.addr, settings, status))
	struck := func() (n []uint64) {
		route, _ := r.router.Current().Route("fraud")
		for _, v := range route.Versions {
			for _, f := range v.Faults {
				n = append(n, r.Struck(v, f))
			}
		}
		return n
	}
	call := func(n int, fields ...string) {
		for range n {
			r.call(modelInfer, infer("fraud", ""), fields...)
		}
	}
	call(3)
	call(2, "sluice-version", "v7")
	if got := struck(); !slices.Equal(got, []uint64{3}) {
		t.Errorf("after 3 calls: struck %v", got)
	}
	r.publish(2, withFallback(v8.addr, v7.addr, settings, "limits: {in_flight: 9}", both))
	call(2)
	if got := struck(); !slices.Equal(got, []uint64{5, 2}) {
		t.Errorf("after 2 more with a second fault: struck %v, want 5 and 2", got)
	}
	want(t, r.metrics(t), "sluice_faults_injected_total", map[string]float64{
		`{kind="status",model="fraud",version="v8"}`: 5, `{kind="delay",model="fraud",version="v8"}`: 2,
	})
	attempts := of(r.metrics(t), "sluice_attempts_total")
	if got := attempts[`{kind="primary",model="fraud",outcome="failure",reason="FAULT_INJECTED",version="v8"}`]; got != 5 {
		t.Errorf("%v attempts failed for a fault, want 5 of %v", got, attempts)
	}
	r.publish(3, withFallback(v8.addr, v7.addr, settings))
	r.publish(4, withFallback(v8.addr, v7.addr, settings, status))
	if got := struck(); !slices.Equal(got, []uint64{0}) {
		t.Errorf("a fault that was taken out and is there again: struck %v, want 0", got)
	}
}

// --- what is cut off

func TestWhatTheRoutesCutOffGetsNoCalls(t *testing.T) {
	v8, v7 := serve(t, nil), serve(t, nil)
	r := start(t, withFallback(v8.addr, v7.addr, "cut_off: [{version: v8}]"))
	for range 5 {
		if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-fallback") != "v8 BREAKER_OPEN" {
			t.Fatalf("%v with %v, want an answer of the fallback", a.code, a.header)
		}
	}
	if a := r.call(modelInfer, infer("fraud", ""), "sluice-version", "v8"); a.code != codes.Unavailable || a.info().GetReason() != "BREAKER_OPEN" {
		t.Errorf("asked for by name: %v %v, want a refusal", a.code, a.info())
	}
	r.publish(2, withFallback(v8.addr, v7.addr))
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-version") != "v8" {
		t.Errorf("after the order: %v from %s, want v8", a.code, a.one("sluice-version"))
	}
	r.publish(3, withFallback(v8.addr, v7.addr, fmt.Sprintf("cut_off: [{version: v8, endpoint: %q}]", v8.addr)))
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-fallback") != "v8 NO_ENDPOINT" {
		t.Errorf("its only endpoint cut off: %v with %v, want an answer of the fallback", a.code, a.header)
	}
}
