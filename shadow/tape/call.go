package tape

import (
	"time"

	"sluice/shadow"
)

// Call is a call as it is kept.
type Call struct {
	Time      time.Time `json:"time"` // when it was over
	RequestID string    `json:"request_id,omitempty"`
	Path      string    `json:"path"`
	Authority string    `json:"authority,omitempty"`
	// Metadata are the request's fields, names and values in turn, without credentials.
	Metadata []string `json:"metadata,omitempty"`
	Encoding string   `json:"encoding,omitempty"`
	// Request and Answer are the messages as gRPC puts them on the wire, with prefixes.
	Request []byte `json:"request"`

	Version        string `json:"version"` // who answered
	Code           uint32 `json:"code"`    // of gRPC
	LatencyMicros  int64  `json:"latency_us"`
	Answer         []byte `json:"answer,omitempty"`
	AnswerEncoding string `json:"answer_encoding,omitempty"`
}

// newCall takes down a copy of a call.
func newCall(c *shadow.Copy, at time.Time) *Call {
	k := &Call{
		Time: at.UTC(), RequestID: c.RequestID, Path: c.Path, Authority: c.Authority, Encoding: c.Encoding,
		Request: c.Payload.AppendRequest(nil), Answer: c.Payload.AppendAnswer(nil), AnswerEncoding: c.Payload.AnswerEncoding(),
		Version: c.Version, Code: c.Code, LatencyMicros: c.Latency.Microseconds(),
	}
	for i := 0; i+1 < len(c.Metadata); i += 2 {
		if !shadow.IsCredential(c.Metadata[i]) {
			k.Metadata = append(k.Metadata, c.Metadata[i], c.Metadata[i+1])
		}
	}
	return k
}

// Copy returns the call as a mirror takes it.
func (k *Call) Copy() *shadow.Copy {
	return &shadow.Copy{
		Path: k.Path, Authority: k.Authority, RequestID: k.RequestID, Metadata: k.Metadata, Encoding: k.Encoding,
		Version: k.Version, Code: k.Code, Latency: time.Duration(k.LatencyMicros) * time.Microsecond, Payload: payload{k},
	}
}

// payload is a kept call's messages; the garbage collector frees them.
type payload struct{ call *Call }

func (p payload) RequestBytes() int               { return len(p.call.Request) }
func (p payload) AnswerBytes() int                { return len(p.call.Answer) }
func (p payload) AppendRequest(dst []byte) []byte { return append(dst, p.call.Request...) }
func (p payload) AppendAnswer(dst []byte) []byte  { return append(dst, p.call.Answer...) }
func (p payload) AnswerEncoding() string          { return p.call.AnswerEncoding }
func (p payload) Memory() int                     { return len(p.call.Request) + len(p.call.Answer) }
func (p payload) Release()                        {}
