package relay

import "sync"

// batch is what waits to be written to one connection: frames in memory of its own and,
// between them, payload that is lent by the chunks of a request that is kept for another
// attempt anyway. What is kept is so not copied a second time in order to be sent.
type batch struct {
	b       []byte
	lent    []lentPiece // by place
	lentLen int
}

// lentPiece is payload that stands before the byte at an offset of the batch's own memory.
type lentPiece struct {
	at int
	p  []byte
	of *chunk
}

// lendFrom is the length in bytes from which payload is lent: less is copied faster than
// it is accounted for.
const lendFrom = 2 << 10

// lendShare is the part of a chunk below which nothing is lent: what waits to be written
// keeps no more than that many times its length from being used again.
const lendShare = 4

// maxPooledWrite keeps one huge burst from living in the pool for ever.
const maxPooledWrite = 512 << 10

var batches = sync.Pool{New: func() any { return &batch{b: make([]byte, 0, 8<<10)} }}

func newBatch() *batch { return batches.Get().(*batch) }

// lend puts a piece of a chunk at the end, which may be freed meanwhile.
func (b *batch) lend(p []byte, of *chunk) {
	of.hold()
	b.lent = append(b.lent, lentPiece{len(b.b), p, of})
	b.lentLen += len(p)
}

// len is how many bytes wait; a nil batch has none.
func (b *batch) len() int {
	if b == nil {
		return 0
	}
	return len(b.b) + b.lentLen
}

// appendTo appends what is to be written, in order, to a list of pieces.
func (b *batch) appendTo(pieces [][]byte) [][]byte {
	if b == nil {
		return pieces
	}
	from := 0
	for i := range b.lent {
		if l := &b.lent[i]; l.at > from {
			pieces = append(pieces, b.b[from:l.at])
			from = l.at
		}
		pieces = append(pieces, b.lent[i].p)
	}
	if from < len(b.b) {
		pieces = append(pieces, b.b[from:])
	}
	return pieces
}

// release gives everything back once it is written, or never will be.
func (b *batch) release() {
	if b == nil {
		return
	}
	for i := range b.lent {
		b.lent[i].of.release()
	}
	clear(b.lent)
	b.lent, b.lentLen = b.lent[:0], 0
	if cap(b.b) <= maxPooledWrite {
		b.b = b.b[:0]
		batches.Put(b)
	}
}

// after returns what is left of pieces when n bytes of them are written. It changes them.
func after(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces[0] = nil
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}

// total is the length of pieces in bytes.
func total(pieces [][]byte) (n int) {
	for _, p := range pieces {
		n += len(p)
	}
	return n
}
