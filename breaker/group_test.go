package breaker

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestStateOutlivesTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup()
		v := g.Update("fraud v8", VersionSettings{}, time.Now())
		e := v.Endpoint("10.0.0.8:8001", time.Now())
		calls(t, e, 5, Failure)
		p, err := v.Allow(time.Now(), Normal)
		if err != nil {
			t.Fatal(err)
		}
		again := g.Update("fraud v8", VersionSettings{Settings: Settings{OpenFor: time.Minute}}, time.Now())
		if again != v || again.Endpoint("10.0.0.8:8001", time.Now()) != e {
			t.Fatal("new settings have made a new version")
		}
		wantState(t, e, Open)
		p.Done(Result{Outcome: Failure, At: time.Now()})
		s := v.Status(time.Now())
		if s.InFlight != 0 || s.Counts.Failures != 1 {
			t.Errorf("%d in flight, %d failures; want 0, 1", s.InFlight, s.Counts.Failures)
		}
		time.Sleep(6 * time.Second)
		calls(t, e, 1, Failure)
		if s := e.Status(time.Now()); s.OpenUntil.Sub(s.Since) != time.Minute {
			t.Errorf("the endpoint is open for %v, want its version's new setting", s.OpenUntil.Sub(s.Since))
		}
	})
}

func TestRetainForgetsTheRest(t *testing.T) {
	g := NewGroup()
	gone := g.Update("fraud v7", VersionSettings{}, time.Now())
	p, err := gone.Allow(time.Now(), Normal)
	if err != nil {
		t.Fatal(err)
	}
	g.Update("fraud v8", VersionSettings{}, time.Now())
	kept, old := g.Budget("fraud", time.Now()), g.Budget("spam", time.Now())
	only := func(want string) func(string) bool { return func(key string) bool { return key == want } }
	g.Retain(only("fraud v8"), only("fraud"))
	if _, ok := g.Version("fraud v7"); ok {
		t.Error("a version is kept that nobody claims")
	}
	if _, ok := g.Version("fraud v8"); !ok {
		t.Error("a version is forgotten that is claimed")
	}
	if g.Budget("fraud", time.Now()) != kept || g.Budget("spam", time.Now()) == old {
		t.Error("the wrong budget is forgotten")
	}
	p.Done(Result{Outcome: Success, At: time.Now()})
	if gone.InFlight() != 0 {
		t.Error("a permit of a forgotten version gives nothing back")
	}
}

func TestRetainEndpoints(t *testing.T) {
	v := newTestVersion(VersionSettings{})
	a, b := v.Endpoint("a:1", time.Now()), v.Endpoint("b:1", time.Now())
	v.RetainEndpoints([]string{"b:1", "c:1"})
	if v.Endpoint("b:1", time.Now()) != b || v.Endpoint("a:1", time.Now()) == a {
		t.Error("the wrong endpoint is forgotten")
	}
}

func TestGroupStatus(t *testing.T) {
	g := NewGroup()
	for _, key := range []string{"spam v1", "fraud v8"} {
		v := g.Update(key, VersionSettings{}, time.Now())
		v.Endpoint("b:1", time.Now())
		v.Endpoint("a:1", time.Now()).ForceOpen(time.Now())
	}
	s := g.Status(time.Now())
	if len(s) != 2 || s[0].Name.String() != "fraud v8" || s[1].Name.String() != "spam v1" {
		t.Fatalf("%+v, want both versions by key", s)
	}
	e := s[0].Endpoints
	if len(e) != 2 || e[0].Name.String() != "fraud v8 a:1" || !e[0].Forced || e[1].Name.Endpoint != "b:1" || e[1].Forced {
		t.Errorf("%+v, want a:1 forced open, then b:1", e)
	}
	if s[0].Limit != DefaultInFlight || s[0].State != Closed {
		t.Errorf("limit %d, %v", s[0].Limit, s[0].State)
	}
}

func TestResetReachesTheEndpoints(t *testing.T) {
	v := newTestVersion(VersionSettings{})
	e := v.Endpoint("a:1", time.Now())
	calls(t, e, 5, Failure)
	v.Breaker().ForceOpen(time.Now())
	if _, err := v.Allow(time.Now(), Critical); !errors.Is(err, ErrForced) {
		t.Errorf("forced open: %v", err)
	}
	v.Reset(time.Now())
	wantState(t, e, Closed)
	wantState(t, v.Breaker(), Closed)
}

func TestDryRunOfAVersion(t *testing.T) {
	v := newTestVersion(VersionSettings{Settings: Settings{DryRun: true}})
	for range 100 {
		p, err := v.Allow(time.Now(), Normal)
		if err != nil {
			t.Fatal(err)
		}
		p.Done(Result{Outcome: Failure, At: time.Now()})
	}
	if s := v.Status(time.Now()); s.State != Open || s.InFlight != 0 || s.Refused != 95 {
		t.Errorf("%v, %d in flight, %d would be refused; want open, 0, 95", s.State, s.InFlight, s.Refused)
	}
}
