package relay

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"
)

// refuse answers with a status of the gateway's and ends the call.
func (c *Call) refuse(w *worker, s *Status, kind OutcomeKind) {
	c.refuseAs(w, s, c.outcome(w, c.att, kind, s.Code, s.Message))
}

// refuseAtEnd refuses a request that is no gRPC call once the client has sent it:
// plain HTTP clients may not look for an answer before, and until then the rest
// of the request is still checked. c.mu is held.
func (c *Call) refuseAtEnd(w *worker, s *Status) {
	if c.bodyEnded {
		c.refuse(w, s, Refused)
		return
	}
	c.refusal, c.keepBody = s, false
	c.rearm(w.now)
}

func (c *Call) refuseAs(w *worker, s *Status, o Outcome) {
	if c.done {
		return
	}
	d := &c.down
	d.conn.mu.Lock()
	if !d.closed && !d.sentEnd {
		// Whatever of an answer is still undelivered is dropped: a deadline or an
		// eviction must not wait for the client's window.
		d.freeQueue()
		if c.sentAnswer {
			d.conn.writeTrailers(w, d, statusFields(nil, s.Code, s.Message, s.Details))
		} else {
			c.encodeRefusal(w, s)
		}
		d.sentEnd = true
	}
	d.conn.mu.Unlock()
	c.finish(w, o)
}

// abortDown resets the client's stream: the client broke the protocol.
func (c *Call) abortDown(w *worker, code http2.ErrCode) {
	c.down.conn.side.(*downstreamSide).abuse.early()
	c.down.conn.mu.Lock()
	c.down.resetLocked(w, code)
	c.down.conn.mu.Unlock()
	c.finish(w, c.outcome(w, c.att, Canceled, codeCanceled, "the client broke the protocol"))
}

// finish ends the call. It is the only way a call ends, whatever ended it. c.mu
// is held.
func (c *Call) finish(w *worker, o Outcome) {
	if c.done {
		return
	}
	c.done = true
	o.Committed = c.sentAnswer
	c.relay.wheel.cancel(c)
	if h := c.hedge; h != nil {
		c.hedge = nil
		c.leave(w, h)
		c.policy(w).Dropped(c, c.outcome(w, h, o.Kind, o.Code, o.Message))
	}
	if c.att != nil {
		c.leave(w, c.att)
	}
	if c.capture != nil {
		c.captureBody()
	}
	c.body.free(&c.relay.replay)
	d := &c.down
	dc := d.conn
	dc.mu.Lock()
	if !d.closed {
		if d.gotEnd {
			d.removeLocked()
		} else {
			// A complete answer before the end of the request: the client may stop
			// sending (RFC 9113, 8.1).
			d.resetLocked(w, http2.ErrCodeNo)
		}
	}
	if dc.goAwaySent && len(dc.streams) == 0 {
		dc.closing = true
		w.touch(dc)
	}
	dc.mu.Unlock()
	c.policy(w).Over(c, o)
	if k := c.Captured(); k != nil {
		k.Release() // nobody has taken it
	}
	c.freeFields()
	c.relay.calls.Add(-1)
}

// status asks the policy to dress a status that the relay makes.
func (c *Call) status(kind OutcomeKind, code uint32, msg string) *Status {
	return c.relay.policy.Status(c, kind, code, msg)
}

// canceled is told when the client gave up.
func (c *Call) canceled(w *worker, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done {
		c.finish(w, c.outcome(w, c.att, Canceled, codeCanceled, why))
	}
}

// abandoned is told when the client reset the call. A client counts its deadline from
// before it sent the request, and resets the call when it has passed: mostly before it
// passes here. That is a deadline and nobody's change of mind, or else servers that hang
// would seem to be left by their callers.
func (c *Call) abandoned(w *worker, code http2.ErrCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.done:
	case code == http2.ErrCodeCancel && !c.sentAnswer && c.isDue(w.now):
		c.finish(w, c.outcome(w, c.att, DeadlineExceeded, codeDeadlineExceeded, "deadline exceeded, as the client counts it"))
	default:
		c.finish(w, c.outcome(w, c.att, Canceled, codeCanceled, fmt.Sprintf("reset by the client (%v)", code)))
	}
}

// Bounds of the time before a deadline in which a client that gives up is taken to have
// met it by its own clock: what a request takes to get here.
const (
	minEarly = 5 * time.Millisecond
	maxEarly = 250 * time.Millisecond
)

// isDue reports whether a twentieth of the call's time or less is left.
func (c *Call) isDue(now time.Time) bool {
	if c.deadline.IsZero() {
		return false
	}
	early := min(max(c.deadline.Sub(c.opened)/20, minEarly), maxEarly)
	return !now.Before(c.deadline.Add(-early))
}

// streamFault is told when a peer broke a rule on s, which has been reset.
func (c *Call) streamFault(w *worker, s *stream, why string) {
	if s == &c.down {
		s.conn.side.(*downstreamSide).abuse.early()
		c.canceled(w, why)
		return
	}
	c.attemptEnded(w, s, Reset, codeInternal, http2.ErrCodeProtocol, why)
}

// attemptEnded is told when s has ended without a complete answer.
func (c *Call) attemptEnded(w *worker, s *stream, kind OutcomeKind, code uint32, reset http2.ErrCode, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.attemptOf(s)
	if c.done || a == nil {
		return
	}
	if end, ok := c.endOf(a); ok && code == codeCanceled && !w.now.Before(end) {
		// The upstream counts down the same deadline, and has acted on it before our
		// timer's next tick.
		kind, code, why = DeadlineExceeded, codeDeadlineExceeded, "deadline exceeded"
	}
	o := c.outcome(w, a, kind, code, why)
	o.Reset = reset
	c.failed(w, a, o)
}

// expired is told by the wheel.
func (c *Call) expired(w *worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	c.armed = 0
	if c.expiry().After(w.now) {
		c.wake(w)
		if !c.done {
			c.rearm(w.now)
		}
		return
	}
	if c.refusal != nil {
		c.refuse(w, c.refusal, Refused)
		return
	}
	msg := "deadline exceeded"
	if c.deadline.IsZero() {
		msg = fmt.Sprintf("no bytes for %v on a call without a deadline", c.relay.cfg.StreamIdle)
	}
	c.refuse(w, c.status(DeadlineExceeded, codeDeadlineExceeded, msg), DeadlineExceeded)
}

// evicted ends the call to free its buffers.
func (c *Call) evicted(w *worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done {
		c.refuse(w, c.status(Evicted, codeResourceExhausted,
			"too much is buffered for peers that do not read, and this call waited longest"), Evicted)
	}
}
