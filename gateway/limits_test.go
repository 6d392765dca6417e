package gateway

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// At a version's limit the calls that can wait are refused first, each with the reason,
// and those that cannot still get through, up to the limit itself.
func TestCallsAreShedByTheirPriority(t *testing.T) {
	t.Parallel()
	var open atomic.Int64
	finish := make(chan struct{})
	s := streams(t, func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		<-finish
		ok(w, r)
	})
	r := start(t, routeTo("", s)+`    limits: {in_flight: 6, reserve: 2}
    priority: {metadata: x-class, default: normal}
`)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer close(finish)
	hold := func(n int64, fields ...string) {
		t.Helper()
		for range n {
			before := open.Load()
			calls.Go(func() {
				if a, err := r.try(t.Context(), modelInfer, infer("fraud", ""), fields...); err != nil || a.code != codes.OK {
					t.Errorf("%v: got %+v, %v; want a place", fields, a, err)
				}
			})
			r.until(t, "the call to be with the server", func() bool { return open.Load() == before+1 })
		}
	}
	refused := func(reason string, fields ...string) {
		t.Helper()
		a := r.call(modelInfer, infer("fraud", ""), fields...)
		if a.code != codes.ResourceExhausted || a.info().GetReason() != reason || !a.retryInfo() || a.one("sluice-attempts") != "0" {
			t.Errorf("%v: got %v %q, %v; want %s and when to come again", fields, a.code, a.message, a.details, reason)
		}
	}
	hold(3, "x-class", "sheddable") // three quarters of four
	refused("SHED", "x-class", "sheddable")
	hold(1)
	refused("SHED")
	refused("SHED", "x-class", "important") // not a class: the default
	hold(2, "x-class", "critical")
	refused("IN_FLIGHT_LIMIT", "x-class", "critical")
}

// Without a route's say callers have none, and a route's default holds for all.
func TestPriorityIsTheRoutesToGive(t *testing.T) {
	t.Parallel()
	var open atomic.Int64
	finish := make(chan struct{})
	s := streams(t, func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		<-finish
		ok(w, r)
	})
	r := start(t, strings.ReplaceAll(routeTo("", s), "fraud", "plain")+`    limits: {in_flight: 2, reserve: 1}
`+strings.TrimPrefix(routeTo("", s), "\nroutes:")+`    limits: {in_flight: 2, reserve: 1}
    priority: {default: critical}
`)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer close(finish)
	for n, model := range []string{"plain", "fraud", "fraud"} {
		calls.Go(func() {
			if a, err := r.try(t.Context(), modelInfer, infer(model, "")); err != nil || a.code != codes.OK {
				t.Errorf("%s: got %+v, %v", model, a, err)
			}
		})
		r.until(t, "the call to be with the server", func() bool { return open.Load() == int64(n+1) })
	}
	for model, reason := range map[string]string{"plain": "SHED", "fraud": "IN_FLIGHT_LIMIT"} {
		if a := r.call(modelInfer, infer(model, ""), "x-class", "critical", "priority", "critical"); a.info().GetReason() != reason {
			t.Errorf("%s: got %v %q, want %s", model, a.code, a.message, reason)
		}
	}
}

// An adaptive limit begins below the static one; without the option there is none.
func TestAdaptiveLimitIsTheRoutesChoice(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]int{"in_flight: 500": 500, "in_flight: 500, adaptive: true": 100} {
		r := start(t, routeTo("", "192.0.2.1:1")+"    limits: {"+setting+"}\n")
		guard, ok := r.director.guardOf("fraud v7")
		if !ok {
			t.Fatal("no breaker")
		}
		if got := guard.Status(time.Now()).Limit; got != want {
			t.Errorf("%s: the limit in force is %d, want %d", setting, got, want)
		}
	}
}
