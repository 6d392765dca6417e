package relay

import (
	"io"
	"sync"
	"sync/atomic"
	"syscall"
)

// readChunk is how much a reader takes at once: a few full frames, so that one
// read and one flush serve many calls.
const readChunk = 64 << 10

// heldReadChunk is the size for transports whose reader keeps its buffer while it
// waits, such as TLS, which moreover hands out one record of 16 KiB at a time. It
// holds the largest frame and a record.
const heldReadChunk = 36 << 10

// byteBuf is a buffer that travels through a pool; the pointer keeps the pool from
// allocating a slice header at every Put.
type byteBuf struct{ b []byte }

var (
	readBufs     = sync.Pool{New: func() any { return &byteBuf{make([]byte, readChunk)} }}
	heldReadBufs = sync.Pool{New: func() any { return &byteBuf{make([]byte, heldReadChunk)} }}
)

// longReadChunk is what a reader takes at once while its peer sends faster than readChunk
// by readChunk: fewer system calls, fewer frames that are cut in two, and longer writes.
const longReadChunk = 256 << 10

// longFrame is the mean length of frames from which long reads pay, in bytes. Many small ones would
// keep a loop from its other connections for milliseconds.
const longFrame = 1 << 10

// maxLongReads bounds the memory of long reads over all connections: with a goroutine for each they
// last from a read that filled its buffer to one that finds nothing.
const maxLongReads = 64

// longReads lends out long buffers, none if too many are out.
type longReads struct {
	pool sync.Pool
	out  atomic.Int32
}

func (l *longReads) get() *byteBuf {
	if l.out.Add(1) > maxLongReads {
		l.out.Add(-1)
		return nil
	}
	if b, ok := l.pool.Get().(*byteBuf); ok {
		return b
	}
	return &byteBuf{make([]byte, longReadChunk)}
}

func (l *longReads) put(b *byteBuf) {
	l.out.Add(-1)
	l.pool.Put(b)
}

// readSpace returns where the next bytes go.
func (c *conn) readSpace() []byte {
	if c.rbuf == nil {
		c.rbuf = c.rpool.Get().(*byteBuf)
		c.rpos, c.rend = 0, 0
	}
	if c.rfull && len(c.rbuf.b) == readChunk {
		if long := c.relay.longReads.get(); long != nil {
			c.moveTo(long)
		}
	}
	return c.rbuf.b[c.rend:]
}

// moveTo goes on reading into another buffer.
func (c *conn) moveTo(b *byteBuf) {
	c.rend = copy(b.b, c.rbuf.b[c.rpos:c.rend])
	c.rpos = 0
	c.dropBuf()
	c.rbuf = b
}

// dropBuf gives the read buffer back.
func (c *conn) dropBuf() {
	if len(c.rbuf.b) == longReadChunk {
		c.relay.longReads.put(c.rbuf)
	} else {
		c.rpool.Put(c.rbuf)
	}
	c.rbuf = nil
}

// readNothing is told that there is nothing to read.
func (c *conn) readNothing() {
	c.rfull = false
	c.restBuf()
}

// restBuf lets a connection that waits go without a buffer, or with a short one for the frame
// that has not yet arrived whole.
func (c *conn) restBuf() {
	switch {
	case c.rbuf == nil:
	case c.rpos == c.rend:
		c.dropBuf()
	case len(c.rbuf.b) == longReadChunk:
		c.moveTo(c.rpool.Get().(*byteBuf))
	}
}

// readFrom reads from a socket what is there; the error is EAGAIN if there is nothing.
func (c *conn) readFrom(fd int) error {
	buf := c.readSpace()
	for {
		n, err := rawRead(fd, buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.readNothing()
			return err
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		}
		c.readGot(n)
		return nil
	}
}

func (c *conn) readGot(n int) {
	c.rend += n
	c.rfull = c.rend == len(c.rbuf.b)
}
