package relay

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attempt is one try of a call at an upstream.
type attempt struct {
	stream
	d        *Dispatch // the policy's, which may reuse it once the attempt is over
	up       *Upstream // where the attempt's slot is; outlives d
	waiting  bool      // in the upstream's queue; guarded by its mutex
	next     *attempt
	prev     *attempt
	sent     bool
	until    int64 // see Dispatch.Until and Relay.since; 0: as long as the call
	later    bool  // postponed until its dispatch's NotBefore
	released bool  // the slot on its connection has been given back
	headers  bool  // the answer's first HEADERS have arrived
	heldBack bool  // and wait for DATA or trailers
	answers  messageMeter
	answer   []hpack.HeaderField
	started  time.Time
	first    time.Time
}

// dispatch starts an attempt. If it fails at once, failed is true. c.mu is held.
func (c *Call) dispatch(w *worker, d *Dispatch) (o Outcome, failed bool) {
	c.due, c.parked = 0, nil
	c.att = c.newAttempt(w, d)
	if d.NotBefore.After(w.now) {
		c.att.later = true // what comes of the request is kept as while it waits for a connection
	} else if o, failed = c.launch(w, c.att); failed {
		return o, true
	}
	c.rearm(w.now)
	return Outcome{}, false
}

// newAttempt makes what the relay keeps of an attempt.
func (c *Call) newAttempt(w *worker, d *Dispatch) *attempt {
	a := &c.first
	if c.dispatches > 1 {
		a = new(attempt) // late frames may still refer to the one before
	}
	a.call = c
	a.d, a.up = d, d.Upstream
	a.started = w.now
	if !d.Until.IsZero() {
		a.until = max(c.relay.since(d.Until), 1)
	}
	return a
}

// place finds a connection for a and sends it there, or leaves it waiting. If it
// fails, c still has a.
func (c *Call) place(w *worker, a *attempt) (Outcome, bool) {
	for {
		uc, err := a.up.acquire(w, a)
		if err != nil {
			return c.outcome(w, a, Unreachable, codeUnavailable, err.Error()), true
		}
		if uc == nil {
			return Outcome{}, false
		}
		if c.start(w, a, uc) {
			c.creditDown(w)
			c.armHedge(w, a)
			return Outcome{}, false
		}
		a.up.discard(w, uc) // it went away in between: choose again
	}
}

// placed sends a waiting attempt on a connection that has a slot reserved for it.
func (c *Call) placed(w *worker, a *attempt, uc *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done || !c.has(a) || a.sent {
		a.up.release(w, uc)
		return
	}
	if c.start(w, a, uc) {
		c.creditDown(w) // of what came while it waited
		c.armHedge(w, a)
		return
	}
	a.up.discard(w, uc)
	if o, failed := c.place(w, a); failed {
		c.failed(w, a, o)
	}
}

// unplaced fails a waiting attempt.
func (c *Call) unplaced(w *worker, a *attempt, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done || !c.has(a) || a.sent {
		return
	}
	c.failed(w, a, c.outcome(w, a, Unreachable, codeUnavailable, err.Error()))
}

// start opens a's stream on uc and sends what there is of the request. It
// reports false if uc takes no more streams.
func (c *Call) start(w *worker, a *attempt, uc *conn) bool {
	uc.mu.Lock()
	defer uc.mu.Unlock()
	if !uc.openStream(&a.stream) {
		return false
	}
	a.stream.call = c
	a.sent = true
	c.attempts++
	noBody := c.bodyEnded && c.bodyLen == 0
	c.encodeRequest(w, a, uc, noBody)
	if noBody {
		a.sentEnd = true
	} else if c.body.n > 0 || c.bodyEnded {
		c.sendBody(w, a)
	}
	if !a.d.Replay || c.relay.replay.over() {
		c.dropBody()
	}
	return true
}

// sendBody sends the kept part of the request from its first byte. The attempt's
// connection is locked.
func (c *Call) sendBody(w *worker, a *attempt) {
	left := c.body.n
	if left == 0 {
		a.send(w, nil, c.bodyEnded, nil)
		return
	}
	c.body.eachSince(chunkPlace{}, func(p []byte, of *chunk) {
		left -= len(p)
		if a.d.Rewrite != nil {
			w.scratch = a.d.Rewrite.Append(w.scratch[:0], p)
			p, of = w.scratch, nil
		}
		a.send(w, p, c.bodyEnded && left == 0, of)
	})
}

// leave ends an attempt's stream, if it is still open, and gives its slot back.
func (c *Call) leave(w *worker, a *attempt) {
	if a.released {
		return
	}
	a.released = true
	if !a.sent {
		a.up.abandon(a)
		return
	}
	uc := a.conn
	uc.mu.Lock()
	switch {
	case a.closed:
	case a.sentEnd && a.gotEnd:
		a.removeLocked()
	default:
		a.resetLocked(w, http2.ErrCodeCancel)
	}
	uc.mu.Unlock()
	a.up.release(w, uc)
}

// outcome describes how attempt a, which may be nil, has ended.
func (c *Call) outcome(w *worker, a *attempt, kind OutcomeKind, code uint32, msg string) Outcome {
	o := Outcome{Kind: kind, Code: code, Message: msg, Ended: w.now, Committed: c.sentAnswer}
	if a != nil {
		o.Dispatch, o.Upstream, o.Started, o.FirstByte = a.d, a.up, a.started, a.first
	}
	return o
}

// failed handles the end of attempt a, which gave no usable answer. c.mu is held.
func (c *Call) failed(w *worker, a *attempt, o Outcome) {
	if c.answered {
		return
	}
	c.leave(w, a)
	if c.sentAnswer {
		// The status waits behind what has been received of the answer.
		s := c.status(o.Kind, o.Code, o.Message+"; part of the answer has been passed on already")
		c.endAnswer(w, statusFields(nil, s.Code, s.Message, s.Details), o)
		return
	}
	if c.received == 0 {
		c.keepBody = true // nothing has been given away yet, and what comes may have to wait
	}
	v := c.policy(w).Failed(c, o)
	if c.Racing() && v.kind != verdictPass && v.kind != verdictRefuse {
		c.forget(a)
		return
	}
	c.outrun(w, a)
	c.att = nil
	switch v.kind {
	case verdictTo:
		if c.Replayable() {
			c.act(w, v)
			return
		}
		fallthrough
	case verdictWait, verdictPass, verdictLater:
		c.refuseAs(w, c.status(o.Kind, o.Code, o.Message), o)
	case verdictRefuse:
		c.refuse(w, v.status, Refused)
	}
}
