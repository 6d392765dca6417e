package breaker

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestStandingOrdersAreFollowedWhereTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup()
		update := func(s VersionSettings) *Version { return g.Update("fraud v8", s, time.Now()) }
		v := update(VersionSettings{CutOff: true, CutOffEndpoints: []string{"b:1"}})
		a, b := v.Endpoint("a:1", time.Now()), v.Endpoint("b:1", time.Now()) // b comes after the order
		for _, test := range []struct {
			what    string
			next    VersionSettings
			v, a, b bool // forced
		}{
			{"the first", VersionSettings{CutOff: true, CutOffEndpoints: []string{"b:1"}}, true, false, true},
			{"another setting", VersionSettings{Settings: Settings{MinCalls: 7}, CutOff: true, CutOffEndpoints: []string{"b:1"}}, true, false, true},
			{"another endpoint", VersionSettings{CutOff: true, CutOffEndpoints: []string{"a:1"}}, true, true, false},
			{"none", VersionSettings{}, false, false, false},
			{"the version again", VersionSettings{CutOff: true}, true, false, false},
		} {
			update(test.next)
			if v.Breaker().Forced() != test.v || a.Forced() != test.a || b.Forced() != test.b {
				t.Errorf("%s: forced are version %v, a %v, b %v; want %v, %v, %v", test.what,
					v.Breaker().Forced(), a.Forced(), b.Forced(), test.v, test.a, test.b)
			}
		}
	})
}

// An order that somebody gave here is nobody else's to take back.
func TestOtherSettingsLeaveALocalOrderAlone(t *testing.T) {
	g := NewGroup()
	v := g.Update("fraud v8", VersionSettings{}, time.Now())
	v.Breaker().ForceOpen(time.Now())
	g.Update("fraud v8", VersionSettings{Settings: Settings{MinCalls: 7}}, time.Now())
	wantState(t, v.Breaker(), Open)
	g.Update("fraud v8", VersionSettings{CutOff: true}, time.Now())
	g.Update("fraud v8", VersionSettings{}, time.Now())
	wantState(t, v.Breaker(), Closed)
}

// What had opened by itself starts anew when an order over it is taken back.
func TestEndOfAnOrderForgetsWhatWasLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup()
		v := g.Update("fraud v8", VersionSettings{}, time.Now())
		calls(t, v.Breaker(), 5, Failure)
		wantState(t, v.Breaker(), Open)
		g.Update("fraud v8", VersionSettings{CutOff: true}, time.Now())
		g.Update("fraud v8", VersionSettings{}, time.Now())
		wantState(t, v.Breaker(), Closed)
		if n := v.Status(time.Now()).Counts.Failures; n != 0 {
			t.Errorf("%d failures are remembered", n)
		}
	})
}
