package identify

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Rename is what a version is called on its server.
type Rename struct {
	Model   string // empty = as the caller names it
	Version string // empty = as the caller names it, or none
	// ClearVersion takes the caller's version out of the message when Version
	// is empty: it named a version of the gateway's, unknown to the server.
	ClearVersion bool
}

// Rewrite is a Rename ready for the messages of one scope. It never changes and
// may be shared by any number of calls.
type Rewrite struct {
	suffix []byte // appended to every message
}

// NewRewrite prepares a Rename for messages of a scope. Where messages hold no
// names it changes nothing, and nothing of the version where they hold none. It
// fails when the scope cannot say what the Rename wants.
func NewRewrite(scope Scope, r Rename) (*Rewrite, error) {
	if err := checkName("rename.model", r.Model); err != nil {
		return nil, err
	}
	if err := checkName("rename.version", r.Version); err != nil {
		return nil, err
	}
	var suffix []byte
	switch scope {
	case ScopeModelName, ScopeName:
		suffix = appendString(suffix, 1, r.Model)
		suffix = appendString(suffix, 2, r.Version)
		if r.ClearVersion && r.Version == "" {
			suffix = protowire.AppendTag(suffix, 2, protowire.BytesType)
			suffix = protowire.AppendVarint(suffix, 0)
		}
	case ScopeRepositoryModel:
		suffix = appendString(suffix, 2, r.Model)
	case ScopeModelSpec:
		spec, err := modelSpec(r)
		if err != nil {
			return nil, err
		}
		if len(spec) > 0 {
			suffix = protowire.AppendTag(suffix, 1, protowire.BytesType)
			suffix = protowire.AppendBytes(suffix, spec)
		}
	default:
	}
	return &Rewrite{suffix}, nil
}

// modelSpec makes the model_spec that, merged into the caller's, renames it.
// A version set here also replaces a version_label: the two are one oneof.
func modelSpec(r Rename) ([]byte, error) {
	spec := appendString(nil, 1, r.Model)
	if r.Version == "" {
		if r.ClearVersion {
			return nil, fmt.Errorf("rename.version: got none, want a number: a model_spec's version can be replaced, not removed")
		}
		return spec, nil
	}
	n, err := strconv.ParseInt(r.Version, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("rename.version: got %q, want a whole number as TensorFlow Serving has it", r.Version)
	}
	// The value is written even if 0: left out, it would not replace the caller's.
	value := protowire.AppendTag(nil, 1, protowire.VarintType)
	value = protowire.AppendVarint(value, uint64(n))
	spec = protowire.AppendTag(spec, 2, protowire.BytesType)
	return protowire.AppendBytes(spec, value), nil
}

func checkName(field, v string) error {
	if len(v) > MaxName {
		return fmt.Errorf("%s: got %d bytes, want at most %d", field, len(v), MaxName)
	}
	if !utf8.ValidString(v) {
		return fmt.Errorf("%s: got %q, want valid UTF-8", field, v)
	}
	return nil
}

// appendString appends a string field, unless it is empty.
func appendString(dst []byte, number protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	return protowire.AppendString(dst, v)
}

// Rewriter renames the messages of one attempt. The zero value changes nothing.
type Rewriter struct {
	suffix []byte
	prefix [prefixSize]byte
	have   int    // bytes of the prefix; all of them = inside the body
	left   uint32 // bytes missing of the body
	grown  int
}

// Reset prepares the Rewriter for an attempt; nil means no renaming.
func (w *Rewriter) Reset(r *Rewrite) {
	*w = Rewriter{}
	if r != nil {
		w.suffix = r.suffix
	}
}

// Restarted returns a Rewriter that renames alike, at the start of another attempt.
func (w *Rewriter) Restarted() Rewriter { return Rewriter{suffix: w.suffix} }

// Changes reports whether Append does more than copy.
func (w *Rewriter) Changes() bool { return len(w.suffix) > 0 }

// Append appends p to dst, renamed. p is the next piece, of any size, of what a
// [Scanner] of the same scope has let out, from the request's first byte: such
// messages are uncompressed, and so far below 4 GiB that the corrected length
// fits. Up to four bytes of a length prefix are kept until the rest has come.
func (w *Rewriter) Append(dst, p []byte) []byte {
	if !w.Changes() {
		return append(dst, p...)
	}
	for len(p) > 0 {
		if w.have < prefixSize {
			n := copy(w.prefix[w.have:], p)
			p = p[n:]
			if w.have += n; w.have < prefixSize {
				break
			}
			w.left = binary.BigEndian.Uint32(w.prefix[1:])
			dst = append(dst, w.prefix[0])
			dst = binary.BigEndian.AppendUint32(dst, w.left+uint32(len(w.suffix)))
		}
		n := min(uint64(w.left), uint64(len(p)))
		dst = append(dst, p[:n]...)
		p = p[n:]
		if w.left -= uint32(n); w.left == 0 {
			dst = append(dst, w.suffix...)
			w.grown += len(w.suffix)
			w.have = 0
		}
	}
	return dst
}

// Grown is how many bytes have been added so far.
func (w *Rewriter) Grown() int { return w.grown }
