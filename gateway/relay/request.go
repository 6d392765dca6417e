package relay

import (
	"fmt"
	"math"

	"golang.org/x/net/http2"
)

func (c *Call) requestData(w *worker, p []byte, end bool) {
	if c.answered {
		return // nobody wants the rest of the request
	}
	c.down.held += len(p)
	c.received += int64(len(p))
	if n := c.req.contentLength; n >= 0 && (c.received > n || (end && c.received != n)) {
		c.abortDown(w, http2.ErrCodeProtocol)
		return
	}
	if c.refusal != nil {
		if end || c.received > int64(c.relay.cfg.StreamWindow) {
			c.refuse(w, c.refusal, Refused)
			return
		}
		c.creditDown(w)
		return
	}
	var v Verdict
	if !c.Inspect {
		if n := c.requests.feed(p, c.relay.cfg.MaxMessage); n > 0 {
			c.refuse(w, c.status(Refused, codeResourceExhausted, fmt.Sprintf(
				"request message of %d bytes, the limit is %d", n, c.relay.cfg.MaxMessage)), Refused)
			return
		}
	} else {
		p, v = c.policy(w).Body(c, p, end)
		if v.kind == verdictRefuse {
			c.refuse(w, v.status, Refused)
			return
		}
	}
	c.bodyLen += int64(len(p))
	c.bodyEnded = c.bodyEnded || end
	sent := c.att != nil && c.att.sent
	before := c.body.end()
	if c.keepBody {
		switch within := c.body.n+len(p) <= c.bodyLimit(v); {
		case sent && (!within || c.relay.replay.over()):
			c.dropBody() // it goes on without a second chance
		case !sent && !within:
			c.refuse(w, c.status(Refused, codeResourceExhausted, fmt.Sprintf(
				"the request's first %d bytes do not say which model it is for", c.body.n)), Refused)
			return
		case !sent && c.relay.replay.full():
			c.refuse(w, c.status(Refused, codeResourceExhausted,
				"too much is kept of requests that wait for a connection or have not said which model they are for"), Refused)
			return
		default:
			c.body.append(p, &c.relay.replay)
		}
	}
	if c.capture != nil && !c.keepBody {
		c.captureRequest(p)
	}
	switch {
	case sent && c.keepBody && c.att.d.Rewrite == nil:
		c.forwardKept(w, len(p), before, end)
		c.armHedge(w, c.att)
	case sent:
		c.forward(w, p, end)
		c.armHedge(w, c.att)
	case c.att == nil:
		c.act(w, v)
	}
	c.creditDown(w)
}

// bodyLimit is how much of the request may be kept now, the policy having said v.
func (c *Call) bodyLimit(v Verdict) int {
	switch {
	case c.att == nil && v.kind == verdictTo:
		// It is sent in a moment. A policy that had to see a message whole may let go
		// of much more at once than came in.
		return math.MaxInt
	case c.att == nil:
		return c.relay.cfg.IdentifyPerCall
	case !c.att.sent:
		// It waits for a connection: what arrived must be kept, and the stream's
		// window bounds it.
		return c.relay.cfg.IdentifyPerCall + c.relay.cfg.StreamWindow
	}
	return c.relay.cfg.ReplayPerCall
}

// forward sends a piece of the request to the current attempt.
func (c *Call) forward(w *worker, p []byte, end bool) {
	a := c.att
	if a.d.Rewrite != nil {
		w.scratch = a.d.Rewrite.Append(w.scratch[:0], p)
		p = w.scratch
	}
	a.conn.mu.Lock()
	a.send(w, p, end, nil)
	a.conn.mu.Unlock()
}

// forwardKept is forward for the last n bytes of what is kept of the request, from a place
// on.
func (c *Call) forwardKept(w *worker, n int, from chunkPlace, end bool) {
	a := c.att
	a.conn.mu.Lock()
	defer a.conn.mu.Unlock()
	if n == 0 {
		a.send(w, nil, end, nil)
		return
	}
	c.body.eachSince(from, func(p []byte, of *chunk) {
		n -= len(p)
		a.send(w, p, end && n == 0, of)
	})
}

func (c *Call) dropBody() {
	c.keepBody = false
	if c.capture != nil {
		c.captureBody()
	}
	c.body.free(&c.relay.replay)
}
