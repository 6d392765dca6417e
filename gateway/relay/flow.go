package relay

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pieceLen is what a waiting stream may send before it is another's turn.
const pieceLen = 16 << 10

// stuckQueues is how many times its limit a write queue may grow by frames that
// wait for no window, which is what HEADERS do, until the peer is taken for one
// that does not read.
const stuckQueues = 4

// stream is one side of a call on one connection.
type stream struct {
	conn *conn
	call *Call
	id   uint32

	// Guarded by conn.mu.
	sendWin    int64  // what the peer lets us send; may be negative
	queue      chunks // bytes that wait for a window
	endAfter   bool   // END_STREAM goes with the queue's last byte
	trailers   []hpack.HeaderField
	hasTrailer bool
	inReady    bool
	readyPrev  *stream
	readyNext  *stream
	sentEnd    bool // our END_STREAM is in the write queue
	gotEnd     bool // the peer's END_STREAM has arrived
	closed     bool // no longer in conn.streams
	recvWin    int64
	recvCredit int
	empties    int // empty DATA frames

	queued atomic.Int64 // bytes in queue, readable without conn.mu

	// Guarded by call.mu.
	held int // bytes received here that have not left on the other side
}

// progress says that bytes of a stream have left its queue.
type progress struct {
	stream *stream
	ended  bool // END_STREAM left with them
}

// --- sending; conn.mu is held by all of these

// writeData puts as much of p into the write queue as the windows permit and
// reports how much. end applies if all of p went. If p lies in a chunk, which is of then,
// it may be lent instead of being copied.
func (c *conn) writeData(w *worker, s *stream, p []byte, end bool, of *chunk) int {
	n := len(p)
	n = min(n, int(max(0, min(s.sendWin, c.sendWin))))
	if room := c.relay.cfg.WriteQueue - c.queued(); n > room {
		n = max(0, room)
	}
	end = end && n == len(p)
	if n == 0 && !end {
		return 0
	}
	s.sendWin -= int64(n)
	c.sendWin -= int64(n)
	b := c.outBuf()
	p = p[:n]
	lends := of != nil && c.gathers && n >= lendFrom && n >= len(of.b)/lendShare
	if c.tail.stream == s.id && !lends {
		// Extend the last frame.
		have := len(b.b) - c.tail.at - frameHeaderLen
		if k := min(len(p), c.peerFrame-have); k > 0 || len(p) == 0 {
			b.b = append(b.b, p[:k]...)
			setFrameLength(b.b[c.tail.at:], have+k)
			p = p[k:]
			if len(p) == 0 && end {
				b.b[c.tail.at+4] |= byte(http2.FlagDataEndStream)
				s.sentEnd = true
				c.tail.stream = 0
				w.touch(c)
				return n
			}
		}
	}
	for len(p) > 0 || (end && !s.sentEnd) {
		k := min(len(p), c.peerFrame)
		var f http2.Flags
		if end && k == len(p) {
			f = http2.FlagDataEndStream
			s.sentEnd = true
		}
		c.tail = tailFrame{s.id, len(b.b)}
		b.b = appendFrameHeader(b.b, k, http2.FrameData, f, s.id)
		if lends {
			b.lend(p[:k], of)
		} else {
			b.b = append(b.b, p[:k]...)
		}
		p = p[k:]
	}
	if s.sentEnd || lends {
		c.tail.stream = 0
	}
	w.touch(c)
	return n
}

// send forwards p, queueing what does not fit; of is the chunk that p lies in, if it does.
func (s *stream) send(w *worker, p []byte, end bool, of *chunk) {
	c := s.conn
	if s.closed || s.sentEnd {
		return
	}
	// While others are in line for the connection's window, nobody passes them.
	if s.queue.n == 0 && (c.ready.len() == 0 || len(p) == 0) {
		n := c.writeData(w, s, p, end, of)
		if p = p[n:]; len(p) == 0 && (!end || s.sentEnd) {
			return
		}
	}
	before := s.queue.charged
	s.queue.put(p, of, &c.relay.buffers)
	c.buffered += int64(s.queue.charged - before)
	s.queued.Store(int64(s.queue.n))
	s.endAfter = end
	c.enqueue(s)
	w.touch(c)
	if c.buffered > c.relay.cfg.BufferedPerConn || c.relay.buffers.over() {
		c.relay.evict()
	}
}

