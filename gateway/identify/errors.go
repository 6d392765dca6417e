package identify

import "fmt"

// Reason says why a call is refused.
type Reason uint8

// The reasons, with the gRPC status each one stands for.
const (
	// Malformed is INVALID_ARGUMENT: the message is cut off, is not protobuf,
	// or holds a name that cannot be one.
	Malformed Reason = iota + 1
	// Conflict is INVALID_ARGUMENT: two names in one call differ.
	Conflict
	// TooLarge is RESOURCE_EXHAUSTED: a message is over its limit, or its name
	// stands too far behind the start.
	TooLarge
	// Unsupported is UNIMPLEMENTED: the message must be read and its compression
	// is not known. The answer should carry grpc-accept-encoding: [AcceptEncoding].
	Unsupported
	// BadFrame is INTERNAL, as gRPC has it: the message's compressed flag is not
	// 0 or 1, or is 1 although no compression was announced.
	BadFrame
)

// String returns the reason as it stands in google.rpc.ErrorInfo.
func (r Reason) String() string {
	switch r {
	case Malformed:
		return "MESSAGE_MALFORMED"
	case Conflict:
		return "MODEL_CONFLICT"
	case TooLarge:
		return "MESSAGE_TOO_LARGE"
	case Unsupported:
		return "COMPRESSION_UNSUPPORTED"
	case BadFrame:
		return "FRAME_INVALID"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Error is the only error type of a [Scanner] and of [Metadata].
type Error struct {
	Reason Reason
	Detail string // names the field, its value and what is accepted
}

// Error returns the detail: it is what the caller gets to read.
func (e *Error) Error() string { return e.Detail }

func refuse(r Reason, format string, args ...any) error {
	return &Error{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// shown bounds a foreign value inside an error text, which travels in a header.
func shown(v []byte) string {
	const most = 128 // bytes
	if len(v) > most {
		return fmt.Sprintf("%q... (%d bytes)", string(v[:most]), len(v))
	}
	return fmt.Sprintf("%q", string(v)) // a copy: v need not move to the heap for this
}
