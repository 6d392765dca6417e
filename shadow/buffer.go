package shadow

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// smallBuffer is the least capacity of a request's buffer in bytes. Buffers of a
// kilobyte and less are not given back by grpc-go.
const smallBuffer = 8 << 10

// largeBuffer is the capacity above which a buffer is left to the garbage collector.
const largeBuffer = 1 << 20

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, smallBuffer); return &b }}

// lease is a copy's part of its mirror's memory. It is held by the call, and by the
// request's buffer: a connection that hangs keeps what it has not written.
type lease struct {
	mirror *Mirror
	size   int

	mu       sync.Mutex
	over     bool  // the call is
	returned bool  // the buffer is, or there was none
	conn     *conn // keeps the lease, whose buffer is out, for when it breaks
}

func newLease(m *Mirror, size int) *lease { return &lease{mirror: m, size: size, returned: true} }

// buffer makes a buffer of b, which goes back to the pool when nobody uses it.
func (l *lease) buffer(b *[]byte) mem.Buffer {
	l.returned = false
	return mem.NewBuffer(b, l)
}

// end says that the call is over. It went over c, if not nil, of which so many
// connections had ended when it began. If the buffer is still out, the connection's
// end or some time gives the memory back at the latest.
func (l *lease) end(c *conn, endings uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.conn = c; l.returned || c == nil || !c.keep(l, endings) {
		l.mirror.free(l.size)
	}
}

// Get implements [mem.BufferPool]; nobody asks it for one.
func (l *lease) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements [mem.BufferPool]: the buffer's last user is done with it.
func (l *lease) Put(b *[]byte) {
	if cap(*b) <= largeBuffer {
		*b = (*b)[:0]
		buffers.Put(b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.returned = true
	if l.over && l.conn.forget(l) {
		l.mirror.free(l.size)
	}
}