// sendTrailers sends the last HEADERS, behind undelivered DATA. It reports
// whether they are in the write queue.
func (s *stream) sendTrailers(w *worker, fields []hpack.HeaderField) bool {
	if s.closed || s.sentEnd {
		return true
	}
	if s.queue.n == 0 {
		s.conn.writeTrailers(w, s, fields)
		return true
	}
	s.trailers = append(s.trailers[:0], fields...)
	s.hasTrailer = true
	return false
}

func (c *conn) writeTrailers(w *worker, s *stream, fields []hpack.HeaderField) {
	c.beginBlock()
	for i := range fields {
		c.encode(fields[i])
	}
	c.endBlock(w, s.id, true)
	s.sentEnd = true
}

// enqueue puts a stream with something to send in line for its turn.
func (c *conn) enqueue(s *stream) {
	if !s.inReady && !s.closed && s.sendWin > 0 {
		c.ready.push(s)
	}
}

// schedule moves queued DATA into the write queue, round-robin, as far as the
// windows and the queue's limit permit.
func (c *conn) schedule(w *worker) {
	for c.ready.len() > 0 && c.sendWin > 0 && c.queued() < c.relay.cfg.WriteQueue {
		s := c.ready.head
		c.ready.remove(s)
		for sent := 0; sent < pieceLen && s.queue.n > 0; {
			p := s.queue.front()
			p = p[:min(len(p), pieceLen-sent)]
			last := len(p) == s.queue.n
			n := c.writeData(w, s, p, s.endAfter && last, s.queue.head)
			if n == 0 {
				break
			}
			before := s.queue.charged
			s.queue.pop(n, &c.relay.buffers)
			c.buffered -= int64(before - s.queue.charged)
			sent += n
		}
		if s.queue.n == 0 {
			if s.endAfter && !s.sentEnd {
				c.writeData(w, s, nil, true, nil)
			}
			if s.hasTrailer {
				c.writeTrailers(w, s, s.trailers)
				s.hasTrailer = false
			}
		} else {
			c.enqueue(s)
		}
		s.queued.Store(int64(s.queue.n))
		w.events = append(w.events, progress{s, s.sentEnd})
	}
}

// readyList is a queue of streams, linked through them so that one that ends
// leaves at once.
type readyList struct {
	head, tail *stream
	n          int
}

func (l *readyList) len() int { return l.n }

func (l *readyList) push(s *stream) {
	s.inReady = true
	s.readyPrev, s.readyNext = l.tail, nil
	if l.tail != nil {
		l.tail.readyNext = s
	} else {
		l.head = s
	}
	l.tail = s
	l.n++
}

func (l *readyList) remove(s *stream) {
	if !s.inReady {
		return
	}
	if s.readyPrev != nil {
		s.readyPrev.readyNext = s.readyNext
	} else {
		l.head = s.readyNext
	}
	if s.readyNext != nil {
		s.readyNext.readyPrev = s.readyPrev
	} else {
		l.tail = s.readyPrev
	}
	s.readyPrev, s.readyNext, s.inReady = nil, nil, false
	l.n--
}

// freeQueue drops undelivered DATA.
func (s *stream) freeQueue() {
	s.conn.ready.remove(s)
	s.conn.buffered -= int64(s.queue.charged)
	s.queue.free(&s.conn.relay.buffers)
	s.queued.Store(0)
	s.hasTrailer, s.endAfter, s.trailers = false, false, nil
}

// resetLocked ends a stream with RST_STREAM, whatever it still had to send.
func (s *stream) resetLocked(w *worker, code http2.ErrCode) {
	c := s.conn
	if s.closed {
		return
	}
	s.freeQueue()
	b := c.outBuf()
	b.b = appendRSTStream(b.b, s.id, code)
	c.appended(w)
	if !c.isClient() {
		c.recent.add(s.id)
	}
	s.removeLocked()
}

// removeLocked forgets a stream that has ended on both sides.
func (s *stream) removeLocked() {
	if !s.closed {
		s.freeQueue()
		s.closed = true
		delete(s.conn.streams, s.id)
	}
}

// --- header blocks; conn.mu is held

func (c *conn) beginBlock() { c.encBuf.b = c.encBuf.b[:0] }

