package relay

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
)

// reservedPrefix marks the fields that only a gateway sets.
const reservedPrefix = "sluice-"

// answer is what an answer's fields say to the relay.
type answer struct {
	httpStatus int
	grpc       bool // content-type says so
	hasStatus  bool
	code       uint32
	message    string
	pushback   bool // grpc-retry-pushback-ms is set, to:
	waitFor    time.Duration
}

func parseAnswer(l *fieldList) (a answer, problem string) {
	if l.problem != "" {
		return a, l.problem
	}
	if l.tooBig {
		return a, fmt.Sprintf("more than %d bytes or %d header fields", l.maxBytes, l.maxFields)
	}
	for i := range l.fields {
		f := &l.fields[i]
		switch f.Name {
		case ":status":
			n, err := strconv.ParseUint(f.Value, 10, 16)
			if err != nil || len(f.Value) != 3 {
				return a, "invalid :status"
			}
			a.httpStatus = int(n)
		case "content-type":
			a.grpc = isGRPC(f.Value)
		case "grpc-status":
			n, err := strconv.ParseUint(f.Value, 10, 32)
			if err != nil {
				return a, "invalid grpc-status"
			}
			a.hasStatus, a.code = true, uint32(n)
		case "grpc-message":
			a.message = f.Value
		case "grpc-retry-pushback-ms":
			a.pushback, a.waitFor = true, parsePushback(f.Value)
		default:
			if f.Name[0] == ':' {
				return a, "unknown pseudo-field " + f.Name
			}
		}
	}
	return a, ""
}

// parsePushback reads grpc-retry-pushback-ms. What is no number means, as gRPC's retry
// design has it, that the call must not be repeated.
func parsePushback(s string) time.Duration {
	ms, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}

// isGRPC accepts application/grpc, alone or followed by + or ;.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// answerHeaders takes a header block that arrived on s.
func (c *Call) answerHeaders(w *worker, s *stream, end bool, l *fieldList) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.attemptOf(s)
	if c.done || a == nil || c.answered {
		return
	}
	c.progressAt.Store(c.relay.since(w.now))
	ans, problem := parseAnswer(l)
	switch {
	case problem != "":
		c.invalidAnswer(w, a, codeInternal, "malformed answer from upstream: "+problem)
	case !a.headers && !end && ans.httpStatus >= 100 && ans.httpStatus < 200:
		// Informational answers mean nothing to gRPC.
	case !a.headers && ans.httpStatus == 0:
		c.invalidAnswer(w, a, codeInternal, "malformed answer from upstream: no :status")
	case !a.headers && !ans.hasStatus && (ans.httpStatus != 200 || !ans.grpc):
		c.invalidAnswer(w, a, httpToCode(ans.httpStatus), fmt.Sprintf("upstream answered with HTTP status %d and no gRPC status", ans.httpStatus))
	case a.headers && (!end || ans.httpStatus != 0):
		c.invalidAnswer(w, a, codeInternal, "malformed answer from upstream: HEADERS in mid-answer")
	case end:
		a.headers = true
		if a.first.IsZero() {
			a.first = w.now
		}
		c.trailers(w, a, &ans, l.fields)
	default:
		a.headers = true
		if a.d.Unary && !c.sentAnswer {
			a.heldBack = true
			c.holdAnswer(a, l.fields)
			return
		}
		a.first = w.now
		c.commit(w, a, l.fields, false)
		if a.d.Begun != nil {
			a.d.Begun.Answering(w.now)
		}
	}
}

// invalidAnswer fails the attempt for an answer that is not gRPC.
func (c *Call) invalidAnswer(w *worker, a *attempt, code uint32, msg string) {
	c.failed(w, a, c.outcome(w, a, Invalid, code, msg))
}

// commit sends the first HEADERS of a's answer. From here on, no other attempt is
// possible, and one that races with a has lost.
func (c *Call) commit(w *worker, a *attempt, fields []hpack.HeaderField, end bool) {
	c.outrun(w, a)
	c.sentAnswer = true
	c.dropBody()
	if c.capture != nil {
		c.captureFields(fields)
	}
	d := &c.down
	d.conn.mu.Lock()
	if !d.closed {
		c.encodeAnswer(w, fields, end)
		d.sentEnd = end
	}
	d.conn.mu.Unlock()
}

// releaseHeld sends HEADERS that were held back.
func (c *Call) releaseHeld(w *worker, a *attempt) {
	a.heldBack, a.first = false, w.now
	c.commit(w, a, a.answer, false)
	clear(a.answer)
	a.answer = nil
}

// answerData takes DATA of the answer. c.mu is held.
func (c *Call) answerData(w *worker, a *attempt, p []byte, end bool) {
	if !a.headers {
		c.invalidAnswer(w, a, codeInternal, "malformed answer from upstream: DATA before HEADERS")
		return
	}
	if n := a.answers.feed(p, c.relay.cfg.MaxMessage); n > 0 {
		c.invalidAnswer(w, a, codeResourceExhausted, fmt.Sprintf(
			"answer message of %d bytes, the limit is %d", n, c.relay.cfg.MaxMessage))
		return
	}
	if len(p) > 0 {
		if a.d.Watch != nil {
			a.d.Watch.AnswerData(w.now, p)
		}
		c.sendAnswerData(w, a, p)
	}
	if end {
		c.invalidAnswer(w, a, codeUnknown, "upstream ended its answer without a gRPC status")
	}
}

