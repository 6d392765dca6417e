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
	Latency time.Duration // until the answer began; 0 if that says nothing
	Payload Payload
}

// job is a copy in one mirror. Copies are shared by mirrors, and their payloads are
// gone once they have been released.
type job struct {
	*Copy
	// size is what the copy counts in the queue: its own memory, and that of the request
	// as it is sent. It is in bytes.
	size int
	// allowance is how many bytes of a shadow's answer are read.
	allowance int
	// measured says that both are those of the messages uncompressed, as they are sent and
	// as the shadow may answer.
	measured bool
}

func newJob(c *Copy) job {
	return job{
		Copy: c, size: c.memory(), allowance: allowanceFor(c.Payload.AnswerBytes()),
		measured: plainEncoding(c.Encoding) && plainEncoding(c.Payload.AnswerEncoding()),
	}
}

// memory is what the copy takes, in bytes, and its request as it is sent.
func (c *Copy) memory() int {
	n := c.Payload.Memory() + c.Payload.RequestBytes()
	for _, text := range c.Metadata {
		n += len(text)
	}
	return n
}

func plainEncoding(name string) bool { return name == "" || name == "identity" }

// maxPlain is the most that a request or an answer may take uncompressed, in bytes.
const maxPlain = 8 << 20

// answerSpare is for what describes the server, in bytes.
const answerSpare = 64 << 10

// allowanceFor is how much of a shadow's answer is read if the caller's takes n bytes,
// uncompressed: as much as the same answer may take. An INT8 below zero is one byte in
// raw contents and ten in typed ones. Of large answers, whose memory counts, less.
func allowanceFor(n int) int { return min(10*n, 2*n+maxPlain) + answerSpare }
