package telemetry

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"
)

// keep is why a call's spans are kept.
type keep uint8

const (
	notKept keep = iota
	keptSampled
	keptFailed
	keptFallback
	keptSlow
	keptForced
)

var keepNames = [...]string{"no", "sampled", "failed", "fallback", "slow", "forced"}

// String returns the reason in lower case.
func (k keep) String() string { return keepNames[k] }

// failed reports whether the call is one that somebody may ask about: it did not end well, and not because
// the caller had enough of it.
func (c *Call) failed() bool {
	return c.Code != uint32(codes.OK) && !c.Canceled
}

// worthKeeping says why the call's spans are worth keeping.
func (c *Call) worthKeeping() keep {
	switch {
	case c.Trace.Sampled():
		return keptSampled
	case !c.Trace.Span.IsValid():
		return notKept // traces are off
	case c.failed():
		return keptFailed
	case c.FallbackReason != "":
		return keptFallback
	case c.Slow || c.slow || c.late:
		return keptSlow
	case c.Forced:
		return keptForced
	}
	return notKept
}

// limiter lets a steady rate through, and a burst. While everything fails, that is enough to see why, and
// what is made of a failed call costs more than a refused call itself. Safe for concurrent use.
type limiter struct {
	every time.Duration // one more
	burst int

	mu    sync.Mutex
	empty time.Time // when it was empty; one more per every since
}

func (l *limiter) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if full := now.Add(-time.Duration(l.burst) * l.every); l.empty.Before(full) {
		l.empty = full
	}
	next := l.empty.Add(l.every)
	if next.After(now) {
		return false
	}
	l.empty = next
	return true
}