func (c *Call) sendAnswerData(w *worker, a *attempt, p []byte) {
	if a.heldBack {
		c.releaseHeld(w, a)
	}
	if c.capture != nil {
		c.captureAnswer(p)
	}
	c.returned += int64(len(p))
	a.held += len(p)
	d := &c.down
	d.conn.mu.Lock()
	d.send(w, p, false, nil)
	d.conn.mu.Unlock()
	c.creditUp(w)
}

// trailers takes the block that ends a's answer. c.mu is held.
func (c *Call) trailers(w *worker, a *attempt, ans *answer, fields []hpack.HeaderField) {
	code, msg := ans.code, ans.message
	if !ans.hasStatus {
		code, msg = codeUnknown, "upstream ended its answer without a gRPC status"
	}
	o := c.outcome(w, a, Answered, code, msg)
	o.Pushback, o.PushbackFor = ans.pushback, ans.waitFor
	if !ans.hasStatus {
		o.Kind = Invalid
		c.failed(w, a, o)
		return
	}
	if code != 0 && !c.sentAnswer {
		v := c.policy(w).Failed(c, o)
		switch {
		case v.kind == verdictRefuse:
			c.outrun(w, a)
			c.refuse(w, v.status, Refused)
			return
		case c.Racing() && v.kind != verdictPass:
			c.leave(w, a)
			c.forget(a)
			return
		case v.kind == verdictTo && c.Replayable():
			c.leave(w, a)
			c.att = nil
			c.act(w, v)
			return
		case v.kind == verdictLater && c.whole():
			c.park(w, a, fields, o, v.after)
			return
		}
	}
	c.pass(w, a, fields, o)
}

// pass hands the end of a's answer on. c.mu is held.
func (c *Call) pass(w *worker, a *attempt, trailers []hpack.HeaderField, o Outcome) {
	if a.heldBack {
		c.releaseHeld(w, a)
	}
	if !c.sentAnswer {
		c.commit(w, a, trailers, true) // trailers only
		c.answered, c.result = true, o
		c.finish(w, o)
		return
	}
	trailers = c.stripReserved(a, trailers)
	if a.d.Trailers != nil && o.Code == 0 {
		trailers = a.d.Trailers.AppendTrailers(trailers)
	}
	c.endAnswer(w, trailers, o)
}

// endAnswer sends the trailers, behind undelivered DATA, and ends the call when
// they have left.
func (c *Call) endAnswer(w *worker, trailers []hpack.HeaderField, o Outcome) {
	c.answered, c.result = true, o
	if c.att != nil {
		c.leave(w, c.att)
	}
	d := &c.down
	d.conn.mu.Lock()
	left := d.sendTrailers(w, trailers)
	d.conn.mu.Unlock()
	if left {
		c.finish(w, o)
	}
}

// stripReserved removes what only the gateway may say from an upstream's
// trailers, in place.
func (c *Call) stripReserved(a *attempt, fields []hpack.HeaderField) []hpack.HeaderField {
	kept := fields[:0]
	for _, f := range fields {
		if !a.d.KeepReserved && strings.HasPrefix(f.Name, reservedPrefix) {
			continue
		}
		kept = append(kept, f)
	}
	return kept
}

// --- encoding; the connection that is written to is locked

// encodeRequest writes the request's HEADERS for an attempt.
func (c *Call) encodeRequest(w *worker, a *attempt, uc *conn, end bool) {
	uc.beginBlock()
	for i := range c.fields {
		f := c.fields[i]
		switch f.Name {
		case ":scheme":
			f.Value = a.up.scheme
		case "grpc-timeout":
			continue
		case "content-length":
			if a.d.BodyChanges {
				continue
			}
		case "grpc-previous-rpc-attempts":
			if c.attempts > 1 {
				continue
			}
		}
		if replaced(a.d.Request, f.Name) {
			continue
		}
		uc.encode(f)
	}
	for _, f := range a.d.Request {
		if f.Value != "" {
			uc.encode(f)
		}
	}
	if end, ok := c.endOf(a); ok {
		uc.encodeTimeout(end.Sub(w.now))
	}
	if c.attempts > 1 {
		uc.encode(hpack.HeaderField{Name: "grpc-previous-rpc-attempts", Value: strconv.Itoa(c.attempts - 1)})
	}
	uc.endBlock(w, a.id, end)
}

func replaced(set []hpack.HeaderField, name string) bool {
	for i := range set {
		if set[i].Name == name {
			return true
		}
	}
	return false
}

// encodeAnswer writes the answer's first HEADERS: the upstream's fields and what
// the dispatch adds.
func (c *Call) encodeAnswer(w *worker, fields []hpack.HeaderField, end bool) {
	dc, d := c.down.conn, c.att.d
	dc.beginBlock()
	for i := range fields {
		if !d.KeepReserved && strings.HasPrefix(fields[i].Name, reservedPrefix) || replaced(d.Answer, fields[i].Name) {
			continue
		}
		dc.encode(fields[i])
	}
	for _, f := range d.Answer {
		dc.encode(f)
	}
	dc.endBlock(w, c.down.id, end)
}

// encodeRefusal writes a whole answer made by the gateway.
func (c *Call) encodeRefusal(w *worker, s *Status) {
	dc := c.down.conn
	dc.beginBlock()
	if s.HTTP != 0 && s.HTTP != 200 {
		dc.encode(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(s.HTTP)})
		dc.encode(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	} else {
		dc.encode(hpack.HeaderField{Name: ":status", Value: "200"})
		dc.encode(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	}
	var buf [4]hpack.HeaderField
	for _, f := range statusFields(buf[:0], s.Code, s.Message, s.Details) {
		dc.encode(f)
	}
	for _, f := range s.Fields {
		dc.encode(f)
	}
	dc.endBlock(w, c.down.id, true)
}
