package relay

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"sync"
)

// tlsPiece is how much plaintext is encrypted before the socket is asked again.
const tlsPiece = 64 << 10

// maxCipherBacklog bounds the encrypted bytes that wait for the socket: a few
// pieces, or what a peer provokes that asks for key updates and reads nothing.
const maxCipherBacklog = 1 << 20

var errCipherBacklog = errors.New("relay: peer provokes TLS messages and does not read them")

// tlsTransport encrypts when the connection is flushed, and decrypts when its reader is told that
// there is something to read. tls.Conn knows of none of this: see wire.
type tlsTransport struct {
	tc   *tls.Conn
	wire *wire
	t    transport // of the encrypted bytes
	one  [1][]byte // what is written now; who writes has it
}

// wire is the net.Conn beneath a tls.Conn, which wants one that blocks. Until the handshake is over it
// passes everything through. From then on writes are queued, since tls.Conn.Read may write, too, and must
// not wait for a socket; and if a loop reads the connection, tls.Conn reads what the loop has read, and is
// told that there is nothing yet when that is used up.
type wire struct {
	net.Conn
	in incoming

	mu      sync.Mutex
	queuing bool
	out     *byteBuf // from cipherBufs; nil if nothing waits
	err     error
}

// newTLSTransport takes over a connection whose handshake is over.
func (r *Relay) newTLSTransport(tc *tls.Conn, w *wire) (transport, error) {
	t, err := r.plain(w.Conn)
	if err != nil {
		return nil, err
	}
	tt := &tlsTransport{tc: tc, wire: w, t: t}
	if p := looped(tt); p != nil {
		p.tls, w.in.looped, w.in.held = tt, true, true
	}
	w.mu.Lock()
	w.queuing = true
	w.mu.Unlock()
	return tt, nil
}

// looped returns what the loop has of a connection that it reads; nil if a goroutine does.
func looped(t transport) *polled {
	if s, ok := t.(*tlsTransport); ok {
		t = s.t
	}
	p, _ := t.(*polled)
	return p
}

// --- reading

// recordsAtOnce is how many records of a connection a loop takes before others have their turn: those that
// change keys take some microseconds each, whatever their length.
const recordsAtOnce = 128

// incoming is what a loop has read of a TLS connection and tls.Conn has not yet taken. It belongs to who
// reads the connection.
//
// tls.Conn gets no more than one record at a time. So it never holds one that it has not
// handed out, of which no event would tell, and its buffer need not hold more than one; and
// records can be counted, as those must be of which nothing comes that flow control would bound.
type incoming struct {
	looped   bool
	held     bool     // tls.Conn may hold more, which the end of the handshake came with
	buf      *byteBuf // from readBufs; nil if there is nothing
	pos, end int      // buf.b[pos:end] is still to be taken
	err      error    // of the socket, behind those bytes
	at       recordCursor
	left     int // records that may still be begun in this turn
}

// nothingYet ends a read of tls.Conn that a loop goes on with when there is more. That it is temporary is
// what keeps tls.Conn from remembering it, as it does other errors.
type nothingYet struct{}

func (nothingYet) Error() string   { return "relay: nothing to be read yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

var errNothingYet net.Error = nothingYet{}

// Read implements net.Conn for tls.Conn.
func (w *wire) Read(p []byte) (int, error) {
	in := &w.in
	if !in.looped {
		n, err := w.Conn.Read(p)
		for b := p[:n]; len(b) > 0; b = b[in.at.pass(b):] {
		}
		return n, err
	}
	b := in.rest()
	switch {
	case len(b) == 0 && in.err != nil:
		return 0, in.err
	case len(b) == 0:
		in.held = false
		return 0, errNothingYet
	case !in.at.between():
	case in.left == 0:
		return 0, errNothingYet
	default:
		in.left--
	}
	n := copy(p, b[:in.at.pass(b[:min(len(b), len(p))])])
	in.pos += n
	return n, nil
}

func (in *incoming) rest() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.b[in.pos:in.end]
}

// dry reports that tls.Conn has had everything, and nothing that is not whole.
func (in *incoming) dry() bool {
	return in.pos == in.end && in.err == nil && in.at.between() && !in.held
}

// drop gives the buffer back once it is used up.
func (in *incoming) drop() {
	if in.buf != nil && in.pos == in.end {
		readBufs.Put(in.buf)
		in.buf, in.pos, in.end = nil, 0, 0
	}
}

// recordHeaderLen is the length of what stands before each record: its type, a version, and its length in
// two bytes, in every version of TLS.
const recordHeaderLen = 5

