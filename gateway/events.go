package gateway

import (
	"context"
	"log/slog"

	"sluice/breaker"
)

// eventRoom is how many changes of breakers may wait to be logged.
const eventRoom = 256

// logEvents writes a line for each change of a breaker, until the subscription is
// closed.
func logEvents(events *breaker.Subscription, log *slog.Logger) {
	for e := range events.C() {
		level := slog.LevelInfo
		if e.To == breaker.Open {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "breaker "+e.To.String(),
			"version", e.Name.Version, "endpoint", e.Name.Endpoint, "from", e.From.String(),
			"cause", e.Cause.String(), "calls", e.Counts.Calls, "failures", e.Counts.Failures,
			"slow", e.Counts.Slow, "sample_request_id", e.RequestID, "dry_run", e.DryRun)
	}
}