// encode adds a field. Values that are new with every call (Sensitive) are
// written as literals without indexing, so that they do not evict what repeats.
func (c *conn) encode(f hpack.HeaderField) {
	if f.Sensitive && f.Name[0] != ':' && !c.resized {
		c.encBuf.b = appendLiteral(c.encBuf.b, f.Name, f.Value)
		return
	}
	var known bool
	if c.encBuf.b, known = c.memo.append(c.encBuf.b, &f); known {
		return
	}
	c.resized = false
	before := len(c.encBuf.b)
	_ = c.enc.WriteField(f) // encBuffer never fails
	c.memo.learn(&f, c.encBuf.b[before:])
}

// maxEncTable is the most this end uses of a peer's compression table, in bytes.
const maxEncTable = 4096

// setTableSize follows the peer's SETTINGS_HEADER_TABLE_SIZE.
func (c *conn) setTableSize(v uint32) {
	v = min(v, maxEncTable)
	c.enc.SetMaxDynamicTableSizeLimit(v)
	c.enc.SetMaxDynamicTableSize(v)
	c.memo = encMemo{} // entries may have been evicted
	c.resized = true   // the encoder has to say so first in the next block
}

// endBlock queues the encoded block, contiguous with its CONTINUATIONs.
func (c *conn) endBlock(w *worker, id uint32, end bool) {
	b, p := c.outBuf(), c.encBuf.b
	typ, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		k := min(len(p), c.peerFrame)
		if k == len(p) {
			flags |= http2.FlagHeadersEndHeaders // the same bit for CONTINUATION
		}
		b.b = appendFrameHeader(b.b, k, typ, flags, id)
		b.b = append(b.b, p[:k]...)
		if p = p[k:]; len(p) == 0 {
			break
		}
		typ, flags = http2.FrameContinuation, 0
	}
	if cap(c.encBuf.b) > 16<<10 {
		c.encBuf.b = nil // one huge block must not stay with an idle connection
	}
	c.appended(w)
}

// encodeTimeout adds grpc-timeout.
func (c *conn) encodeTimeout(d time.Duration) {
	const name = "grpc-timeout"
	var room [len("99999999H")]byte // a string would be allocated for every call
	value := appendTimeout(room[:0], d)
	if c.resized {
		c.encode(hpack.HeaderField{Name: name, Value: string(value), Sensitive: true})
		return
	}
	c.encBuf.b = appendLiteral(c.encBuf.b, name, value)
}

// appendLiteral encodes a field as a literal that is never indexed, name and
// value as plain strings (RFC 7541, 6.2.3): what arrived as never indexed has to
// stay so, and for what is merely volatile it does as well.
func appendLiteral[T string | []byte](b []byte, name string, value T) []byte {
	b = append(b, 0x10)
	b = appendHpackString(b, name)
	return appendHpackString(b, value)
}

