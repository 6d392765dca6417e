package relay

import (
	"slices"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Two attempts of a call may be under way at once (hedging): att and hedge, in no
// order. Each ends by itself as any does; the first one that has something for the
// client wins, and becomes att, with the other one given up. That is possible only
// while the request is kept whole and nothing of an answer has reached the client, so
// that windows towards the client concern one attempt at a time.

// Racing reports whether two attempts are under way. In [Policy.Failed], one of them is
// the one that has just ended.
func (c *Call) Racing() bool { return c.hedge != nil }

// attemptOf returns the attempt under way that s belongs to, or nil.
func (c *Call) attemptOf(s *stream) *attempt {
	switch {
	case c.att != nil && s == &c.att.stream:
		return c.att
	case c.hedge != nil && s == &c.hedge.stream:
		return c.hedge
	}
	return nil
}

// has reports whether a is under way.
func (c *Call) has(a *attempt) bool { return a == c.att || a == c.hedge }

// forget leaves a race to the other attempt.
func (c *Call) forget(a *attempt) {
	if a == c.att {
		c.att = c.hedge
	}
	c.hedge = nil
}

// outrun ends a race in favour of a, if there is one.
func (c *Call) outrun(w *worker, a *attempt) {
	other := c.hedge
	if other == nil {
		return
	}
	if a == other {
		other = c.att
	}
	c.att, c.hedge = a, nil
	c.leave(w, other)
	c.policy(w).Dropped(c, c.outcome(w, other, Outrun, codeCanceled, "another attempt answered first"))
}

// whole reports whether all of the request is there to be sent again.
func (c *Call) whole() bool { return c.bodyEnded && c.Replayable() }

// armHedge has the policy asked for a second attempt when a, which has been sent, has
// had its time alone with the whole request.
func (c *Call) armHedge(w *worker, a *attempt) {
	if a.d.Hedge <= 0 || !a.d.Unary || !c.whole() || c.hedge != nil || c.due != 0 {
		return
	}
	c.askLater(w, a.d.Hedge)
}

// askLater sets when Due is asked.
func (c *Call) askLater(w *worker, after time.Duration) {
	at := w.now.Add(after)
	c.due = max(c.relay.since(at), 1)
	c.rearm(w.now)
}

// parked is a server's answer, a status alone, that the client gets unless something
// better comes.
type parked struct {
	att      *attempt
	trailers []hpack.HeaderField
	outcome  Outcome
}

// park keeps the end of a's answer while the policy waits.
func (c *Call) park(w *worker, a *attempt, trailers []hpack.HeaderField, o Outcome, wait time.Duration) {
	c.leave(w, a)
	c.att = nil
	c.parked = &parked{a, slices.Clone(trailers), o}
	c.askLater(w, wait)
}

// rearm sees to it that the timer wakes the call in time. A timer that is set for an earlier
// time stays so: the call then finds nothing due and sets it anew, and nearly none lives to
// see that.
func (c *Call) rearm(now time.Time) {
	t := c.wakesAt()
	if c.armed == 0 || c.relay.wheel.dueTick(t) < c.armed {
		c.armed = c.relay.wheel.arm(c, now, t)
	}
}

// wakesAt is when the call's timer has something to do.
func (c *Call) wakesAt() time.Time {
	t := c.expiry()
	sooner := func(n int64) {
		if at := c.relay.at(n); n != 0 && at.Before(t) {
			t = at
		}
	}
	sooner(c.due)
	if a := c.att; a != nil && a.later {
		sooner(c.relay.since(a.d.NotBefore))
	}
	if !c.sentAnswer {
		for _, a := range [...]*attempt{c.att, c.hedge} {
			if a != nil {
				sooner(a.until)
			}
		}
	}
	return t
}

// wake does what is due before the call's end. c.mu is held.
func (c *Call) wake(w *worker) {
	now := c.relay.since(w.now)
	c.resume(w)
	if !c.done && c.due != 0 && c.due <= now {
		c.due = 0
		c.ask(w)
	}
	for _, a := range [...]*attempt{c.att, c.hedge} {
		if c.done || a == nil || !c.has(a) || a.until == 0 || a.until > now {
			continue
		}
		if a.until = 0; c.Replayable() {
			c.failed(w, a, c.outcome(w, a, DeadlineExceeded, codeDeadlineExceeded,
				"no answer within the part of the deadline that an attempt may use"))
		}
	}
}

// ask asks the policy what it wanted to be asked now.
func (c *Call) ask(w *worker) {
	switch {
	case c.parked != nil:
		p := c.parked
		v := c.policy(w).Due(c)
		switch v.kind {
		case verdictTo:
			c.act(w, v)
		case verdictRefuse:
			c.refuse(w, v.status, Refused)
		case verdictWait, verdictPass, verdictLater:
			c.parked, c.att = nil, p.att
			c.pass(w, p.att, p.trailers, p.outcome)
		}
	case c.att != nil && c.hedge == nil && c.whole():
		v := c.policy(w).Due(c)
		if v.kind != verdictTo {
			return
		}
		c.dispatches++
		h := c.newAttempt(w, v.to)
		c.hedge = h
		if o, failed := c.place(w, h); failed {
			c.failed(w, h, o)
			return
		}
		c.rearm(w.now)
	}
}

// endOf returns when a has to be answered; ok is false if there is no such time.
func (c *Call) endOf(a *attempt) (t time.Time, ok bool) {
	if a.until != 0 {
		if t = c.relay.at(a.until); c.deadline.IsZero() || t.Before(c.deadline) {
			return t, true
		}
	}
	return c.deadline, !c.deadline.IsZero()
}