// recordCursor is a place in a stream of records.
type recordCursor struct {
	header [recordHeaderLen]byte
	have   int // bytes of the header that have passed
	left   int // bytes of the record that have not
}

// between reports a place between two records.
func (r *recordCursor) between() bool { return r.have == 0 }

// pass moves on by b, to the end of a record at most; it returns by how much.
func (r *recordCursor) pass(b []byte) int {
	n := 0
	if r.have < len(r.header) {
		n = copy(r.header[r.have:], b)
		if r.have += n; r.have < len(r.header) {
			return n
		}
		r.left = int(binary.BigEndian.Uint16(r.header[3:]))
	}
	k := min(r.left, len(b)-n)
	if r.left -= k; r.left == 0 {
		r.have = 0
	}
	return n + k
}

// read is for a goroutine that reads the connection, and for one that lingers: then nobody looks at what is read.
func (t *tlsTransport) read(c *conn) error {
	if t.wire.in.looped {
		return t.t.read(c)
	}
	n, err := t.tc.Read(c.readSpace())
	if n > 0 {
		c.readGot(n)
		return nil
	}
	c.readNothing()
	return err
}

// --- writing

var cipherBufs = sync.Pool{New: func() any { return &byteBuf{make([]byte, 0, tlsPiece+4<<10)} }}

// Write implements net.Conn for tls.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.queuing {
		return w.Conn.Write(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.out == nil {
		w.out = cipherBufs.Get().(*byteBuf)
	}
	if len(w.out.b)+len(p) > maxCipherBacklog {
		w.err = errCipherBacklog
		return 0, w.err
	}
	w.out.b = append(w.out.b, p...)
	return len(p), nil
}

// take returns what is queued, nil if there is nothing.
func (w *wire) take() *byteBuf {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.out
	w.out = nil
	return b
}

// putBack puts what follows the first n bytes in front of what came since.
func (w *wire) putBack(b *byteBuf, n int) {
	b.b = append(b.b[:0], b.b[n:]...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out != nil {
		b.b = append(b.b, w.out.b...)
		putCipherBuf(w.out)
	}
	w.out = b
}

func putCipherBuf(b *byteBuf) {
	if cap(b.b) <= 2*tlsPiece {
		b.b = b.b[:0]
		cipherBufs.Put(b)
	}
}

// seal encrypts what follows the first skip bytes of pieces, no more than tlsPiece of it, and returns how
// much that was.
func (t *tlsTransport) seal(pieces [][]byte, skip int) (n int, err error) {
	for _, b := range pieces {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b = b[skip:]
		skip = 0
		if b = b[:min(len(b), tlsPiece-n)]; len(b) == 0 {
			break
		}
		if _, err := t.tc.Write(b); err != nil {
			return n, err
		}
		n += len(b)
	}
	return n, nil
}

// pump writes queued ciphertext without blocking; it reports whether all went.
func (t *tlsTransport) pump() (bool, error) {
	b := t.wire.take()
	if b == nil {
		return true, nil
	}
	t.one[0] = b.b
	n, _, err := t.t.tryWrite(t.one[:])
	t.one[0] = nil
	if n < len(b.b) {
		t.wire.putBack(b, n)
		return false, err
	}
	putCipherBuf(b)
	return true, err
}

func (t *tlsTransport) tryWrite(pieces [][]byte) (int, bool, error) {
	n := 0
	for {
		if done, err := t.pump(); !done || err != nil {
			return n, !done, err
		}
		k, err := t.seal(pieces, n)
		if n += k; k == 0 || err != nil {
			return n, false, err
		}
	}
}

func (t *tlsTransport) write(pieces [][]byte) error {
	for n := 0; ; {
		if err := t.drain(); err != nil {
			return err
		}
		k, err := t.seal(pieces, n)
		if n += k; k == 0 || err != nil {
			return err
		}
	}
}

// drain writes the queued ciphertext, waiting for the socket.
func (t *tlsTransport) drain() error {
	b := t.wire.take()
	if b == nil {
		return nil
	}
	defer putCipherBuf(b)
	t.one[0] = b.b
	defer func() { t.one[0] = nil }()
	return t.t.write(t.one[:])
}

func (t *tlsTransport) backlog() bool {
	t.wire.mu.Lock()
	defer t.wire.mu.Unlock()
	return t.wire.out != nil
}

func (t *tlsTransport) gathers() bool { return false }

func (t *tlsTransport) closeWrite() { t.t.closeWrite() }
func (t *tlsTransport) close()      { t.t.close() }
