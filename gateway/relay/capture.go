package relay

import (
	"sync/atomic"

	"golang.org/x/net/http2/hpack"
)

// Capture is a copy of one call's messages: of the request as the policy has let it
// out, before any attempt's rewriting, and of the answer that the client got. Both
// are message by message what gRPC puts on the wire, prefixes included. It never
// changes once it has been handed out, may be read concurrently, and is memory from
// a bounded pool: whoever holds it owes one [Capture.Release].
type Capture struct {
	request, answer chunks
	encoding        string // of the answer
	budget          *budget
	holders         atomic.Int32
}

// Capture asks for a copy of the call's messages, which [Call.Captured] hands out
// in [Policy.Over]. Ask before the call has been sent anywhere; later it does
// nothing, and asking again does nothing either. A call of which more would have to
// be kept than the limits allow goes on uncopied.
func (c *Call) Capture() {
	if c.capture != nil || c.captureLost || c.attempts > 0 || !c.keepBody {
		return
	}
	c.capture = &Capture{budget: &c.relay.captures}
	c.capture.holders.Store(1)
}

// Captured hands the copy out, in [Policy.Over]; the caller then owes its release.
// It returns nil if there is none: nobody has asked for one, it has been handed out,
// or a limit was passed.
func (c *Call) Captured() *Capture {
	k := c.capture
	c.capture = nil
	return k
}

// captureRequest copies a piece of the request that is not kept for another attempt.
func (c *Call) captureRequest(p []byte) {
	c.capture.request.append(p, c.capture.budget)
	c.boundCapture()
}

// captureAnswer copies a piece of the answer.
func (c *Call) captureAnswer(p []byte) {
	c.capture.answer.append(p, c.capture.budget)
	c.boundCapture()
}

// captureBody takes over what has been kept of the request, without copying it.
func (c *Call) captureBody() {
	c.capture.request.take(&c.body, &c.relay.replay, c.capture.budget)
	c.boundCapture()
}

// captureFields notes what the answer's first fields say of its messages.
func (c *Call) captureFields(fields []hpack.HeaderField) {
	for i := range fields {
		if fields[i].Name == "grpc-encoding" {
			c.capture.encoding = fields[i].Value
		}
	}
}

// boundCapture gives the copy up when there is too much of it, or of all of them.
func (c *Call) boundCapture() {
	k := c.capture
	if k.request.n+k.answer.n <= c.relay.cfg.CapturePerCall && !k.budget.over() {
		return
	}
	k.Release()
	c.capture, c.captureLost = nil, true
	c.relay.capturesLost.Add(1)
}

// RequestBytes returns the length of the request's messages with their prefixes.
func (k *Capture) RequestBytes() int { return k.request.n }

// AnswerBytes returns the length of the answer's messages with their prefixes.
func (k *Capture) AnswerBytes() int { return k.answer.n }

// Memory returns the bytes that the copy takes from its pool.
func (k *Capture) Memory() int { return k.request.charged + k.answer.charged }

// AnswerEncoding returns the answer's grpc-encoding, empty if it names none. The
// request's is among the call's fields.
func (k *Capture) AnswerEncoding() string { return k.encoding }

// AppendRequest appends the request's messages, with their prefixes, to dst.
func (k *Capture) AppendRequest(dst []byte) []byte { return k.request.appendTo(dst) }

// AppendAnswer appends the answer's messages, with their prefixes, to dst.
func (k *Capture) AppendAnswer(dst []byte) []byte { return k.answer.appendTo(dst) }

// Retain makes another holder, who owes a release as well.
func (k *Capture) Retain() { k.holders.Add(1) }

// Release gives the copy back; the last holder's frees its memory.
func (k *Capture) Release() {
	switch n := k.holders.Add(-1); {
	case n == 0:
		k.request.free(k.budget)
		k.answer.free(k.budget)
	case n < 0:
		panic("relay: a Capture was released more often than it was held")
	}
}
