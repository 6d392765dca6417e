package relay

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Policy decides what happens to calls. The relay calls it on connection readers
// and on its timer, with the call locked: a method must not block, and must not
// call back into the relay except through the *Call it was given. All methods
// for one call are serialised; different calls run concurrently.
type Policy interface {
	// Opened is asked once, when a call's header fields have arrived. It answers
	// with [To], [Refuse], or [Wait] for the body.
	Opened(c *Call) Verdict

	// Body sees each piece of the request body in order if c.Inspect is set; end marks
	// the last one. It returns what goes on in p's place: p itself unless it has
	// to change; the result is only read until the next call of Body. While the
	// call has not been sent anywhere, the verdict says what to do as for Opened;
	// afterwards only Wait (go on) and Refuse (end the call) have a meaning.
	Body(c *Call, p []byte, end bool) ([]byte, Verdict)

	// Failed is asked when an attempt has ended badly and nothing of an answer has
	// reached the client: [To] for another attempt (valid only if
	// c.Replayable()), [Later] to be asked again, [Pass] to hand the outcome to the
	// client, or [Refuse]. If c.Racing(), another attempt is under way still: Wait
	// leaves the call to that one, and so do To and Later.
	Failed(c *Call, o Outcome) Verdict

	// Due is asked when the time has come that Dispatch.Hedge or [Later] named. With an
	// attempt under way, [To] sends another one beside it, and whatever else does not.
	// Without, it answers as Failed does.
	Due(c *Call) Verdict

	// Dropped is told when one of two attempts that were under way was given up,
	// because the other one has answered or because the call has ended.
	Dropped(c *Call, o Outcome)

	// Status dresses a status that the relay makes, or that stands for an attempt
	// without an answer, with what callers of this gateway expect to find.
	Status(c *Call, kind OutcomeKind, code uint32, msg string) *Status

	// Over is told exactly once per call, whatever ended it.
	Over(c *Call, o Outcome)
}

type verdictKind uint8

const (
	verdictWait verdictKind = iota
	verdictTo
	verdictRefuse
	verdictPass
	verdictLater
)

// Verdict is a policy's answer. The zero value is Wait.
type Verdict struct {
	kind   verdictKind
	to     *Dispatch
	status *Status
	after  time.Duration
}

// Wait asks for more of the body.
func Wait() Verdict { return Verdict{} }

// To sends the call to an upstream. The relay reads d until the attempt is over.
func To(d *Dispatch) Verdict { return Verdict{kind: verdictTo, to: d} }

// Refuse ends the call with a status made by the gateway.
func Refuse(s *Status) Verdict { return Verdict{kind: verdictRefuse, status: s} }

// Pass hands a failed attempt's outcome to the client as it is.
func Pass() Verdict { return Verdict{kind: verdictPass} }

// Later keeps a server's status, which the client gets if nothing better comes, and has
// the policy asked by Due after a time, up to a tick of the timer late. It needs a whole
// request that can be replayed, and is Pass otherwise.
func Later(after time.Duration) Verdict { return Verdict{kind: verdictLater, after: after} }

// Dispatch describes one attempt.
type Dispatch struct {
	Upstream *Upstream
	// Request holds fields set on the request; incoming fields of the same names
	// are not forwarded, and that is all that one without a value is for. Fields with Sensitive set are never put into a
	// compression table: use it for values that are new with every call.
	Request []hpack.HeaderField
	// Answer holds fields added to the first HEADERS block of the answer.
	Answer []hpack.HeaderField
	// Rewrite, if set, changes the request body of this attempt. It sees the
	// whole body from its start.
	Rewrite Rewriter
	// BodyChanges says that the body's length may differ from what the client
	// announced: content-length is not forwarded.
	BodyChanges bool
	// Unary holds the answer's HEADERS back until its first DATA or its trailers,
	// so that an error after early headers can still go elsewhere.
	Unary bool
	// Until, if set, is when the attempt ends unless its answer has begun or it is the
	// last chance, the request being no longer replayable. The upstream is told.
	Until time.Time
	// Hedge, if not 0, is the time without an answer, from when the upstream has the
	// whole request, after which the policy is asked by Due. It needs Unary and Replay.
	Hedge time.Duration
	// Watch, if set, is shown the answer's DATA.
	Watch Watcher
	// Trailers, if set, adds fields to the trailers of an answer whose status is OK.
	Trailers TrailerSource
	// Begun, if set, is told when the first HEADERS of an answer that is not held
	// back have been passed on.
	Begun Observer
	// Replay keeps the request's bytes for further attempts, within the limits.
	Replay bool
	// KeepReserved passes the upstream's own sluice-* fields on.
	KeepReserved bool
	// NotBefore, unless zero, postpones the attempt until then, or the call's
	// deadline if that comes first. The attempt counts as started at once.
	NotBefore time.Time
	// Simulate, if set, ends the attempt like this instead of sending it.
	Simulate *Simulation
}

