package demo

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCanaryScenarioAdmitsWhatGoesWrong: in front of a gateway without breakers and
// fallbacks, callers see the canary's failures.
func TestCanaryScenarioAdmitsWhatGoesWrong(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Run(t.Context(), Config{
		Scenario: "canary-fails", Listen: "127.0.0.1:0", For: 2 * time.Second, Rate: 200, Gateway: standInWith(fault{}), Out: &out,
	})
	if err == nil || !strings.Contains(err.Error(), "calls failed") || !strings.Contains(err.Error(), "code = Internal") {
		t.Errorf("Run() = %v, want that calls failed\n%s", err, &out)
	}
}

func TestUnknownScenarioIsRefused(t *testing.T) {
	err := Run(t.Context(), Config{Scenario: "sunshine"})
	if err == nil || !strings.Contains(err.Error(), `got "sunshine", want one of rollout, canary-fails, drift, shadow`) {
		t.Errorf("Run() = %v", err)
	}
}

func TestCanaryScenarioEndsInOrderWhenInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	out := &watched{pattern: "healthy: ", seen: sync.OnceFunc(interrupt)}
	if err := Run(ctx, Config{Scenario: "canary-fails", Listen: "127.0.0.1:0", Rate: 100, Gateway: standInWith(fault{}), Out: out}); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
	if !strings.Contains(out.String(), "PHASE") {
		t.Errorf("no table after an interruption:\n%s", out)
	}
}

func TestCallsCountForThePhaseTheyBeganIn(t *testing.T) {
	a := new(account)
	a.record(outcome{begun: time.Now()}) // before there is a phase
	a.begin("healthy")
	begun := time.Now()
	a.begin("failing")
	ok := func(o outcome) outcome {
		o.latency = time.Millisecond
		return o
	}
	a.record(ok(outcome{begun: begun, version: after}))
	for _, o := range []outcome{
		{version: before},
		{version: before, fallback: "v2 INTERNAL"},
		{version: before, fallback: "v2 BREAKER_OPEN"},
		{version: before, fallback: "v2 BREAKER_OPEN"},
		{version: after},
		{err: errors.New("lost")},
	} {
		o.begun = time.Now()
		a.record(ok(o))
	}
	all := a.all()
	if h := all[0]; h.calls != 1 || h.byAfter != 1 {
		t.Errorf("healthy: %+v, want the call that began then", h)
	}
	if f := all[1]; f.calls != 6 || f.failed != 1 || f.byBefore != 1 || f.byFail != 1 || f.byCutOff != 2 || f.byAfter != 1 || f.firstFailure == nil {
		t.Errorf("failing: %+v", f)
	}
}
