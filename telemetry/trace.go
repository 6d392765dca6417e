package telemetry

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"unsafe"

	"go.opentelemetry.io/otel/trace"
)

// Trace is where a call stands in its trace (W3C Trace Context). Its ids are drawn when the call opens,
// so that they can be passed on; whether spans are made is decided when it is over.
type Trace struct {
	// ID is the trace: the caller's, or a new one. It is zero if traces are off and the caller had none.
	ID trace.TraceID
	// Span is the call's own span; zero if traces are off.
	Span trace.SpanID
	// Parent is the caller's span; zero if the caller named none.
	Parent trace.SpanID
	// Flags are what is passed on: whether the trace is sampled, and what else the caller said.
	Flags trace.TraceFlags
}

// Sampled reports whether the call's spans are kept whatever becomes of it.
func (t *Trace) Sampled() bool { return t.Span.IsValid() && t.Flags.IsSampled() }

// begin continues the trace that the caller names, or begins one; id decides what is sampled then.
func (s *Sampling) begin(id uint64, traceparent string) (t Trace) {
	fromCaller := t.parse(traceparent)
	if s == nil {
		return t // of use to logs
	}
	sampled := id < s.below
	if fromCaller && s.parentBased {
		sampled = t.Flags.IsSampled()
	}
	if !fromCaller {
		t.ID = newTraceID()
	}
	t.Span = newSpanID()
	t.Flags = t.Flags.WithSampled(sampled)
	return t
}

func newTraceID() (id trace.TraceID) {
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64()|1) // never zero
	return id
}

func newSpanID() (id trace.SpanID) {
	binary.NativeEndian.PutUint64(id[:], rand.Uint64()|1) // never zero
	return id
}

// knownFlags are the bits of the flags that have a meaning: sampled, and random, which says that the
// trace's id is. Others must not be passed on.
const knownFlags = 0x03

// parse reads a traceparent. Later versions may append to what version 00 has; a value that breaks the
// rules names no trace.
func (t *Trace) parse(s string) bool {
	const short = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(s) < short || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	var p Trace
	var version, flags [1]byte
	ok := unhex(version[:], s[:2]) && unhex(p.ID[:], s[3:35]) && unhex(p.Parent[:], s[36:52]) && unhex(flags[:], s[53:55])
	switch {
	case !ok, version[0] == 0xff, !p.ID.IsValid(), !p.Parent.IsValid(),
		len(s) > short && (version[0] == 0 || s[short] != '-'):
		return false
	}
	p.Flags = trace.TraceFlags(flags[0] & knownFlags)
	*t = p
	return true
}

// unhex decodes lower-case hexadecimal, as the standard demands, into all of dst.
func unhex(dst []byte, s string) bool {
	for i := range dst {
		hi, lo := nibble(s[2*i]), nibble(s[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// Traceparent is the text of a traceparent, made in place: a call has a new one for every attempt, and
// no unsampled call is to allocate for its trace.
type Traceparent [len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")]byte

// Write makes p name a span of a trace and returns it as a string, which shows whatever p holds: it must
// not outlive the next Write.
func (p *Traceparent) Write(t *Trace, span trace.SpanID) string {
	copy(p[:], "00-")
	hex.Encode(p[3:], t.ID[:])
	p[35] = '-'
	hex.Encode(p[36:], span[:])
	p[52] = '-'
	hex.Encode(p[53:], []byte{byte(t.Flags)})
	return unsafe.String(&p[0], len(p))
}
