package telemetry

import (
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Call is the record of one call. Its holder fills the fields as they become known, calls its methods as
// things happen, and hands it to [Telemetry.Record] once. It is not safe for concurrent use.
type Call struct {
	// ID is random and drawn when the call opens. It decides what is sampled.
	ID uint64
	// Trace is where the call stands in its trace.
	Trace Trace
	// RequestID is the caller's x-request-id, or the one made for it.
	RequestID string
	// Service and Method name the gRPC method. They are empty if neither a list of known methods nor
	// the routes have its service: then they are whatever a client wrote.
	Service, Method string
	// Series are the metrics of the version that answered, or was to.
	Series *Series
	// Primary are those of the version chosen first; nil if none was.
	Primary *Series
	// Choice says why the primary was chosen: weighted, sticky or forced.
	Choice string
	// Forced says that the caller asked for the version by name.
	Forced bool
	// Revision is the routing state that decided.
	Revision uint64
	// FallbackReason says why the primary did not answer; empty if it did.
	FallbackReason string
	// DataVersion says what the model of the version that answered was trained with.
	DataVersion string
	// Slow says that the call took far longer than the version's calls do.
	Slow bool
	// Opened and Ended are when the header fields had arrived, and when the call was over.
	Opened, Ended time.Time
	// Code is the gRPC status that the caller got.
	Code uint32
	// Reason is the ErrorInfo reason of a status that the gateway made; empty for a model server's own.
	Reason string
	// Canceled says that the caller gave up.
	Canceled bool
	// Unary says that the method is known to be.
	Unary bool
	// RequestBytes and AnswerBytes are the bodies' lengths on the wire.
	RequestBytes, AnswerBytes int64

	attempts [maxAttempts]Attempt
	begun    int // attempts so far, those without room included
	kept     int
	refusals [maxRefusals]Refusal
	refused  int  // refusals so far, those without room included
	slow     bool // an attempt was
	late     bool // by the model's objective
	why      keep
}

// What a record has room for. A call is sent three times at most; beyond that there are only attempts
// that found no connection. Those and further refusals are counted, and leave no trace.
const (
	maxAttempts = 4
	maxRefusals = 4
)

// Attempt is the record of one attempt.
type Attempt struct {
	// Series are the metrics of the version that was asked.
	Series *Series
	// Kind says why the attempt was made.
	Kind AttemptKind
	// DataVersion says what the version's model was trained with.
	DataVersion string
	// Endpoint is the address that was dialled.
	Endpoint string
	// Span is the attempt's own id.
	Span trace.SpanID
	// Started, FirstByte and Ended are when it began, when its answer did, and when it was over.
	// FirstByte is zero if there was no answer.
	Started, FirstByte, Ended time.Time
	// Outcome is what it says about the version: success, slow, overloaded, failure, excluded.
	Outcome string
	// Reason is the name of the status code that came back, or what came in its stead.
	Reason string
	// Code is the status it ended with.
	Code uint32
	// Reset says that the model server reset the stream, ResetCode how (HTTP/2 error code).
	Reset     bool
	ResetCode uint32
}

// AttemptKind says why an attempt is made.
type AttemptKind uint8

// The kinds of attempt.
const (
	Primary  AttemptKind = iota // the first at the version that was chosen
	Retry                       // another one at the same version
	Fallback                    // at another version, since the one before could not answer
	Hedge                       // beside one that is still under way
)

var attemptKinds = [...]string{"primary", "retry", "fallback", "hedge"}

// String returns the kind as in labels.
func (k AttemptKind) String() string { return attemptKinds[k] }

// Refusal is a version that could not be asked.
type Refusal struct {
	Series *Series
	At     time.Time
	// Reason is as in ErrorInfo: BREAKER_OPEN, IN_FLIGHT_LIMIT and so on.
	Reason string
}

// EndAttempt counts an attempt that is over and keeps it for the trace.
func (c *Call) EndAttempt(a *Attempt) {
	a.Series.attempt(a)
	c.begun++
	if a.Outcome == outcomeSlow {
		c.slow = true
	}
	if c.kept < len(c.attempts) {
		c.attempts[c.kept] = *a
		c.kept++
	}
}

// Refuse counts that a version could not be asked, and keeps it for the trace.
func (c *Call) Refuse(s *Series, at time.Time, reason string) {
	s.refuse(reason)
	if c.refused < len(c.refusals) {
		c.refusals[c.refused] = Refusal{s, at, reason}
	}
	c.refused++
}

// Attempts returns the attempts that the record had room for, in the order in which they ended.
func (c *Call) Attempts() []Attempt { return c.attempts[:c.kept] }

// Refusals returns the refusals that the record had room for.
func (c *Call) Refusals() []Refusal { return c.refusals[:min(c.refused, len(c.refusals))] }
