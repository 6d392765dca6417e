package identify

import (
	"encoding/binary"
	"errors"
	"math"
)

// DefaultMaxMessage is the largest request message, in bytes. Tensors are
// large, and clients of Triton expect this much.
const DefaultMaxMessage = 64 << 20

// prefixSize is what stands in front of every gRPC message: a byte that says
// whether it is compressed and four with its length.
const prefixSize = 5

// Options are what a [Scanner] has to know of a call besides its method. The
// zero value means a call without metadata and the default limits.
type Options struct {
	Model        string // from the metadata; every name in a message must agree with it
	Encoding     string // the request's grpc-encoding
	MaxMessage   int    // bytes, as sent and once decompressed; 0 = DefaultMaxMessage; at most 2 GiB - 1, as in protobuf
	MaxUnsettled int    // bytes of the first message that may pass without its names being known; 0 = no limit
}

// Names are the names a call gives. They are views into the Scanner: valid until
// its next Reset, not to be changed. A map index m[string(n.Model)] does not copy.
type Names struct {
	Model   []byte
	Version []byte // model_version; of TensorFlow Serving the number in decimal
	Label   []byte // version_label of TensorFlow Serving
}

// Scanner reads a request's gRPC messages as they arrive and finds the names in
// them. It needs a Reset before each call, the first one too. It allocates
// nothing unless a message is compressed or a name is long.
type Scanner struct {
	encoding  string
	max       uint32
	unsettled int
	prefix    [prefixSize]byte
	have      int    // bytes of the prefix; all of them = inside the body
	left      uint32 // bytes missing of the body
	holding   bool   // the current message is compressed and must be read
	held      []byte // its body so far
	messages  int
	err       error
	fields    fields
}

// Reset prepares the Scanner for a call.
func (s *Scanner) Reset(m Method, o Options) {
	if o.MaxMessage <= 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	s.encoding, s.unsettled = o.Encoding, o.MaxUnsettled
	s.max = uint32(min(o.MaxMessage, math.MaxInt32))
	s.have, s.left, s.holding, s.held = 0, 0, false, nil
	s.messages, s.err = 0, nil
	s.fields.reset(m.Scope, o.Model)
	s.fields.sequenceID = m.Service == torchInference
}

// Feed takes the next piece of the request, of any size; end says it is the
// last one, which may be empty. It returns the bytes that go on. That is p itself, unless a
// compressed message had to be read: such a message is held back until it is
// complete and goes on decompressed, with flag 0, in a slice that belongs to
// the caller.
//
// An error is always an [*Error] and final: nothing of p may go on, and every
// later Feed returns the same error. No message has left whole by then that
// names another model or version than the call.
func (s *Scanner) Feed(p []byte, end bool) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	out, err := s.feed(p)
	if err == nil && end {
		err = s.finish()
	}
	if err == nil && s.fields.maySettle() {
		err = s.fields.settle()
	}
	if err == nil && s.unsettled > 0 && !s.fields.settled && s.fields.pos > s.unsettled {
		err = refuse(TooLarge, "request message 1: no model name within the first %d bytes: write it before the tensors", s.unsettled)
	}
	if err != nil {
		s.err, s.held = err, nil
		return nil, err
	}
	return out, nil
}

func (s *Scanner) feed(p []byte) (out []byte, err error) {
	changed := false // what goes on is out, no longer p
	for rest := p; len(rest) > 0; {
		n, err := s.advance(rest)
		if err != nil {
			return nil, err
		}
		if s.holding && !changed {
			changed, out = true, append(out, p[:len(p)-len(rest)]...)
		}
		if changed && !s.holding {
			out = append(out, rest[:n]...)
		}
		rest = rest[n:]
		if s.have < prefixSize || s.left > 0 {
			continue
		}
		if s.holding {
			if out, err = s.release(out); err != nil {
				return nil, err
			}
		}
		if err := s.endMessage(); err != nil {
			return nil, err
		}
	}
	if changed {
		return out, nil
	}
	return p, nil
}

// advance takes bytes of one message's prefix or of its body.
func (s *Scanner) advance(p []byte) (n int, err error) {
	if s.have < prefixSize {
		return s.readPrefix(p)
	}
	n = int(min(uint64(s.left), uint64(len(p))))
	s.left -= uint32(n)
	switch {
	case s.holding:
		s.held = append(s.held, p[:n]...)
	case s.reads():
		err = s.fields.feed(p[:n])
	}
	return n, err
}

