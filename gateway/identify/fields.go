package identify

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// MaxName is the longest model name or version accepted, in bytes. Names become
// labels, headers and keys; nothing that is longer was meant as a name.
const MaxName = 1024

// step is what the next byte of a message belongs to.
type step uint8

const (
	stepTag    step = iota // a field's number and wire type
	stepLength             // the length of a length-delimited value
	stepVarint             // a varint value
	stepSkip               // a value nobody here needs
	stepText               // a name
)

// fields reads the top-level fields of one message after the other, in pieces
// of any size, and gathers the names. Everything else is skipped by length.
type fields struct {
	scope   Scope
	message int // number of the current message, from 1

	step   step
	role   role
	wire   protowire.Type
	number uint64 // of the current field, for errors
	acc    uint64 // varint so far
	shift  uint   // bits of it; 0 = none has begun
	left   int    // bytes missing of the value that is skipped or kept
	kept   text   // a name that came in pieces so far

	pos   int         // offset in the message
	ends  [depths]int // where each open (sub-)message ends
	depth int

	model, version, label claim

	specVersion  bool // this message's ModelSpec has a version...
	explicit     bool // ...whose value is written out
	versionValue int64

	behind  bool // the current top-level field stands behind the names
	settled bool // the names hold for the call

	sequenceID bool // of parametersField: the field is the sequence's id itself
	sequence   bool // the call belongs to a sequence, as far as can be told
}

// parametersField holds, where messages say model_name, a map of parameters, one of
// them sequenceKey; with TorchServe it is the sequence's id.
const parametersField = 4

var sequenceKey = []byte("sequence_id")

// reset prepares for a call; model is what its metadata says, or empty.
func (f *fields) reset(scope Scope, model string) {
	*f = fields{scope: scope, settled: scope == ScopeNone}
	if model != "" {
		appendText(&f.model.value, model)
		f.model.fixed = true
	}
}

// begin starts the next message.
func (f *fields) begin(length int) {
	f.message++
	f.step, f.acc, f.shift = stepTag, 0, 0
	f.pos, f.depth, f.behind = 0, depthMessage, false
	f.ends[depthMessage] = length
	f.specVersion, f.explicit, f.versionValue = false, false, 0
	f.model.nextMessage()
	f.version.nextMessage()
	f.label.nextMessage()
}

// feed reads the next piece, which must not reach past the message's end.
func (f *fields) feed(p []byte) error {
	for {
		for f.pos == f.ends[f.depth] {
			if f.shift != 0 && f.step == stepTag {
				return f.malformed("cut off inside a field's number")
			}
			if f.step != stepTag {
				return f.malformed("cut off inside field %d", f.number)
			}
			if f.depth == depthMessage {
				return nil
			}
			f.depth--
		}
		if len(p) == 0 {
			return nil
		}
		n := f.passOver(p)
		if n == 0 {
			var err error
			if n, err = f.advance(p[:min(len(p), f.ends[f.depth]-f.pos)]); err != nil {
				return err
			}
		}
		p = p[n:]
	}
}

// passOver skips the fields at the start of p that nobody needs and that lie in
// it whole, and returns their length. They are most of any message, so they get
// a short way; whatever is out of the ordinary is left to the steps.
func (f *fields) passOver(p []byte) (n int) {
	if f.depth != depthMessage || f.step != stepTag || f.shift != 0 {
		return 0
	}
	last := lastName(f.scope)
	for n < len(p) && p[n] < 0x80 {
		number, wire := protowire.DecodeTag(uint64(p[n]))
		if number == 0 || wire == protowire.StartGroupType || roleOf(f.scope, depthMessage, uint64(number)) != roleOther {
			break
		}
		size := protowire.ConsumeFieldValue(number, wire, p[n+1:])
		if size < 0 {
			break
		}
		f.behind = uint64(number) > last
		if number == parametersField && f.scope == ScopeModelName {
			f.sequence = f.sequence || f.sequenceID || bytes.Contains(p[n+1:n+1+size], sequenceKey)
		}
		n += 1 + size
	}
	f.pos += n
	return n
}

// advance takes one step. p ends where the innermost open message does, at the latest.
func (f *fields) advance(p []byte) (n int, err error) {
	if f.step == stepSkip || f.step == stepText {
		n = min(f.left, len(p))
		f.left -= n
		f.pos += n
		if f.step == stepText {
			return n, f.text(p[:n])
		}
		if f.left == 0 {
			f.step = stepTag
		}
		return n, nil
	}
	v, n, done, err := f.varint(p)
	f.pos += n
	if err != nil || !done {
		return n, err
	}
	switch f.step {
	case stepTag:
		err = f.tag(v)
	case stepLength:
		err = f.length(v)
	default:
		err = f.value(v)
	}
	return n, err
}

// varint reads on in a varint that may have begun in an earlier piece.
func (f *fields) varint(p []byte) (v uint64, n int, done bool, err error) {
	for _, b := range p {
		n++
		if f.shift == 63 && b > 1 {
			return 0, n, false, f.malformed("varint over 64 bits at byte %d", f.pos+n-1)
		}
		f.acc |= uint64(b&0x7f) << f.shift
		if b < 0x80 {
			v, f.acc, f.shift = f.acc, 0, 0
			return v, n, true, nil
		}
		f.shift += 7
	}
	return 0, n, false, nil
}

