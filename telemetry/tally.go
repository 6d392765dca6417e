package telemetry

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// Tally counts the calls of one model as its callers see them, whatever version answered: what
// objectives and incidents are measured by. Safe for concurrent use; nil counts nothing.
type Tally struct {
	calls, failed, fellBack, timed, late atomic.Uint64
	limit                                atomic.Int64

	firstFailed, firstLate atomic.Int64 // as Unix time in nanoseconds, 0 for none, of those not taken yet
}

// Tallied are the counts of a [Tally].
type Tallied struct {
	// Calls are those that ended and that their callers had not given up.
	Calls uint64
	// Failed are those that a server or the gateway failed to answer.
	Failed uint64
	// FellBack are those that another version than the chosen one answered.
	FellBack uint64
	// Timed are the good answers of unary calls while there is a limit; Late are those that took longer.
	Timed, Late uint64
}

// Read returns the counts.
func (t *Tally) Read() Tallied {
	if t == nil {
		return Tallied{}
	}
	// What is a part of something is read before it, so that no share exceeds 1.
	n := Tallied{Failed: t.failed.Load(), FellBack: t.fellBack.Load(), Late: t.late.Load()}
	n.Timed = t.timed.Load()
	n.Calls = t.calls.Load()
	return n
}

// SetLimit says from when on an answer is late; 0 means never.
func (t *Tally) SetLimit(d time.Duration) {
	if t != nil {
		t.limit.Store(int64(d))
	}
}

func (t *Tally) count(c *Call) {
	if t == nil || c.Canceled {
		return
	}
	t.calls.Add(1)
	unanswered := c.unanswered()
	if c.FallbackReason != "" && !unanswered {
		t.fellBack.Add(1)
	}
	switch {
	case unanswered:
		note(&t.firstFailed, c.Ended)
		t.failed.Add(1)
	case c.Code == uint32(codes.OK) && c.Unary:
		limit := t.limit.Load()
		if limit == 0 {
			return
		}
		t.timed.Add(1)
		if c.Ended.Sub(c.Opened) > time.Duration(limit) {
			note(&t.firstLate, c.Ended)
			t.late.Add(1)
		}
	}
}

// note keeps the first of the times since the last was taken.
func note(first *atomic.Int64, at time.Time) {
	if first.Load() == 0 {
		first.CompareAndSwap(0, at.UnixNano())
	}
}

// TakeFirstFailed returns when the first call ended that failed since it was last taken, zero if that is
// not known. It is for one reader.
func (t *Tally) TakeFirstFailed() time.Time { return take(&t.firstFailed) }

// TakeFirstLate is the same for answers that were late.
func (t *Tally) TakeFirstLate() time.Time { return take(&t.firstLate) }

func take(first *atomic.Int64) time.Time {
	if ns := first.Swap(0); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// unanswered reports whether the call ended for a fault of the server's or the gateway's. A server that
// has no room says so to whoever asked for too much; the gateway's limits are its operators'.
func (c *Call) unanswered() bool {
	switch codes.Code(c.Code) {
	case codes.Unknown, codes.DeadlineExceeded, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	case codes.ResourceExhausted:
		return c.Reason != ""
	}
	return false
}