// Observer is told, like a [Policy] with the call locked, that an answer has begun.
type Observer interface {
	Answering(now time.Time)
}

// Watcher is shown, like a [Policy] with the call locked, consecutive pieces of an
// answer's body before they go on. It must not keep them.
type Watcher interface {
	AnswerData(now time.Time, p []byte)
}

// TrailerSource is asked, like a [Policy] with the call locked, for fields that are to go with the end of a good
// answer, once all of its DATA has been seen.
type TrailerSource interface {
	// AppendTrailers appends them to the upstream's own.
	AppendTrailers(fields []hpack.HeaderField) []hpack.HeaderField
}

// Rewriter changes the bytes of one attempt's request body. Append is called with
// consecutive pieces and appends what goes upstream to dst.
type Rewriter interface {
	Append(dst, p []byte) []byte
}

// Status is a gRPC status made by the gateway, sent as a trailers-only answer or,
// when an answer is under way, as its trailers.
type Status struct {
	Code    uint32 // google.rpc.Code
	Message string
	// Details is a serialized google.rpc.Status for grpc-status-details-bin; may
	// be empty.
	Details []byte
	// Fields are further fields of the answer.
	Fields []hpack.HeaderField
	// HTTP is the HTTP status, 0 meaning 200. With another one, the answer is
	// plain HTTP: the caller does not speak gRPC.
	HTTP int
}

// OutcomeKind says how an attempt or a call ended.
type OutcomeKind uint8

// The kinds of outcome.
const (
	// Answered: a complete answer with its own status in Code.
	Answered OutcomeKind = iota
	// Unprocessed: the upstream said that it never looked at the call
	// (REFUSED_STREAM, or above GOAWAY's last stream); free to repeat.
	Unprocessed
	// Reset: the upstream reset the stream.
	Reset
	// Lost: the upstream connection broke.
	Lost
	// Unreachable: no connection could be had.
	Unreachable
	// Invalid: the upstream's answer was no gRPC answer.
	Invalid
	// DeadlineExceeded: the call's deadline passed, or a stream was idle too long.
	DeadlineExceeded
	// Canceled: the client reset the call or its connection broke.
	Canceled
	// Refused: the policy or the relay refused the call.
	Refused
	// Evicted: the call was ended to free its buffers.
	Evicted
	// Outrun: another attempt of the same call answered first.
	Outrun
)

var outcomeNames = [...]string{"answered", "unprocessed", "reset", "lost", "unreachable", "invalid",
	"deadline exceeded", "canceled", "refused", "evicted", "outrun"}

// String returns the kind's name.
func (k OutcomeKind) String() string { return outcomeNames[k] }

// Outcome is how an attempt or a call ended.
type Outcome struct {
	Kind OutcomeKind
	// Code is the gRPC status code that the client gets for it.
	Code uint32
	// Message goes with Code.
	Message string
	// Reset is the upstream's HTTP/2 error code if Kind is Reset.
	Reset http2.ErrCode
	// Dispatch and Upstream are what was asked for and where the attempt went; nil if
	// it went nowhere.
	Dispatch *Dispatch
	Upstream *Upstream
	// Started and Ended bracket the attempt; FirstByte is when its answer began:
	// with its first HEADERS, or, if those are held back, with what follows them.
	// It is zero if it did not.
	Started, FirstByte, Ended time.Time
	// Pushback says that the upstream named a time before which it does not want to see
	// the call again, PushbackFor, or, if that is negative, that it never does
	// (grpc-retry-pushback-ms).
	Pushback    bool
	PushbackFor time.Duration
	// Committed says that something of the answer had reached the client.
	Committed bool
}
