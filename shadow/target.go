package shadow

import (
	"time"

	"sluice/shadow/client"
	"sluice/shadow/compare"
)

// Target is the version that a mirror sends to, as its owner knows it. The methods
// may be called concurrently and must not block.
type Target interface {
	// Ready reports whether a call would be admitted now. It is asked when calls of
	// callers begin, and costs them next to nothing.
	Ready(now time.Time) bool
	// Admit asks for an attempt. The one who is admitted owes one call of settle.
	Admit(now time.Time) (settle func(Attempt), ok bool)
	// Pick returns where an attempt goes.
	Pick(now time.Time) (Endpoint, bool)
	// Trace is told of a copy that is about to be sent. The [Span] that it returns is told
	// of its end; nil if there are no traces.
	Trace(c *Copy, e Endpoint, now time.Time) Span
	// Rewrite appends the messages of body, of a call of that path and uncompressed,
	// to dst, renamed for the version. It reports false if that cannot be done.
	Rewrite(path string, dst, body []byte) ([]byte, bool)
}

// Endpoint is where a version can be reached.
type Endpoint = client.Endpoint

// Attempt is how a call of a shadow ended.
type Attempt struct {
	Kind    AttemptKind
	Code    uint32 // of gRPC
	Had     time.Duration
	Latency time.Duration
	Ended   time.Time
}

// Span follows a copy that is sent. One goroutine uses it.
type Span interface {
	// Traceparent is what the shadow gets in place of the caller's.
	Traceparent() string
	// End is called once: with how the attempt ended, and either why it counts as failed
	// or, if it was answered (failed is 0), how its answer differs.
	End(a Attempt, failed Reason, d compare.Difference)
}

// AttemptKind says how an attempt ended, below gRPC.
type AttemptKind uint8

// The kinds.
const (
	Answered   AttemptKind = iota // with a status
	TimedOut                      // its deadline passed
	NotReached                    // there was no connection, or it was lost
	Oversized                     // with more than is read, and so not to its end
)