func (s *Scanner) readPrefix(p []byte) (n int, err error) {
	if s.have == 0 {
		if err := s.flag(p[0]); err != nil {
			return 0, err
		}
	}
	n = copy(s.prefix[s.have:], p)
	s.have += n
	if s.have < prefixSize {
		return n, nil
	}
	s.left = binary.BigEndian.Uint32(s.prefix[1:])
	if s.left > s.max {
		return n, refuse(TooLarge, "request message %d is %d bytes long, at most %d are accepted", s.messages+1, s.left, s.max)
	}
	if s.reads() && !s.holding {
		s.fields.begin(int(s.left))
	}
	return n, nil
}

// flag looks at the byte that says whether a message is compressed.
func (s *Scanner) flag(b byte) error {
	switch {
	case b > 1:
		return refuse(BadFrame, "request message %d has compressed flag %d, want 0 or 1", s.messages+1, b)
	case b == 0 || !s.reads():
		return nil
	case s.encoding == "" || s.encoding == "identity":
		return refuse(BadFrame, "request message %d is marked compressed, but grpc-encoding is %q", s.messages+1, s.encoding)
	}
	if _, ok := codecs[s.encoding]; !ok {
		return refuse(Unsupported, "grpc-encoding %s is not known, want one of %s", shown([]byte(s.encoding)), AcceptEncoding)
	}
	s.holding = true
	return nil
}

// release appends the held message to out, decompressed and read.
func (s *Scanner) release(out []byte) ([]byte, error) {
	start := len(out)
	out = append(out, make([]byte, prefixSize)...)
	out, err := decompress(out, s.held, s.encoding, int(s.max))
	s.held = nil
	switch {
	case errors.Is(err, errOverLimit):
		return nil, refuse(TooLarge, "request message %d is over %d bytes long once decompressed, which is the most that is accepted", s.messages+1, s.max)
	case err != nil:
		return nil, refuse(Malformed, "request message %d: decompress %s: %v", s.messages+1, s.encoding, err)
	}
	body := out[start+prefixSize:]
	binary.BigEndian.PutUint32(out[start+1:], uint32(len(body)))
	s.fields.begin(len(body))
	return out, s.fields.feed(body)
}

func (s *Scanner) endMessage() error {
	s.messages++
	s.have, s.holding = 0, false
	if !s.reads() {
		return nil
	}
	return s.fields.end()
}

// finish is the end of the request. No message at all is for the server to judge.
func (s *Scanner) finish() error {
	if s.have > 0 {
		return refuse(Malformed, "request ends inside message %d: %d of its bytes are missing",
			s.messages+1, uint64(s.left)+uint64(prefixSize-s.have))
	}
	return s.fields.settle()
}

// MayChange reports whether Feed may return other bytes than it is given, so
// that a content-length no longer holds: messages are read and may come compressed.
func (s *Scanner) MayChange() bool {
	return s.reads() && s.encoding != "" && s.encoding != "identity"
}

// reads reports whether messages have to be read at all.
func (s *Scanner) reads() bool { return s.fields.scope != ScopeNone }

// Known returns the names of the call and whether they suffice to route it: a
// model is named and no more of its names are to be expected. That is so once a
// field behind the names has begun or the first message is complete; where
// messages hold no names, from the start. Fields are written in the order of
// their numbers by every encoder in use; a version that comes late nevertheless
// and was not known by then ends the call with a [Conflict].
func (s *Scanner) Known() (Names, bool) {
	f := &s.fields
	return Names{f.model.value.bytes(), f.version.value.bytes(), f.label.value.bytes()},
		f.settled && f.model.value.n > 0
}

// Settled reports whether what Known returns is final. A settled call that is
// not known names no model, neither in its first message nor in its metadata.
func (s *Scanner) Settled() bool { return s.fields.settled }

// Messages is how many messages of the request are complete.
func (s *Scanner) Messages() int { return s.messages }

// Held is how many bytes are held back, in memory, of a compressed message.
func (s *Scanner) Held() int {
	if !s.holding {
		return 0
	}
	return s.have + len(s.held)
}

// InSequence reports whether a message so far belongs to a sequence of calls that one
// server has to see (sequence_id). It is also true where that could not be told.
func (s *Scanner) InSequence() bool { return s.fields.sequence }
