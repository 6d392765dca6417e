package gateway

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"sluice/gateway/identify"
	"sluice/gateway/relay"
)

// attemptsField says how many attempts were sent.
const attemptsField = "sluice-attempts"

// answerFields are the fields that every answer begins with: who answered, as far
// as that is decided, and what was tried.
func (d *director) answerFields(s *call, attempts int) []hpack.HeaderField {
	f := s.answer[:0]
	switch {
	case s.target != nil:
		f = append(f, s.target.model, s.target.name)
	case s.route != nil:
		f = append(f, hpack.HeaderField{Name: "sluice-model", Value: s.route.Model})
	}
	snap := s.snap
	if snap == nil {
		snap = d.snapshot.Load()
	}
	f = append(f,
		hpack.HeaderField{Name: attemptsField, Value: strconv.Itoa(attempts)},
		snap.revision,
		hpack.HeaderField{Name: "x-request-id", Value: s.requestID, Sensitive: true})
	if s.fallbackReason != "" {
		f = append(f, hpack.HeaderField{Name: "sluice-fallback", Value: s.primary.version.Name + " " + s.fallbackReason})
	}
	if s.fault != "" {
		f = append(f, hpack.HeaderField{Name: "sluice-fault", Value: s.fault})
	}
	return f
}

// Status dresses a status that the relay makes.
func (d *director) Status(c *relay.Call, kind relay.OutcomeKind, code uint32, msg string) *relay.Status {
	reason, retry := outcomeReason(kind)
	if s, ok := c.Data.(*call); ok && s.struck && (kind == relay.Answered || kind == relay.Reset) {
		reason = reasonFault
	}
	return d.status(c, &refusal{code: codes.Code(code), reason: reason, msg: msg, retry: retry})
}

// status makes what the caller gets of a refusal. Its fields stand in the details,
// too, for programs that keep nothing else of an error.
func (d *director) status(c *relay.Call, r *refusal) *relay.Status {
	s, ok := c.Data.(*call)
	if !ok { // refused by the relay before it was looked at
		s = &call{requestID: newRequestID()}
	}
	s.record.Reason = r.reason
	fields := d.answerFields(s, c.Attempts())
	metadata := make(map[string]string, len(fields))
	for _, f := range fields {
		metadata[f.Name] = f.Value
	}
	return &relay.Status{Code: uint32(r.code), Message: r.msg, Details: r.details(metadata), Fields: fields}
}

func (d *director) refuse(c *relay.Call, r *refusal) relay.Verdict {
	return relay.Refuse(d.status(c, r))
}

// refuseError refuses a call whose metadata or messages are not in order.
func (d *director) refuseError(c *relay.Call, err error) relay.Verdict {
	var ie *identify.Error
	if !errors.As(err, &ie) {
		ie = &identify.Error{Reason: identify.Malformed, Detail: err.Error()}
	}
	st := d.status(c, identifyRefusal(ie))
	if ie.Reason == identify.Unsupported {
		st.Fields = append(st.Fields, hpack.HeaderField{Name: "grpc-accept-encoding", Value: identify.AcceptEncoding})
	}
	return relay.Refuse(st)
}

// newRequestID makes an id for a call that brought none: 128 random bits. That is the one
// allocation of the director for a plain call: what is recorded keeps the id when the state of
// the call is used again.
func newRequestID() string {
	var b [16]byte
	var h [32]byte
	binary.NativeEndian.PutUint64(b[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64())
	hex.Encode(h[:], b[:])
	return string(h[:])
}
