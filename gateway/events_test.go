package gateway

import (
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"sluice/gateway/health"
	"sluice/telemetry"
)

// TestChangesOfBreakersHaveLines, with which version it is, why, and a call that shows it.
func TestChangesOfBreakersHaveLines(t *testing.T) {
	addr, failing := switched(t)
	failing.Store(true)
	r := start(t, `
routes:
  - model: fraud
    versions: [{name: v7, endpoints: ["`+addr+`"]}]
    weights: {v7: 1}
    breaker: {consecutive: 3, open_for: 100ms, max_open_for: 100ms}
`)
	for _, id := range []string{"id-1", "id-2", "id-3"} {
		if a := r.call(modelInfer, infer("fraud", ""), "x-request-id", id); a.code != codes.Internal {
			t.Fatalf("got %v", a.code)
		}
	}
	has := func(parts ...string) func() bool {
		return func() bool {
			for line := range strings.Lines(r.log.String()) {
				all := true
				for _, p := range parts {
					all = all && strings.Contains(line, p)
				}
				if all {
					return true
				}
			}
			return false
		}
	}
	r.until(t, "a line for the breaker that opened", has(`level=WARN msg="breaker open"`, " model=fraud version=v7 ", `endpoint="" from=closed`,
		`cause="consecutive failures"`, "calls=3 failures=3", "sample_request_id=id-3"))
	r.until(t, "a line for its endpoint's", has(`level=WARN msg="breaker open"`, " model=fraud version=v7 endpoint="+addr+" from=closed"))
	failing.Store(false)
	r.until(t, "a line for the probe that succeeded", func() bool {
		r.call(modelInfer, infer("fraud", ""))
		return has(`level=INFO msg="breaker closed"`, " model=fraud version=v7 ", `cause="probe succeeded"`)()
	})
}

// TestLinesHaveAServersWordsInPart: it may answer whatever it likes when it is asked for its health.
func TestLinesHaveAServersWordsInPart(t *testing.T) {
	var log strings.Builder
	lines := telemetry.NewChangeLog(slog.New(slog.NewTextHandler(&log, nil)), nil, "endpoints")
	tellHealth(lines, nil, "fraud v7", "10.0.0.8:8001", health.Unknown, health.Status{State: health.Unhealthy, Why: "not ready: " + strings.Repeat("x", 8000)})
	if got := log.String(); !strings.Contains(got, "not ready: xxx") || len(got) > 500 {
		t.Errorf("a line of %d bytes, want one with the beginning of what the server said: %.600s", len(got), got)
	}
}