// tag begins a field.
func (f *fields) tag(v uint64) error {
	f.number, f.wire = v>>3, protowire.Type(v&7)
	// Some decoders read a tag as 32 bits and drop what is above: a number over
	// the limit could mean a name field to them.
	if f.number == 0 || f.number > uint64(protowire.MaxValidNumber) {
		return f.malformed("field number %d, want 1 to %d", f.number, protowire.MaxValidNumber)
	}
	f.role = roleOf(f.scope, f.depth, f.number)
	if f.depth == depthMessage {
		f.behind = f.number > lastName(f.scope)
		// A parameter that comes in pieces is not put together only to look at it.
		f.sequence = f.sequence || (f.number == parametersField && f.scope == ScopeModelName)
	}
	if want, ok := wireOf(f.role); ok && f.wire != want {
		return f.malformed("%s has wire type %d, want %d", fieldName(f.scope, f.role), f.wire, want)
	}
	switch f.wire {
	case protowire.VarintType:
		f.step = stepVarint
	case protowire.BytesType:
		f.step = stepLength
	case protowire.Fixed64Type:
		return f.skip(8)
	case protowire.Fixed32Type:
		return f.skip(4)
	case protowire.StartGroupType, protowire.EndGroupType:
		return f.malformed("field %d is a group (wire type %d), which is not accepted", f.number, f.wire)
	default:
		return f.malformed("field %d has wire type %d, want 0, 1, 2 or 5", f.number, f.wire)
	}
	return nil
}

func (f *fields) skip(n int) error {
	if n > f.ends[f.depth]-f.pos {
		return f.malformed("field %d is %d bytes long, %d are left", f.number, n, f.ends[f.depth]-f.pos)
	}
	f.left, f.step = n, stepSkip
	if n == 0 {
		f.step = stepTag
	}
	return nil
}

// length begins a length-delimited value.
func (f *fields) length(v uint64) error {
	if rest := f.ends[f.depth] - f.pos; v > uint64(rest) {
		return f.malformed("field %d is %d bytes long, %d are left", f.number, v, rest)
	}
	n := int(v)
	switch f.role {
	case roleOther:
		return f.skip(n)
	case roleSpec, roleInt64:
		f.specVersion = f.specVersion || f.role == roleInt64
		f.depth++
		f.ends[f.depth] = f.pos + n
		f.step = stepTag
		return nil
	default:
		return f.name(n)
	}
}

// name begins a name of n bytes.
func (f *fields) name(n int) error {
	if n > MaxName {
		return f.malformed("%s is %d bytes long, at most %d are accepted", fieldName(f.scope, f.role), n, MaxName)
	}
	f.left, f.step = n, stepText
	f.kept.reset()
	if n == 0 {
		return f.text(nil)
	}
	return nil
}

// text takes the next piece of a name; f.left says how much is missing behind it.
func (f *fields) text(p []byte) error {
	if f.left > 0 || f.kept.n > 0 {
		appendText(&f.kept, p)
		p = f.kept.bytes()
	}
	if f.left > 0 {
		return nil
	}
	f.step = stepTag
	if !utf8.Valid(p) {
		return f.malformed("%s is not valid UTF-8: %s", fieldName(f.scope, f.role), shown(p))
	}
	return f.mention(f.role, p)
}

// value takes a varint value.
func (f *fields) value(v uint64) error {
	f.step = stepTag
	if f.role != roleValue {
		return nil
	}
	if n := int64(v); f.explicit && n != f.versionValue {
		return f.conflict(roleValue, strconv.AppendInt(nil, n, 10), strconv.AppendInt(nil, f.versionValue, 10))
	}
	f.explicit, f.versionValue = true, int64(v)
	return nil
}

// end closes a message that has been fed whole; its names are final then.
func (f *fields) end() error { return f.settle() }

// settle makes what has been read so far the names of the call. A name that
// turns up later and differs is a conflict.
func (f *fields) settle() error {
	if f.specVersion {
		if f.label.seen {
			return refuse(Conflict, "request message %d: model_spec has a version and a version_label, want one of them", f.message)
		}
		var digits [20]byte // as many as the smallest int64 has, with its sign
		if err := f.mention(roleValue, strconv.AppendInt(digits[:0], f.versionValue, 10)); err != nil {
			return err
		}
	}
	f.model.fixed, f.version.fixed, f.label.fixed = true, true, true
	f.settled = true
	return nil
}

// maySettle reports whether the names are known before the message ends: there
// is a model, and fields are written in the order of their numbers.
func (f *fields) maySettle() bool {
	return !f.settled && f.behind && f.model.value.n > 0
}

// mention holds one more occurrence of a name against those before.
func (f *fields) mention(r role, v []byte) error {
	c := &f.model
	switch r {
	case roleVersion, roleValue:
		c = &f.version
	case roleLabel:
		c = &f.label
	default:
	}
	before := c.value.bytes()
	if c.seen && c.empty {
		before = nil
	}
	if !c.mention(v) {
		return f.conflict(r, v, before)
	}
	return nil
}

func (f *fields) malformed(format string, args ...any) error {
	return refuse(Malformed, "request message %d: "+format, append([]any{f.message}, args...)...)
}

func (f *fields) conflict(r role, got, want []byte) error {
	return refuse(Conflict, "request message %d: %s: got %s, want %s as named before in this call",
		f.message, fieldName(f.scope, r), shown(got), shown(want))
}
