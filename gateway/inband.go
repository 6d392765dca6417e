package gateway

import (
	"encoding/binary"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"sluice/breaker"
)

// reportsInBand reports whether answers of the attempt being prepared may carry errors
// beside their status: Triton's streams do, in the error_message of each message.
func (s *call) reportsInBand() bool {
	return s.target.guard.ReportsInBand() && s.method.Name == "ModelStreamInfer"
}

// inBand watches a stream's answer for errors. The first one counts against the version
// at once, since such a stream may go on for hours, and the first good message is what
// tells that a version is back. Nothing of it changes what the client gets.
type inBand struct {
	call    *call
	scanner errorScanner
	good    bool // a message without an error has come
	failed  bool
}

// AnswerData implements [relay.Watcher].
func (b *inBand) AnswerData(now time.Time, p []byte) {
	for len(p) > 0 && !b.failed {
		n, m := b.scanner.feed(p)
		p = p[n:]
		switch {
		case m == messageFailed:
			b.failed = true
			s := b.call
			r := breaker.Result{
				Outcome:   s.target.guard.Classify(breaker.Attempt{Kind: breaker.Answered, Code: codes.OK, InBandError: true}),
				At:        now,
				RequestID: s.requestID,
			}
			s.probe.Failing(r)
			s.version.Failing(r)
		case m == messageGood && !b.good:
			b.good = true
			b.call.Answering(now)
		}
	}
}

// finding is what has become known of a message.
type finding uint8

const (
	messageUnknown finding = iota
	messageGood            // it is over, and holds no error
	messageFailed
)

// errorField is error_message of inference.ModelStreamInferResponse.
const errorField = 1

// errorScanner finds messages with a non-empty error_message in an answer that comes in
// pieces of any size. It reads the numbers and lengths of top-level fields and passes
// over what they hold, tensors included. Compressed messages are passed over whole, as
// are those that are not well-formed from where they are not: nothing good is told of
// them. Where a message has several error_messages, one that is not empty suffices,
// though decoders keep the last. The zero value is at the start of an answer.
type errorScanner struct {
	prefix [5]byte
	have   int    // bytes of the prefix; all of them = inside the message
	left   uint32 // of the message
	opaque bool   // the message is not looked into

	groups int    // that have begun and not ended: what is in them is not top-level
	skip   uint64 // bytes of a field's value to pass over
	number uint64 // of the field; 0 = its tag comes next
	length bool   // the varint under way is the length of field number
	value  bool   // it is a value that nobody needs
	acc    uint64 // varint so far
	shift  uint
}

// feed takes bytes of p, up to the end of a message at most, and says what is known of
// that message then. An error is told when its field begins.
func (s *errorScanner) feed(p []byte) (n int, m finding) {
	if s.have < len(s.prefix) {
		n = copy(s.prefix[s.have:], p)
		if s.have += n; s.have < len(s.prefix) {
			return n, messageUnknown
		}
		s.left = binary.BigEndian.Uint32(s.prefix[1:])
		s.opaque = s.prefix[0] != 0
		s.groups, s.skip, s.number, s.length, s.value, s.acc, s.shift = 0, 0, 0, false, false, 0, 0
		p = p[n:]
	}
	body := p[:min(uint64(len(p)), uint64(s.left))]
	s.left -= uint32(len(body))
	n += len(body)
	failed := s.fields(body)
	if s.left == 0 {
		s.have = 0
	}
	switch {
	case failed:
		s.opaque = true // its rest is of no interest
		return n, messageFailed
	case s.opaque || s.left > 0 || s.withinField():
		return n, messageUnknown
	}
	return n, messageGood
}

// withinField reports whether something has begun that is not complete.
func (s *errorScanner) withinField() bool {
	return s.skip > 0 || s.shift > 0 || s.length || s.value || s.groups > 0
}

// fields reads on in the message's fields and reports whether an error begins there.
func (s *errorScanner) fields(p []byte) bool {
	for len(p) > 0 && !s.opaque {
		if s.skip > 0 {
			k := min(s.skip, uint64(len(p)))
			s.skip -= k
			p = p[k:]
			continue
		}
		b := p[0]
		p = p[1:]
		if s.shift == 63 && b > 1 {
			s.opaque = true // no varint is that long
			return false
		}
		s.acc |= uint64(b&0x7f) << s.shift
		s.shift += 7
		if b >= 0x80 {
			continue
		}
		v := s.acc
		s.acc, s.shift = 0, 0
		switch {
		case s.length && v > uint64(len(p))+uint64(s.left):
			s.opaque = true
		case s.length:
			if s.number == errorField && s.groups == 0 && v > 0 {
				return true
			}
			s.skip, s.length = v, false
		case s.value:
			s.value = false
		default:
			s.tag(v)
		}
	}
	return false
}

// tag begins a field, or begins or ends a group of them. That a group ends with the number
// it began with is not looked at.
func (s *errorScanner) tag(v uint64) {
	if s.number = v >> 3; s.number == 0 || s.number > uint64(protowire.MaxValidNumber) {
		s.opaque = true
		return
	}
	switch protowire.Type(v & 7) {
	case protowire.VarintType:
		s.value = true
	case protowire.Fixed64Type:
		s.skip = 8
	case protowire.BytesType:
		s.length = true
	case protowire.Fixed32Type:
		s.skip = 4
	case protowire.StartGroupType:
		s.groups++
	case protowire.EndGroupType:
		s.groups--
		s.opaque = s.groups < 0
	default:
		s.opaque = true
	}
}
