package telemetry

import "encoding/hex"

// TraceID is the id of a trace, as in W3C Trace Context.
type TraceID [16]byte

// SpanID is the id of a span, as in W3C Trace Context.
type SpanID [8]byte

// String returns the id in hexadecimal.
func (id TraceID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in hexadecimal.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// Trace is where a call stands in its trace.
type Trace struct {
	// ID is the trace; zero if traces are off.
	ID TraceID
	// Span is the call's own span.
	Span SpanID
	// Parent is the caller's span, zero if the caller named none.
	Parent SpanID
	// Sampled says that the call's spans are kept whatever becomes of it.
	Sampled bool
}
