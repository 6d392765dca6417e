package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// ChangeLog writes a line for each change of a breaker or an endpoint, within limits: when a network fails, all of
// them change, again and again. Safe for concurrent use.
type ChangeLog struct {
	log        *slog.Logger
	telemetry  *Telemetry
	limit      limiter
	suppressed atomic.Uint64
}

// NewChangeLog returns one that writes to log. Lines left out are counted in t, which may be nil.
func NewChangeLog(log *slog.Logger, t *Telemetry) *ChangeLog {
	return &ChangeLog{log: log, telemetry: t, limit: limiter{every: time.Second / linesPerSecond, burst: lineBurst}}
}

// Log writes a line, unless there were too many.
func (c *ChangeLog) Log(level slog.Level, msg string, args ...any) {
	if !c.limit.allow(time.Now()) {
		c.suppressed.Add(1)
		c.telemetry.Dropped(signalLogs, dropRate, 1)
		return
	}
	c.log.Log(context.Background(), level, msg, args...)
}

// Run says from time to time how many lines were left out, until ctx ends.
func (c *ChangeLog) Run(ctx context.Context) {
	tick := time.NewTicker(suppressedEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		if n := c.suppressed.Swap(0); n > 0 {
			c.log.Warn("breakers and endpoints changed without a line each", "suppressed", n)
		}
	}
}
