package relay

import (
	"errors"
	"io"
	"syscall"
)

// receive is what an event comes to if the connection has TLS: it reads once, has tls.Conn take as much of that apart
// as a turn may cost, and handles what comes of it. What is left waits for the next round, see waits.
func (t *tlsTransport) receive(p *polled, w *worker) (int, error) {
	in := &t.wire.in
	if !t.waits() {
		if err := in.readFrom(p.fd); err != nil {
			return 0, err
		}
	}
	in.left = recordsAtOnce
	return t.unseal(p.c, w)
}

// waits reports that the last turn has ended early.
func (t *tlsTransport) waits() bool { return t.wire.in.pos < t.wire.in.end }

// readFrom reads from a socket what is there; the error is EAGAIN if there is nothing. Whatever else ends the
// connection, tls.Conn is to find.
func (in *incoming) readFrom(fd int) error {
	in.buf = readBufs.Get().(*byteBuf)
	for {
		n, err := rawRead(fd, in.buf.b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			in.drop()
			return err
		case err != nil:
			in.err = err
		case n == 0:
			in.err = io.EOF
		default:
			in.end = n
		}
		return nil
	}
}

// unseal handles what tls.Conn makes of what has been read; it returns how much that was.
func (t *tlsTransport) unseal(c *conn, w *worker) (int, error) {
	in := &t.wire.in
	total, handled := 0, 0
	var end error
	for more := true; more; {
		space := c.readSpace()
		n, err := t.tc.Read(space)
		c.rend += n
		total += n
		end = err
		more = err == nil && (n == len(space) || !in.dry())
		if more && n < len(space) {
			continue // a longer piece is handled faster than two
		}
		if total > handled {
			handled = total
			if err := c.ending(); err != nil {
				return total, err
			}
			if err := c.received(w); err != nil {
				return total, protocolFault{err}
			}
		}
	}
	in.drop()
	c.restBuf()
	if t.backlog() { // an answer to new keys, or an alert
		c.mu.Lock()
		w.touch(c)
		c.mu.Unlock()
	}
	if errors.Is(end, errNothingYet) {
		end = nil
	}
	return total, end
}
