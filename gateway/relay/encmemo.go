package relay

import (
	"unsafe"

	"golang.org/x/net/http2/hpack"
)

// encMemo remembers how fields were encoded on a connection, as long as its
// compression table stays the same. In steady state nearly every field is an
// index into that table; the encoder finds it by hashing name and value, up to
// four times. Fields that repeat are mostly the very same strings: they come
// from the other connection's decoding table or from configuration. So the memo
// compares pointers, which is sound since it holds the strings, and misses for
// equal text elsewhere cost nothing but the search.
type encMemo struct {
	sets [memoSets][2]encEntry
}

type encEntry struct {
	name, value string
	n           uint8
	b           [3]byte
}

// memoSets is how many sets of two places a memo of fields has.
const memoSets = 32

// memoSet is where a field belongs in a memo.
func memoSet(f *hpack.HeaderField) uint64 {
	p := uintptr(unsafe.Pointer(unsafe.StringData(f.Value)))
	q := uintptr(unsafe.Pointer(unsafe.StringData(f.Name)))
	h := uint64(p^q<<1^uintptr(len(f.Value))) * 0x9E3779B97F4A7C15 // Fibonacci hashing
	return h >> 59
}

// sameString reports whether two strings are the very same memory.
func sameString(a, b string) bool {
	return unsafe.StringData(a) == unsafe.StringData(b) && len(a) == len(b)
}

// set returns the two places where f may be.
func (m *encMemo) set(f *hpack.HeaderField) *[2]encEntry { return &m.sets[memoSet(f)] }

func (e *encEntry) is(f *hpack.HeaderField) bool {
	return sameString(e.value, f.Value) && sameString(e.name, f.Name) && e.n > 0
}

// append appends the remembered encoding of f.
func (m *encMemo) append(b []byte, f *hpack.HeaderField) ([]byte, bool) {
	s := m.set(f)
	for i := range s {
		if e := &s[i]; e.is(f) {
			return append(b, e.b[:e.n]...), true
		}
	}
	return b, false
}

// learn is told how f was just encoded. A field that is not a plain index, which
// the first bit tells, has changed the table: all that was remembered is void.
func (m *encMemo) learn(f *hpack.HeaderField, encoded []byte) {
	if len(encoded) == 0 || encoded[0]&0x80 == 0 {
		*m = encMemo{}
		return
	}
	s := m.set(f)
	if len(encoded) > len(s[0].b) {
		return
	}
	s[1] = s[0]
	s[0].name, s[0].value, s[0].n = f.Name, f.Value, uint8(copy(s[0].b[:], encoded))
}