func appendHpackString[T string | []byte](b []byte, s T) []byte {
	n := uint64(len(s))
	if n < 127 {
		b = append(b, byte(n))
		return append(b, s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	b = append(b, byte(n))
	return append(b, s...)
}

// --- receiving

func (c *conn) onData(w *worker, h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("DATA on stream 0")
	}
	data, ok := unpad(h, p)
	if !ok {
		return protocolError("DATA padded beyond its length")
	}
	end := h.flags.Has(http2.FlagDataEndStream)
	c.mu.Lock()
	if c.recvWin -= int64(h.length); c.recvWin < 0 {
		c.mu.Unlock()
		return &connError{http2.ErrCodeFlowControl, "more DATA than the connection's window"}
	}
	c.creditConn(w, h.length)
	s := c.streams[h.stream]
	if s == nil {
		defer c.mu.Unlock()
		return c.dataOnClosed(w, h.stream)
	}
	if s.gotEnd {
		s.resetLocked(w, http2.ErrCodeStreamClosed)
		c.mu.Unlock()
		s.call.streamFault(w, s, "DATA after END_STREAM")
		return nil
	}
	if s.recvWin -= int64(h.length); s.recvWin < 0 {
		s.resetLocked(w, http2.ErrCodeFlowControl)
		c.mu.Unlock()
		s.call.streamFault(w, s, "more DATA than the stream's window")
		return nil
	}
	if pad := h.length - len(data); pad > 0 {
		s.credit(w, pad)
	}
	s.gotEnd = end
	if len(data) == 0 && !end {
		if s.empties++; s.empties > c.relay.cfg.EmptyFrames {
			c.mu.Unlock()
			return &connError{http2.ErrCodeEnhanceYourCalm, "too many empty DATA frames"}
		}
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	s.call.data(w, s, data, end)
	return nil
}

// dataOnClosed answers DATA for a stream that is not open.
func (c *conn) dataOnClosed(w *worker, id uint32) error {
	if c.idle(id) {
		return protocolError(fmt.Sprintf("DATA on idle stream %d", id))
	}
	if c.isClient() || c.goAwaySent || c.recent.has(id) {
		return nil // it crossed our RST_STREAM
	}
	return c.resetUnknown(w, id, http2.ErrCodeStreamClosed)
}

// resetUnknown answers a frame on a stream that is closed or refused. It counts as
// a control frame, but keeps its place behind what the stream may still have in
// the write queue: an answer must not be overtaken by it. c.mu is held.
func (c *conn) resetUnknown(w *worker, id uint32, code http2.ErrCode) error {
	c.recent.add(id)
	b := c.outBuf()
	b.b = appendRSTStream(b.b, id, code)
	c.appended(w)
	return c.countControl()
}

// countControl counts a control frame that the peer has provoked. A peer that
// provokes them without reading is cut off. c.mu is held.
func (c *conn) countControl() error {
	c.provoked++
	if c.ctlN++; c.ctlN > c.relay.cfg.ControlQueue {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many control frames unanswered"}
	}
	return nil
}

// idle reports whether a stream was never opened.
func (c *conn) idle(id uint32) bool {
	return id > c.lastID || id%2 == 0
}

// creditConn gives received bytes back to the connection's window, half a window
// at a time. c.mu is held.
func (c *conn) creditConn(w *worker, n int) {
	c.recvCredit += n
	if c.recvCredit >= c.relay.cfg.ConnWindow/2 {
		c.giveConn(w)
	}
}

func (c *conn) giveConn(w *worker) {
	n := c.recvCredit
	c.recvCredit = 0
	c.recvWin += int64(n)
	c.ctl = appendWindowUpdate(c.ctl, 0, n)
	w.touch(c)
}

// credit gives bytes back to a stream's window. conn.mu is held.
func (s *stream) credit(w *worker, n int) {
	if s.closed || s.gotEnd {
		return
	}
	s.recvCredit += n
	if s.recvCredit < s.conn.relay.cfg.StreamWindow/4 {
		return
	}
	n, s.recvCredit = s.recvCredit, 0
	s.recvWin += int64(n)
	s.conn.ctl = appendWindowUpdate(s.conn.ctl, s.id, n)
	w.touch(s.conn)
}

func (c *conn) onWindowUpdate(w *worker, h frameHeader, p []byte) error {
	if len(p) != 4 {
		return &connError{http2.ErrCodeFrameSize, "WINDOW_UPDATE of a wrong length"}
	}
	n := int64(binary.BigEndian.Uint32(p) & maxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.stream == 0 {
		if n == 0 {
			return protocolError("WINDOW_UPDATE of 0")
		}
		if c.sendWin += n; c.sendWin > maxWindow {
			return &connError{http2.ErrCodeFlowControl, "connection window above 2^31-1"}
		}
		if c.ready.len() > 0 {
			w.touch(c)
		}
		return nil
	}
	s := c.streams[h.stream]
	if s == nil {
		if c.idle(h.stream) {
			return protocolError(fmt.Sprintf("WINDOW_UPDATE on idle stream %d", h.stream))
		}
		return nil
	}
	code := http2.ErrCodeProtocol
	if n > 0 {
		if s.sendWin += n; s.sendWin <= maxWindow {
			if s.queue.n > 0 {
				c.enqueue(s)
				w.touch(c)
			}
			return nil
		}
		code = http2.ErrCodeFlowControl
	}
	s.resetLocked(w, code)
	c.mu.Unlock()
	s.call.streamFault(w, s, "WINDOW_UPDATE out of range")
	c.mu.Lock()
	return nil
}

// setPeerInitial applies SETTINGS_INITIAL_WINDOW_SIZE to open streams, whose
// windows may become negative (RFC 9113, 6.9.2). c.mu is held.
func (c *conn) setPeerInitial(w *worker, v int64) error {
	delta := v - c.peerInitial
	c.peerInitial = v
	for _, s := range c.streams {
		if s.sendWin += delta; s.sendWin > maxWindow {
			return &connError{http2.ErrCodeFlowControl, "stream window above 2^31-1"}
		}
		if s.queue.n > 0 && s.sendWin > 0 {
			c.enqueue(s)
			w.touch(c)
		}
	}
	return nil
}
