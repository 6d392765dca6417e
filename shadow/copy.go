package shadow

import "time"

// Payload is a copy of a call's messages as gRPC puts them on the wire, each with its
// prefix. It never changes. Whoever gets one from a [Copy] owes its release.
type Payload interface {
	RequestBytes() int
	AppendRequest(dst []byte) []byte
	AppendAnswer(dst []byte) []byte
	AnswerBytes() int
	// AnswerEncoding is the answer's grpc-encoding.
	AnswerEncoding() string
	// Memory is what the payload takes, in bytes.
	Memory() int
	Release()
}

// Copy is a call that is over: what was asked, and what the caller got.
type Copy struct {
	Path      string // /package.Service/Method
	Authority string
	RequestID string
	// Traceparent names the call's span, for [Target.Trace]; empty if it has none.
	Traceparent string
	// Revision is of the routing state that decided.
	Revision uint64
	// Metadata are the request's fields, names and values in turn, pseudo-fields left
	// out.
	Metadata []string
	// Encoding is the request's grpc-encoding, of its compressed messages if any.
	Encoding string

	Version string        // who answered the caller
	Code    uint32        // of gRPC, that the caller got
	Latency time.Duration // until the answer began
	Payload Payload
}

// job is a copy in one mirror. Copies are shared by mirrors, and their payloads are
// gone once they have been released.
type job struct {
	*Copy
	// size is what the copy counts in the queue: its own memory, and that of the request
	// as it is sent. It is in bytes.
	size int
	// allowance is how many bytes of a shadow's answer are read: twice what the caller
	// got, and some more.
	allowance int
}

func newJob(c *Copy) job {
	return job{c, c.Payload.Memory() + c.Payload.RequestBytes(), 2*c.Payload.AnswerBytes() + answerSpare}
}

const answerSpare = 64 << 10
