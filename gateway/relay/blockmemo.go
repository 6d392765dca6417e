package relay

import "bytes"

// blockMemo remembers header blocks that consist of nothing but indexes, with what they say. Such
// a block changes no compression table, so that the same bytes say the same until another kind
// of block comes: that may change a table, and everything is forgotten. Answers are mostly
// blocks like these, and so are the requests of clients that set no deadline. The zero value
// knows none.
type blockMemo struct {
	known [4]knownBlock
	next  int // the place that is taken by the next new one
}

type knownBlock struct {
	block []byte
	said  decoded
	again bool // it has come a second time, and said holds: by then its fields are the shared ones
}

// maxKnownBlock is the longest block that is remembered, in bytes: there is about one for each
// field.
const maxKnownBlock = 32

// onlyIndexes reports whether a block has no field but indexed ones (RFC 7541, 6.1).
func onlyIndexes(p []byte) bool {
	for i := 0; i < len(p); i++ {
		if p[i]&0x80 == 0 {
			return false
		}
		if p[i] == 0xff { // the index goes on (5.1)
			for i++; i < len(p) && p[i]&0x80 != 0; i++ {
			}
		}
	}
	return true
}

// recall puts into l what p said the last time; it reports whether that is known.
func (m *blockMemo) recall(p []byte, l *fieldList) bool {
	for i := range m.known {
		k := &m.known[i]
		if !k.again || !bytes.Equal(k.block, p) {
			continue
		}
		own := l.fields[:0] // callers may change it
		own = append(own, k.said.fields...)
		l.decoded = k.said
		l.fields = own
		return true
	}
	return false
}

// learn is told what p, which is not known, has just said.
func (m *blockMemo) learn(p []byte, l *fieldList) {
	if !onlyIndexes(p) {
		m.forget()
		return
	}
	if len(p) > maxKnownBlock {
		return
	}
	for i := range m.known {
		if k := &m.known[i]; bytes.Equal(k.block, p) && len(p) > 0 {
			own := k.said.fields[:0]
			own = append(own, l.fields...)
			k.said, k.again = l.decoded, true
			k.said.fields = own
			return
		}
	}
	k := &m.known[m.next]
	m.next = (m.next + 1) % len(m.known)
	k.block, k.again = append(k.block[:0], p...), false
}

func (m *blockMemo) forget() {
	for i := range m.known {
		k := &m.known[i]
		k.block, k.again = k.block[:0], false
		clear(k.said.fields)
	}
}
