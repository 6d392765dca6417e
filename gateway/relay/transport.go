package relay

import (
	"net"
	"syscall"
)

// transport moves a connection's bytes. One goroutine or loop reads; writes are
// serialised by the connection's owner flag.
type transport interface {
	// read waits for bytes and appends them to c's read buffer, which it takes from
	// the pool only once there is something to read.
	read(c *conn) error
	// tryWrite writes what can be written without blocking, piece after piece. It
	// reports how many bytes it took; with full set, something is left to be written
	// by write, in its own buffers or in the rest of the pieces.
	tryWrite(pieces [][]byte) (n int, full bool, err error)
	// write blocks until pieces, and all that was taken before, are written.
	write(pieces [][]byte) error
	// backlog reports bytes that wait inside the transport.
	backlog() bool
	// gathers reports that many pieces are written as fast as one.
	gathers() bool
	closeWrite()
	close()
}

// fdTransport is a connection with a file descriptor; its bytes are moved as they are.
type fdTransport struct {
	nc  net.Conn
	raw syscall.RawConn

	// The callbacks are built once; their arguments and results travel in the
	// fields below, so that no system call allocates a closure.
	readFn  func(uintptr) bool
	readC   *conn
	readErr error

	gatherer
	tryFn   func(uintptr) bool
	writeFn func(uintptr) bool
}

// gatherer writes pieces to a socket, as far as that goes at once.
type gatherer struct {
	rest    [][]byte // still to be written, from skip on in the first piece
	skip    int
	written int
	err     error
}

func (g *gatherer) begin(pieces [][]byte) { *g = gatherer{rest: pieces} }

// write reports whether that was all, or nothing more can be written.
func (g *gatherer) write(fd int) (done bool) {
	for len(g.rest) > 0 {
		n, err := rawWritev(fd, g.rest, g.skip)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			g.err = err
			return true
		}
		g.written += n
		for g.skip += n; len(g.rest) > 0 && g.skip >= len(g.rest[0]); g.rest = g.rest[1:] {
			g.skip -= len(g.rest[0])
		}
	}
	return true
}

// newTransport picks the transport for an established connection that a goroutine of its own
// reads.
func newTransport(nc net.Conn) (transport, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return &pipeTransport{nc: nc}, nil
	}
	return newFDTransport(nc, sc)
}

func newFDTransport(nc net.Conn, sc syscall.Conn) (*fdTransport, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	t := &fdTransport{nc: nc, raw: raw}
	t.readFn, t.tryFn, t.writeFn = t.doRead, t.doTry, t.doWrite
	return t, nil
}

func (t *fdTransport) read(c *conn) error {
	t.readC = c
	err := t.raw.Read(t.readFn)
	if err == nil {
		err = t.readErr
	}
	return err
}

func (t *fdTransport) doRead(fd uintptr) bool {
	t.readErr = t.readC.readFrom(int(fd))
	return t.readErr != syscall.EAGAIN
}

func (t *fdTransport) tryWrite(pieces [][]byte) (int, bool, error) {
	err := t.send(pieces, t.tryFn)
	return t.written, t.written < total(pieces), err
}

func (t *fdTransport) write(pieces [][]byte) error { return t.send(pieces, t.writeFn) }

func (t *fdTransport) send(pieces [][]byte, f func(uintptr) bool) error {
	t.begin(pieces)
	err := t.raw.Write(f)
	t.rest = nil
	if err == nil {
		err = t.err
	}
	return err
}

// doTry always reports completion: the writer goroutine waits for the socket,
// never a reader.
func (t *fdTransport) doTry(fd uintptr) bool {
	t.gatherer.write(int(fd))
	return true
}

func (t *fdTransport) doWrite(fd uintptr) bool { return t.gatherer.write(int(fd)) }

func (t *fdTransport) backlog() bool { return false }
func (t *fdTransport) gathers() bool { return true }

func (t *fdTransport) closeWrite() {
	if cw, ok := t.nc.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // the connection is going away whatever this says
	}
}

func (t *fdTransport) close() { _ = t.nc.Close() }

// pipeTransport is an in-memory connection: every write may block, so all of
// them are the writer's.
type pipeTransport struct{ nc net.Conn }

func (t *pipeTransport) read(c *conn) error {
	n, err := t.nc.Read(c.readSpace())
	if n > 0 {
		c.readGot(n)
		return nil
	}
	c.readNothing()
	return err
}

func (t *pipeTransport) tryWrite([][]byte) (int, bool, error) { return 0, true, nil }

func (t *pipeTransport) write(pieces [][]byte) error {
	for _, p := range pieces {
		if _, err := t.nc.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (t *pipeTransport) backlog() bool { return false }
func (t *pipeTransport) gathers() bool { return false }
func (t *pipeTransport) closeWrite()   {}
func (t *pipeTransport) close()        { _ = t.nc.Close() }
