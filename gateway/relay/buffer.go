package relay

import (
	"slices"
	"sync"
	"sync/atomic"
)

// budget counts the bytes held in chunks for one purpose over all connections.
type budget struct {
	used  atomic.Int64
	limit int64 // bytes
}

// over reports that nothing more is to be kept that could be done without.
func (b *budget) over() bool { return b.used.Load() > b.limit }

// full reports that there is no room even for what cannot be done without: as
// much again as the limit is set aside for that, so that requests kept for a second
// chance never keep others from their first.
func (b *budget) full() bool { return b.used.Load() > 2*b.limit }

// chunk sizes: most requests and answers fit in the small one, large tensors
// take the large one.
const (
	smallChunk = 8 << 10
	largeChunk = 64 << 10
)

type chunk struct {
	next    *chunk
	r, w    int
	b       []byte
	of      *chunk       // whose memory b is, if it is not its own; never written to then
	holders atomic.Int32 // its queue, and who else it has lent bytes to
}

var (
	borrowings  = sync.Pool{New: func() any { return new(chunk) }}
	smallChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, smallChunk)} }}
	largeChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, largeChunk)} }}
)

func newChunk(pool *sync.Pool) *chunk {
	c := pool.Get().(*chunk)
	c.holders.Store(1)
	return c
}

func (c *chunk) hold() { c.holders.Add(1) }

// release lets go of a chunk; the last holder gives it back. Its queue has to forget it
// before that.
func (c *chunk) release() {
	if c.holders.Add(-1) > 0 {
		return
	}
	c.next, c.r, c.w = nil, 0, 0
	switch {
	case c.of != nil:
		c.of.release()
		c.of, c.b = nil, nil
		borrowings.Put(c)
	case len(c.b) == largeChunk:
		largeChunks.Put(c)
	default:
		smallChunks.Put(c)
	}
}

// chunks is a queue of bytes in pooled pieces, charged to a budget by the memory
// it takes, not by the bytes in it: 1-byte writes share a chunk. The zero value
// is empty. Not safe for concurrent use.
type chunks struct {
	head, tail *chunk
	n          int // bytes in the queue
	charged    int // bytes of chunk memory charged to the budget
}

// append copies p to the end of the queue.
func (q *chunks) append(p []byte, b *budget) {
	q.n += len(p)
	for len(p) > 0 {
		t := q.tail
		if t == nil || t.w == len(t.b) || t.of != nil {
			if (t == nil || t.of != nil) && len(p) <= smallChunk {
				t = newChunk(&smallChunks)
			} else {
				t = newChunk(&largeChunks)
			}
			q.push(t, b)
		}
		c := copy(t.b[t.w:], p)
		t.w += c
		p = p[c:]
	}
}

// put puts p at the end, borrowed from the chunk that it lies in, if it lies in one and that pays.
func (q *chunks) put(p []byte, of *chunk, b *budget) {
	if of != nil && (len(p) >= lendFrom || q.continues(p, of)) {
		q.borrow(p, of, b)
	} else {
		q.append(p, b)
	}
}

// continues reports whether p lies in a chunk right behind what the queue has borrowed of it last.
func (q *chunks) continues(p []byte, of *chunk) bool {
	t := q.tail
	return t != nil && t.of == of && t.w == cap(of.b)-cap(p)
}

// borrow puts p, which lies in a chunk of another queue, at the end without copying it. It is
// charged as if the chunk were the queue's own, which it may be in the end: its first owner
// may let go of it.
func (q *chunks) borrow(p []byte, of *chunk, b *budget) {
	q.n += len(p)
	if q.continues(p, of) {
		q.tail.w += len(p)
		return
	}
	at := cap(of.b) - cap(p) // both end where the chunk's memory ends
	of.hold()
	t := newChunk(&borrowings)
	t.b, t.of, t.r, t.w = of.b, of, at, at+len(p)
	q.push(t, b)
}

// push puts a chunk at the end and charges it.
func (q *chunks) push(t *chunk, b *budget) {
	if q.tail == nil {
		q.head = t
	} else {
		q.tail.next = t
	}
	q.tail = t
	q.charged += len(t.b)
	b.used.Add(int64(len(t.b)))
}

// front returns the first contiguous bytes of the queue, nil when it is empty.
func (q *chunks) front() []byte {
	if q.head == nil {
		return nil
	}
	return q.head.b[q.head.r:q.head.w]
}

// pop drops the first n bytes, which front must have returned.
func (q *chunks) pop(n int, b *budget) {
	h := q.head
	h.r += n
	q.n -= n
	if h.r < h.w {
		return
	}
	if q.n == 0 || h.next != nil || h.w == len(h.b) {
		q.head = h.next
		if q.head == nil {
			q.tail = nil
		}
		q.charged -= len(h.b)
		b.used.Add(-int64(len(h.b)))
		h.release()
	}
}

// each calls f for every contiguous piece without consuming it.
func (q *chunks) each(f func([]byte)) {
	for c := q.head; c != nil; c = c.next {
		if c.r < c.w {
			f(c.b[c.r:c.w])
		}
	}
}

// end is the place behind the last byte.
func (q *chunks) end() chunkPlace {
	if q.tail == nil {
		return chunkPlace{}
	}
	return chunkPlace{q.tail, q.tail.w}
}

// chunkPlace is a place in a queue that nothing is taken from; the zero value is its start.
type chunkPlace struct {
	c  *chunk
	at int
}

// eachSince calls f for every contiguous piece behind a place, and the chunk it lies in.
func (q *chunks) eachSince(from chunkPlace, f func([]byte, *chunk)) {
	if from.c == nil {
		from.c = q.head
	}
	for c, at := from.c, from.at; c != nil; c, at = c.next, 0 {
		if at < c.w {
			f(c.b[at:c.w], c)
		}
	}
}

// appendTo appends all bytes to dst without consuming them.
func (q *chunks) appendTo(dst []byte) []byte {
	dst = slices.Grow(dst, q.n)
	q.each(func(p []byte) { dst = append(dst, p...) })
	return dst
}

// take moves everything from another queue, charged to theirs, to the end of q,
// charged to own.
func (q *chunks) take(from *chunks, theirs, own *budget) {
	if from.head == nil {
		return
	}
	if q.tail == nil {
		q.head = from.head
	} else {
		q.tail.next = from.head
	}
	q.tail = from.tail
	q.n += from.n
	q.charged += from.charged
	theirs.used.Add(-int64(from.charged))
	own.used.Add(int64(from.charged))
	*from = chunks{}
}

// free gives everything back.
func (q *chunks) free(b *budget) {
	for c := q.head; c != nil; {
		next := c.next
		c.release()
		c = next
	}
	b.used.Add(-int64(q.charged))
	*q = chunks{}
}
