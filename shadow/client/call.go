package client

import (
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// End says how a call ended, below gRPC.
type End uint8

// The ends.
const (
	Answered  End = iota // with a status
	Canceled             // by [Client.Cancel]
	Lost                 // there was no connection, or it was lost
	Unsent               // the server has not looked at it: it may be started again
	Oversized            // with more than is read
)

// Call is one call. The fields of the first part are set before it starts, the others
// are to be read once it is over; in between it belongs to the client.
type Call struct {
	Path      string // /package.Service/Method
	Authority string
	// Fields are sent after those that HTTP/2 and gRPC demand.
	Fields []hpack.HeaderField
	// Body holds the messages with their prefixes.
	Body []byte
	// Limit is how many bytes of an answer are read.
	Limit int
	// Owner is for who starts the call.
	Owner any

	End  End
	Code uint32 // of gRPC, if it was answered
	// Encoding is the answer's grpc-encoding.
	Encoding string
	// Answer holds the messages with their prefixes. Its memory is used again if the call is.
	Answer []byte
	// Started is when the request began to be sent; zero if it never did. Latency is the
	// time from when all of it was sent, or from then if it never was, until the answer began
	// or the call was over.
	Started, Ended time.Time
	Latency        time.Duration

	conn *conn
	id   uint32 // of its stream; 0 while it waits for one
	over bool

	rest   []byte    // of Body
	queued bool      // it is among those of the connection that could send
	sent   time.Time // when there was no more of it
	window int       // of the server, for this stream
	credit int       // bytes received, and not yet given back to the stream's window

	begun        bool // an answer has
	http, status string
}

// reset prepares a call that may have been used before.
func (k *Call) reset(c *conn) {
	k.End, k.Code, k.Encoding, k.Answer = Answered, 0, "", k.Answer[:0]
	k.Started, k.Ended, k.Latency = time.Time{}, time.Time{}, 0
	k.conn, k.id, k.over = c, 0, false
	k.rest, k.queued, k.sent, k.window, k.credit = k.Body, false, time.Time{}, 0, 0
	k.begun, k.http, k.status = false, "", ""
}

// finish notes that the call is over.
func (k *Call) finish(end End, now time.Time) {
	k.over, k.End, k.Ended = true, end, now
	k.began(now)
}

// began notes when the answer did, if it was asked for.
func (k *Call) began(now time.Time) {
	from := k.sent
	if from.IsZero() {
		from = k.Started
	}
	if k.Latency == 0 && !from.IsZero() {
		k.Latency = max(1, now.Sub(from))
	}
}

// code is the status of a complete answer.
func (k *Call) code() uint32 {
	if n, err := strconv.ParseUint(k.status, 10, 32); err == nil {
		return uint32(n)
	}
	switch k.http {
	case "400":
		return uint32(codes.Internal)
	case "401":
		return uint32(codes.Unauthenticated)
	case "403":
		return uint32(codes.PermissionDenied)
	case "404":
		return uint32(codes.Unimplemented)
	case "429", "502", "503", "504":
		return uint32(codes.Unavailable)
	}
	return uint32(codes.Unknown)
}

// resetCode is the status of an answer that the server has cut off.
func resetCode(c http2.ErrCode) uint32 {
	switch c {
	case http2.ErrCodeCancel:
		return uint32(codes.Canceled)
	case http2.ErrCodeEnhanceYourCalm:
		return uint32(codes.ResourceExhausted)
	case http2.ErrCodeInadequateSecurity:
		return uint32(codes.PermissionDenied)
	}
	return uint32(codes.Internal)
}
