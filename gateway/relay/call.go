package relay

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// maxDispatches bounds what a policy can ask for: attempts that were refused
// without being sent count too.
const maxDispatches = 32

// Call is one call of a client. A policy may use it while one of its methods runs
// for this call, and Over is the last of them.
type Call struct {
	// Data is the policy's own.
	Data any
	// Inspect asks for [Policy.Body] with every piece of the request body. Set it
	// in Opened.
	Inspect bool

	// Small fields stand together: see TestCallFitsItsSizeClass.
	keepBody    bool
	bodyEnded   bool
	sentAnswer  bool // HEADERS of the answer are in the client's write queue
	answered    bool // the answer is complete, though maybe not delivered
	done        bool
	captureLost bool // a limit on copies was passed

	mu    sync.Mutex
	relay *Relay

	down  stream   // to the client
	att   *attempt // under way; if an answer has begun, the one it is of
	hedge *attempt // under way beside att until one of them is answered
	first attempt  // storage of the first attempt
	timer wheelEntry
	armed int64 // the tick for which the timer was set and has not been heard of; 0: none
	now   int64 // see Now and Relay.since

	req        announced
	fields     []hpack.HeaderField
	room       *fieldRoom // where fields are, mostly; nil once the call is over
	opened     time.Time
	deadline   time.Time    // zero: none
	progressAt atomic.Int64 // see Relay.since
	due        int64        // when Due is to be asked, see Relay.since; 0: never

	body     chunks       // the request from its first byte, while keepBody
	bodyLen  int64        // bytes let out by the policy
	received int64        // bytes of DATA received
	returned int64        // and bytes of DATA of the answer that were passed on
	requests messageMeter // where the policy does not look at them
	parked   *parked      // an answer that is kept while the policy waits
	capture  *Capture     // nil: no copy is wanted, or no longer possible
	refusal  *Status      // of a request that is no gRPC call; see refuseAtEnd

	attempts   int // sent
	dispatches int // asked for
	result     Outcome
}

// --- what a policy may ask

// Path returns the :path, byte for byte.
func (c *Call) Path() string { return c.req.path }

// Fields returns the request's fields, pseudo-fields first. They must not be
// changed, nor the slice be kept.
func (c *Call) Fields() []hpack.HeaderField { return c.fields }

// Opened returns when the call's header fields arrived.
func (c *Call) Opened() time.Time { return c.opened }

// Timeout returns the caller's grpc-timeout; ok is false if it set none.
func (c *Call) Timeout() (d time.Duration, ok bool) { return c.req.timeout, c.req.hasTimeout }

// Deadline returns when the call ends at the latest; zero if it has no deadline.
func (c *Call) Deadline() time.Time { return c.deadline }

// SetDeadline sets when the call ends at the latest. Without one, it ends when
// no byte has moved for the configured idle time.
func (c *Call) SetDeadline(t time.Time) {
	c.deadline = t
	if c.att != nil {
		c.rearm(c.Now()) // else what the policy is about to say leads there
	}
}

// Now returns the time of what the policy is asked about: when the frames arrived that led to
// it. It is behind the clock by the little that handling them took, and costs nothing.
func (c *Call) Now() time.Time { return c.relay.at(c.now) }

// Attempts returns how many attempts have been sent.
func (c *Call) Attempts() int { return c.attempts }

// Replayable reports whether the whole request can be sent again.
func (c *Call) Replayable() bool { return c.keepBody && !c.sentAnswer }

// RequestBytes returns the length of the request's body so far.
func (c *Call) RequestBytes() int64 { return c.received }

// AnswerBytes returns the length of the answer's body so far.
func (c *Call) AnswerBytes() int64 { return c.returned }

// RequestEnded reports whether the whole request has arrived.
func (c *Call) RequestEnded() bool { return c.bodyEnded }

// Peer returns the client's address.
func (c *Call) Peer() net.Addr {
	if s, ok := c.down.conn.side.(*downstreamSide); ok {
		return s.addr
	}
	return nil
}

// --- opening

// begin asks the policy for the first time. c.mu is held.
func (c *Call) begin(w *worker) {
	v := c.policy(w).Opened(c)
	if v.kind == verdictWait && c.bodyEnded && c.Inspect {
		// A request without a body: its end came with its header fields.
		_, v = c.policy(w).Body(c, nil, true)
	}
	c.act(w, v)
}

// policy returns whom to ask, and notes when that is.
func (c *Call) policy(w *worker) Policy {
	c.now = c.relay.since(w.now)
	return c.relay.policy
}

func (c *Call) expiry() time.Time {
	if !c.deadline.IsZero() {
		return c.deadline
	}
	return c.relay.at(c.progressAt.Load()).Add(c.relay.cfg.StreamIdle)
}

// act does what the policy says. c.mu is held.
func (c *Call) act(w *worker, v Verdict) {
	for !c.done {
		switch v.kind {
		case verdictWait, verdictPass, verdictLater:
			c.rearm(w.now)
			return
		case verdictRefuse:
			c.refuse(w, v.status, Refused)
			return
		case verdictTo:
			if c.dispatches++; c.dispatches > maxDispatches {
				c.refuse(w, c.status(Refused, codeInternal, "too many attempts"), Refused)
				return
			}
			o, failed := c.dispatch(w, v.to)
			if !failed {
				return
			}
			v = c.policy(w).Failed(c, o)
			c.att = nil
			if v.kind != verdictTo && v.kind != verdictRefuse {
				c.refuseAs(w, c.status(o.Kind, o.Code, o.Message), o)
				return
			}
		}
	}
}

// data takes DATA received on s.
func (c *Call) data(w *worker, s *stream, p []byte, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	if len(p) > 0 {
		c.progressAt.Store(c.relay.since(w.now))
	}
	if s == &c.down {
		c.requestData(w, p, end)
	} else if a := c.attemptOf(s); a != nil {
		c.answerData(w, a, p, end)
	}
}
