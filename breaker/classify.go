package breaker

import (
	"time"

	"google.golang.org/grpc/codes"
)

// Kind says how an attempt ended, below gRPC.
type Kind uint8

// The kinds.
const (
	// Answered: with a gRPC status, in Code.
	Answered Kind = iota
	// Invalid: with an answer that is not gRPC; Code is what its HTTP status maps to.
	Invalid
	// Unprocessed: the server said that it never looked at the call.
	Unprocessed
	// Reset: the server reset the stream; Code is what the HTTP/2 error maps to.
	Reset
	// Lost: the connection broke.
	Lost
	// Unreachable: no connection could be had.
	Unreachable
	// Deadline: the call's deadline passed, or its stream was idle for too long.
	Deadline
	// Canceled: the client went away.
	Canceled
	// OwnRefusal: the gateway itself ended the attempt.
	OwnRefusal
)

// Attempt is what is known of one attempt once it is over.
type Attempt struct {
	Kind Kind
	// Code is the gRPC status; see Kind.
	Code codes.Code
	// Latency is the time it took.
	Latency time.Duration
	// Had is the time that was left until the call's deadline when the attempt began; 0 if there was no
	// deadline.
	Had time.Duration
	// InBandError says that a message of the answer carried an error.
	InBandError bool
}

// Thresholds are the times that classification depends on.
type Thresholds struct {
	// Slow is the latency above which a good answer is slow; 0 means that none is.
	Slow time.Duration
	// Patience is the time an attempt must have had for a passed deadline to count against the server.
	Patience time.Duration
}

// unknownPatience is the patience asked of callers while nothing is known about a version. It is
// longer than most models take, and shorter than the deadlines people set on purpose.
const unknownPatience = 100 * time.Millisecond

// Classify judges an attempt. It knows status codes, so that breakers need not.
func Classify(p Preset, t Thresholds, a Attempt) Outcome {
	switch a.Kind {
	case Answered, Invalid:
		return classifyStatus(p, t, a)
	case Unprocessed:
		// Servers refuse streams that are too many, and those that come while they shut down. Neither
		// is a fault by itself; only a server that does little else is cut off.
		return Overloaded
	case Reset:
		if a.Code == overloadedCode { // ENHANCE_YOUR_CALM
			return Overloaded
		}
		return Failure
	case Lost, Unreachable:
		return Failure
	case Deadline:
		return classifyDeadline(t, a)
	case Canceled, OwnRefusal:
	}
	return Excluded
}

func classifyStatus(p Preset, t Thresholds, a Attempt) Outcome {
	switch {
	case a.InBandError && p.inBandErrors():
		return Failure
	case a.Code == codes.DeadlineExceeded:
		return classifyDeadline(t, a)
	case a.Code == overloadedCode:
		return Overloaded
	case failureCodes.has(a.Code):
		return Failure
	case a.Code != codes.OK:
		// The caller's fault. It does not count as a success either: bad input is rejected early, by
		// servers whose model is broken too.
		return Excluded
	case t.Slow > 0 && a.Latency > t.Slow:
		return Slow
	}
	return Success
}

// classifyDeadline keeps one impatient client from cutting a version off for all.
func classifyDeadline(t Thresholds, a Attempt) Outcome {
	if a.Had != 0 && a.Had < t.Patience {
		return Excluded
	}
	return Failure
}
