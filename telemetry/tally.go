package telemetry

import (
	"sync"
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

	latest  atomic.Int64 // second, as Unix time, in which a call has ended
	marking sync.Mutex   // guards marks
	marks   [tallyMarks]mark
}

// tallyMarks is how many seconds with calls are remembered: more than most breakers take to open.
const tallyMarks = 16

// mark is what the counts were when a second with calls began.
type mark struct {
	second int64
	counts Tallied
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
	if second := c.Ended.Unix(); second > t.latest.Load() {
		t.mark(second)
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
	case c.Code == uint32(codes.OK) && c.Unary && t.limit.Load() != 0:
		t.timed.Add(1)
		if c.late {
			note(&t.firstLate, c.Ended)
			t.late.Add(1)
		}
	}
}

// isLate reports whether a call is a good answer that took longer than the limit.
func (t *Tally) isLate(c *Call) bool {
	if t == nil || c.Canceled || c.Code != uint32(codes.OK) || !c.Unary {
		return false
	}
	limit := time.Duration(t.limit.Load())
	return limit != 0 && c.Ended.Sub(c.Opened) > limit
}

// mark remembers the counts as those at the beginning of a second. One of the calls that find a new second does so;
// the others do not wait.
func (t *Tally) mark(second int64) {
	if !t.marking.TryLock() {
		return
	}
	defer t.marking.Unlock()
	if second <= t.latest.Load() {
		return
	}
	copy(t.marks[1:], t.marks[:]) // the latest first
	t.marks[0] = mark{second, t.Read()}
	t.latest.Store(second)
}

// Since returns what has been counted since a time, from the beginning of its second on; at the most in as many seconds with
// calls as are remembered.
func (t *Tally) Since(at time.Time) Tallied {
	if t == nil {
		return Tallied{}
	}
	t.marking.Lock()
	defer t.marking.Unlock()
	now := t.Read()
	before := now
	for _, m := range t.marks {
		if m.second == 0 || m.second < at.Unix() {
			break
		}
		before = m.counts
	}
	return Tallied{
		Calls: now.Calls - before.Calls, Failed: now.Failed - before.Failed, FellBack: now.FellBack - before.FellBack,
		Timed: now.Timed - before.Timed, Late: now.Late - before.Late,
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

// refusedAtOnce reports whether the gateway has refused the call without asking any server.
func (c *Call) refusedAtOnce() bool { return c.begun == 0 && c.Reason != "" }

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
