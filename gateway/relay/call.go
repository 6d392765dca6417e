package relay

import (
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
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

	// Small fields stand together, and the storage of fields has room for what clients
	// usually send: see TestCallFitsItsSizeClass.
	keepBody    bool
	bodyEnded   bool
	begun       bool
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

	req        request
	fields     []hpack.HeaderField
	fieldsBuf  [12]hpack.HeaderField
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
	buf      [6]hpack.HeaderField
	started  time.Time
	first    time.Time
}

// --- what a policy may ask

// Path returns the :path, byte for byte.
func (c *Call) Path() string { return c.req.path }

// Fields returns the request's fields, pseudo-fields first. They must not be
// changed.
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
	if c.begun {
		c.relay.wheel.arm(c, time.Now(), c.wakesAt())
	}
}

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
	v := c.relay.policy.Opened(c)
	c.begun = true
	c.relay.wheel.arm(c, w.now, c.expiry())
	if v.kind == verdictWait && c.bodyEnded && c.Inspect {
		// A request without a body: its end came with its header fields.
		_, v = c.relay.policy.Body(c, nil, true)
	}
	c.act(w, v)
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
			v = c.relay.policy.Failed(c, o)
			c.att = nil
			if v.kind != verdictTo && v.kind != verdictRefuse {
				c.refuseAs(w, c.status(o.Kind, o.Code, o.Message), o)
				return
			}
		}
	}
}

// --- the request's body

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
		p, v = c.relay.policy.Body(c, p, end)
		if v.kind == verdictRefuse {
			c.refuse(w, v.status, Refused)
			return
		}
	}
	c.bodyLen += int64(len(p))
	c.bodyEnded = c.bodyEnded || end
	sent := c.att != nil && c.att.sent
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
	a.send(w, p, end)
	a.conn.mu.Unlock()
}

// creditDown gives the client's stream window back for bytes that have left,
// or are kept in the bounded body buffer while the policy looks at them.
func (c *Call) creditDown(w *worker) {
	waits := 0
	switch {
	case c.done:
		return
	case c.att == nil:
	case !c.att.sent:
		return // it waits for a connection
	default:
		waits = int(c.att.queued.Load())
	}
	if n := c.down.held - waits; n > 0 {
		c.down.held -= n
		c.down.conn.mu.Lock()
		c.down.credit(w, n)
		c.down.conn.mu.Unlock()
	}
}

func (c *Call) dropBody() {
	c.keepBody = false
	if c.capture != nil {
		c.captureBody()
	}
	c.body.free(&c.relay.replay)
}

// progressed is told when bytes of one of the call's streams have left its queue.
func (c *Call) progressed(w *worker, e progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	c.progressAt.Store(c.relay.since(w.now))
	if e.stream != &c.down {
		c.creditDown(w)
		return
	}
	c.creditUp(w)
	if c.answered && e.ended {
		c.finish(w, c.result)
	}
}

// creditUp gives the upstream's stream window back for bytes that have left for
// the client.
func (c *Call) creditUp(w *worker) {
	a := c.att
	if a == nil || !a.sent {
		return
	}
	if n := a.held - int(c.down.queued.Load()); n > 0 {
		a.held -= n
		a.conn.mu.Lock()
		a.credit(w, n)
		a.conn.mu.Unlock()
	}
}

// --- attempts

// dispatch starts an attempt. If it fails at once, failed is true. c.mu is held.
func (c *Call) dispatch(w *worker, d *Dispatch) (o Outcome, failed bool) {
	c.due, c.parked = 0, nil
	c.att = c.newAttempt(w, d)
	c.armUntil(w, c.att)
	if d.NotBefore.After(w.now) {
		c.postpone(w, c.att)
		return Outcome{}, false
	}
	return c.launch(w, c.att)
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
		a.send(w, nil, c.bodyEnded)
		return
	}
	c.body.each(func(p []byte) {
		left -= len(p)
		if a.d.Rewrite != nil {
			w.scratch = a.d.Rewrite.Append(w.scratch[:0], p)
			p = w.scratch
		}
		a.send(w, p, c.bodyEnded && left == 0)
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
	v := c.relay.policy.Failed(c, o)
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

// --- ending

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
	c.relay.wheel.arm(c, w.now, c.expiry())
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
		c.relay.policy.Dropped(c, c.outcome(w, h, o.Kind, o.Code, o.Message))
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
	c.relay.policy.Over(c, o)
	if k := c.Captured(); k != nil {
		k.Release() // nobody has taken it
	}
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
	if c.expiry().After(w.now) {
		c.wake(w)
		if !c.done {
			c.relay.wheel.arm(c, w.now, c.wakesAt())
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
