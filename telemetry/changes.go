package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// ChangeLog writes a line for each change of some kind of state, within limits: when a network fails, all breakers and
// endpoints change, again and again. Safe for concurrent use.
type ChangeLog struct {
	log        *slog.Logger
	what       string // changes
	telemetry  *Telemetry
	limit      limiter
	suppressed atomic.Uint64
}

// NewChangeLog returns one that writes to log what changes, such as "breakers". Lines left out are counted in t,
// which may be nil.
func NewChangeLog(log *slog.Logger, t *Telemetry, what string) *ChangeLog {
	return &ChangeLog{log: log, what: what, telemetry: t, limit: limiter{every: time.Second / linesPerSecond, burst: lineBurst}}
}

// Log writes a line, unless there were too many.
func (c *ChangeLog) Log(level slog.Level, msg string, args ...any) {
	if c.allow() {
		c.log.Log(context.Background(), level, msg, args...)
	}
}

func (c *ChangeLog) allow() bool {
	ok := c.limit.allow(time.Now())
	if !ok {
		c.suppressed.Add(1)
		c.telemetry.Dropped(signalLogs, dropRate, 1)
	}
	return ok
}

// Logger returns a logger whose lines are within the same limits.
func (c *ChangeLog) Logger() *slog.Logger { return slog.New(limited{c.log.Handler(), c}) }

// limited hands on what its ChangeLog allows.
type limited struct {
	slog.Handler
	within *ChangeLog
}

func (l limited) Handle(ctx context.Context, r slog.Record) error {
	if !l.within.allow() {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

func (l limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limited{l.Handler.WithAttrs(attrs), l.within}
}

func (l limited) WithGroup(name string) slog.Handler {
	return limited{l.Handler.WithGroup(name), l.within}
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
			c.log.Warn(c.what+" changed without a line each", "suppressed", n)
		}
	}
}
