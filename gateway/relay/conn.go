package relay

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is one HTTP/2 connection, downstream or upstream.
type conn struct {
	relay *Relay
	t     transport
	side  side   // what this side does with what it receives
	name  string // peer address, for logs

	// Owned by who reads: its goroutine, or its loop and, once that has let go, its goroutine.
	rpool     *sync.Pool
	rbuf      *byteBuf // from rpool; nil while nothing is buffered
	rpos      int      // rbuf.b[rpos:rend] is not yet processed
	rend      int
	rfull     bool // the last read filled the buffer: there may be much more
	dec       *hpack.Decoder
	fields    fieldList
	blocks    blockMemo
	block     headerBlock
	preface   bool // a client's connection preface has not yet arrived
	seenFirst bool // the peer's SETTINGS have arrived; written under mu
	provoked  int  // control frames that the peer has provoked since the last flush

	partial atomic.Int64 // since when a frame or header block is incomplete, see Relay.since; 0 if none

	mu      sync.Mutex
	streams map[uint32]*stream
	closed  bool
	err     error // why
	ctl     []byte
	ctlN    int // unwritten control frames that the peer has provoked
	out     *batch
	pieces  [][]byte // of the batch that is being written; whoever writes has it
	gathers bool     // lent payload is written as fast as other
	tail    tailFrame
	dirty   bool // in some worker's list of connections to flush
	writing bool // somebody is writing; others only append
	taken   int  // bytes that the writer has taken and not yet written
	stuck   time.Time
	enc     *hpack.Encoder
	encBuf  encBuffer
	memo    encMemo
	resized bool // the next block begins with a change of the table's size

	sendWin     int64 // of the connection
	peerInitial int64 // the peer's SETTINGS_INITIAL_WINDOW_SIZE
	peerFrame   int   // the peer's SETTINGS_MAX_FRAME_SIZE, at most maxFrameLen
	ready       readyList
	buffered    int64 // chunk memory of all send queues here
	recvWin     int64 // what the peer may still send on the connection
	recvCredit  int   // bytes received and not yet given back

	goAwaySent bool
	noNew      bool      // upstream: takes no more streams
	lastID     uint32    // highest stream id the peer (downstream) or we (upstream) opened
	closing    bool      // the last frame is queued: flush, then close
	finished   time.Time // when that was done on this side
	recent     recentResets
}

// side is what differs between downstream and upstream connections. All methods
// run on the connection's reader.
type side interface {
	headers(w *worker, c *conn, id uint32, end bool, f *fieldList) error
	reset(w *worker, c *conn, s *stream, code http2.ErrCode) error
	goAway(w *worker, c *conn, last uint32, code http2.ErrCode)
	settings(w *worker, c *conn, first bool, maxStreams uint32, set bool)
	gone(w *worker, c *conn, streams []*stream)
}

// connError ends a connection with GOAWAY.
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e *connError) Error() string { return fmt.Sprintf("%v: %s", e.code, e.reason) }

func protocolError(reason string) error { return &connError{http2.ErrCodeProtocol, reason} }

// tailFrame remembers the last frame in out while it is DATA without END_STREAM,
// so that small pieces of one stream share a frame.
type tailFrame struct {
	stream uint32 // 0: none
	at     int    // offset of its header in out
}

func newConn(r *Relay, t transport, s side, name string) *conn {
	c := &conn{
		relay: r, t: t, side: s, name: name,
		streams:     make(map[uint32]*stream),
		sendWin:     initialWindow,
		peerInitial: initialWindow,
		peerFrame:   maxFrameLen,
		recvWin:     int64(r.cfg.ConnWindow),
	}
	c.gathers = t.gathers()
	c.rpool = &heldReadBufs
	if c.gathers || looped(t) != nil {
		c.rpool = &readBufs
	}
	c.enc = hpack.NewEncoder(&c.encBuf)
	c.fields.maxBytes, c.fields.maxFields = r.cfg.MaxHeaderBytes, r.cfg.MaxHeaderFields
	c.dec = hpack.NewDecoder(4096, c.fields.add)
	return c
}

// encBuffer collects what the HPACK encoder writes.
type encBuffer struct{ b []byte }

func (e *encBuffer) Write(p []byte) (int, error) {
	e.b = append(e.b, p...)
	return len(p), nil
}

// --- reading

// readLoop reads until the connection ends. It owns w.
func (c *conn) readLoop(w *worker) {
	if p := looped(c.t); p != nil {
		p.serve(c, w)
		return
	}
	for {
		if len(w.touched) > 0 {
			// Readers that are ready append to the same queues first, and whoever
			// comes back first writes for all: one system call instead of many.
			runtime.Gosched()
		}
		w.flush()
		err := c.t.read(c)
		w.now = time.Now() // also for what ends with the connection
		if err != nil {
			c.lost(w, err)
			break
		}
		if err := c.received(w); err != nil {
			c.die(w, err)
			break
		}
		if c.t.backlog() {
			c.mu.Lock()
			w.touch(c)
			c.mu.Unlock()
		}
	}
	if c.rbuf != nil {
		c.dropBuf()
	}
	w.flush()
}

// received handles what was read.
func (c *conn) received(w *worker) error {
	if c.preface {
		got := c.rbuf.b[:c.rend]
		n := min(len(got), len(http2.ClientPreface))
		if string(got[:n]) != http2.ClientPreface[:n] {
			return protocolError("no HTTP/2 connection preface")
		}
		if n < len(http2.ClientPreface) {
			return nil
		}
		c.rpos, c.preface = n, false
	}
	return c.process(w)
}

// process handles every complete frame in the read buffer.
func (c *conn) process(w *worker) error {
	b := c.rbuf.b[c.rpos:c.rend]
	frames, handled := 0, len(b)
	for len(b) >= frameHeaderLen {
		h := parseFrameHeader(b)
		if h.length > maxFrameLen {
			return &connError{http2.ErrCodeFrameSize, fmt.Sprintf("frame of %d bytes, the limit is %d", h.length, maxFrameLen)}
		}
		if len(b) < frameHeaderLen+h.length {
			break
		}
		if err := c.frame(w, h, b[frameHeaderLen:frameHeaderLen+h.length]); err != nil {
			return err
		}
		b = b[frameHeaderLen+h.length:]
		frames++
		if c.provoked > c.relay.cfg.ControlQueue/2 {
			w.flush() // one chunk may hold thousands of them, and the peer may well read
			c.provoked = 0
		}
	}
	if len(b) == 0 {
		c.rpos, c.rend = 0, 0
	} else {
		c.rend = copy(c.rbuf.b, b)
		c.rpos = 0
	}
	if frames*longFrame > handled-len(b) {
		c.rfull = false // many small frames are work enough for one turn
	}
	since := c.partial.Load()
	switch {
	case !c.seenFirst:
		if since == 0 {
			c.partial.Store(c.relay.since(w.now))
		}
	case c.block.open:
		c.partial.Store(c.block.since)
	case len(b) == 0:
		if since != 0 {
			c.partial.Store(0)
		}
	case since == 0 || frames > 0:
		c.partial.Store(c.relay.since(w.now))
	}
	return nil
}

func (c *conn) frame(w *worker, h frameHeader, p []byte) error {
	if c.block.open && (h.typ != http2.FrameContinuation || h.stream != c.block.stream) {
		return protocolError(fmt.Sprintf("%v on stream %d inside a header block", h.typ, h.stream))
	}
	if !c.seenFirst && h.typ != http2.FrameSettings {
		return protocolError(fmt.Sprintf("first frame is %v, want SETTINGS", h.typ))
	}
	switch h.typ {
	case http2.FrameData:
		return c.onData(w, h, p)
	case http2.FrameHeaders:
		return c.onHeaders(w, h, p)
	case http2.FrameContinuation:
		return c.onContinuation(w, h, p)
	case http2.FrameWindowUpdate:
		return c.onWindowUpdate(w, h, p)
	case http2.FrameRSTStream:
		return c.onReset(w, h, p)
	case http2.FrameSettings:
		return c.onSettings(w, h, p)
	case http2.FramePing:
		return c.onPing(w, h, p)
	case http2.FrameGoAway:
		return c.onGoAway(w, h, p)
	case http2.FramePriority:
		return c.onPriority(w, h, p)
	case http2.FramePushPromise:
		return protocolError("PUSH_PROMISE, and push is disabled")
	}
	return nil // unknown types are ignored (RFC 9113, 4.1)
}

// --- writing

// outBuf returns the write queue; c.mu is held.
func (c *conn) outBuf() *batch {
	if c.out == nil {
		c.out = newBatch()
	}
	return c.out
}

// appended must follow whatever put other bytes than DATA into out.
func (c *conn) appended(w *worker) {
	c.tail.stream = 0
	w.touch(c)
}

// control queues a frame that may pass before DATA. c.mu is held.
func (c *conn) control(w *worker, f func([]byte) []byte) error {
	c.ctl = f(c.ctl)
	w.touch(c)
	return c.countControl()
}

// queued is how many bytes wait to be written, those that the writer has taken
// included: with a peer that does not read, they wait as long as the others.
func (c *conn) queued() int { return c.out.len() + c.taken }

// flush writes what can be written without blocking and starts the writer for
// the rest. The caller holds no lock.
func (c *conn) flush(w *worker) {
	c.mu.Lock()
	if c.writing || c.closed {
		c.dirty = false // who writes looks again before giving up ownership
		c.mu.Unlock()
		return
	}
	c.writing = true // and dirty stays set: this loop sees what others append
	for {
		ctl, out := c.takeBatch(w)
		if len(ctl) == 0 && out == nil && !c.t.backlog() {
			break
		}
		c.mu.Unlock()
		pieces := c.gather(ctl, out)
		n, full, err := c.t.tryWrite(pieces)
		if err != nil {
			out.release()
			c.mu.Lock()
			c.writing, c.dirty = false, false
			c.mu.Unlock()
			c.fail(err)
			return
		}
		if full {
			// Whatever is left keeps its place before all that is appended later.
			rest := after(pieces, n)
			c.mu.Lock()
			c.dirty = false
			c.taken = total(rest)
			c.mu.Unlock()
			c.relay.spawn(func() { c.writer(rest, out) })
			return // the writer owns the queue now
		}
		out.release()
		clear(pieces)
		c.mu.Lock()
		if c.ctl == nil {
			c.ctl = ctl[:0]
		}
	}
	c.writing, c.dirty = false, false
	done := c.closing
	c.mu.Unlock()
	if done {
		c.finishClose()
	}
}

// takeBatch fills the queue from waiting streams and takes it. c.mu is held.
func (c *conn) takeBatch(w *worker) (ctl []byte, out *batch) {
	c.schedule(w)
	ctl, out = c.ctl, c.out
	c.ctl, c.ctlN, c.out = nil, 0, nil
	c.tail.stream = 0
	return ctl, out
}

// gather lists what takeBatch has taken, in the order in which it is written. The caller
// is who writes.
func (c *conn) gather(ctl []byte, out *batch) [][]byte {
	c.pieces = c.pieces[:0]
	if len(ctl) > 0 {
		c.pieces = append(c.pieces, ctl)
	}
	c.pieces = out.appendTo(c.pieces)
	return c.pieces
}

// writer writes blockingly until the queue is empty, then gives up ownership. It begins
// with pieces, the rest of out.
func (c *conn) writer(pieces [][]byte, out *batch) {
	w := c.relay.newWorker()
	c.mu.Lock()
	c.stuck = w.now
	c.mu.Unlock()
	for {
		err := c.t.write(pieces)
		out.release()
		clear(pieces)
		c.mu.Lock()
		if err != nil {
			c.writing = false
			c.mu.Unlock()
			c.fail(err)
			break
		}
		c.stuck = time.Now()
		c.taken = 0
		var ctl []byte
		ctl, out = c.takeBatch(w)
		pieces = c.gather(ctl, out)
		c.taken = out.len()
		if len(ctl) == 0 && out == nil && !c.t.backlog() {
			c.writing = false
			c.stuck = time.Time{}
			done := c.closing
			c.mu.Unlock()
			if done {
				c.finishClose()
			}
			break
		}
		c.mu.Unlock()
		w.now = time.Now()
		w.flush() // credit for what has just left; never this connection, whose owner we are
	}
	w.flush()
}

// --- ending

// fail closes the transport; the reader then releases the streams.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.err = err
	}
	c.dropOut()
	c.mu.Unlock()
	c.t.close()
}

// dropOut lets go of what an ended connection will not write any more, such as what calls
// have lent it. c.mu is held.
func (c *conn) dropOut() {
	if c.closed && !c.writing {
		c.out.release()
		c.out = nil
		c.tail.stream = 0
	}
}

// lost ends a connection that cannot be read any more.
func (c *conn) lost(w *worker, err error) {
	if c.t.backlog() {
		c.flush(w) // TLS says to the peer what was wrong with it
	}
	c.fail(err)
	c.release(w)
}

// ending returns why the connection has been closed on this side, nil if it has not: what still
// arrives is not looked at.
func (c *conn) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		return nil
	}
	if c.err == nil {
		return net.ErrClosed
	}
	return c.err
}

// die ends the connection for an error found by its reader: GOAWAY, then close.
func (c *conn) die(w *worker, err error) {
	var ce *connError
	if !errors.As(err, &ce) {
		c.fail(err)
		c.release(w)
		return
	}
	c.mu.Lock()
	c.err = err
	c.goAway(w, ce.code, ce.reason)
	c.closing = true
	c.mu.Unlock()
	c.relay.cfg.Logger.Debug("connection ended for a protocol error", "peer", c.name, "error", err)
	w.flush()
	c.release(w)
	w.flush()
	c.linger()
	c.fail(err)
}

// goAway queues GOAWAY with the highest stream seen. c.mu is held.
func (c *conn) goAway(w *worker, code http2.ErrCode, debug string) {
	last := c.lastID
	if c.isClient() {
		last = 0 // we accept no pushed streams
	}
	b := c.outBuf()
	b.b = appendGoAway(b.b, last, code, debug)
	c.goAwaySent = true
	c.appended(w)
}

// lingerTime is how long a connection that was told to go away may take to read
// that: closing at once would reset it and lose the GOAWAY.
const lingerTime = time.Second

// linger discards what the peer still sends, until it closes or the time is up.
func (c *conn) linger() {
	stop := time.AfterFunc(lingerTime, c.t.close)
	defer stop.Stop()
	for {
		c.rpos, c.rend = 0, 0
		if err := c.t.read(c); err != nil {
			return
		}
	}
}

// finishClose closes this side once everything is written. The sweeper closes the
// rest if the peer does not.
func (c *conn) finishClose() {
	c.mu.Lock()
	again := !c.finished.IsZero()
	if !again {
		c.finished = time.Now()
	}
	c.mu.Unlock()
	if !again {
		c.t.closeWrite()
	}
}

// release hands every stream of an ended connection to its side.
func (c *conn) release(w *worker) {
	c.mu.Lock()
	streams := make([]*stream, 0, len(c.streams))
	for _, s := range c.streams {
		s.freeQueue()
		s.closed = true
		streams = append(streams, s)
	}
	clear(c.streams)
	c.dropOut()
	c.mu.Unlock()
	c.side.gone(w, c, streams)
}

func (c *conn) isClient() bool {
	_, ok := c.side.(*upstreamSide)
	return ok
}

// --- workers

// worker is what one goroutine carries along while it handles frames: the
// connections it must flush and the streams whose progress concerns others.
type worker struct {
	relay   *Relay
	now     time.Time
	touched []*conn
	events  []progress
	// placements are waiting attempts that have got a slot on a connection.
	placements []placement
	scratch    []byte // for rewritten bodies
}

func (r *Relay) newWorker() *worker { return &worker{relay: r, now: time.Now()} }

// touch notes that c has something to write. c.mu is held.
func (w *worker) touch(c *conn) {
	if !c.dirty {
		c.dirty = true
		w.touched = append(w.touched, c)
	}
}

// flush writes everything that this worker's frames gave rise to, including
// the credit that the writing itself gives rise to.
func (w *worker) flush() {
	for len(w.touched) > 0 || len(w.events) > 0 || len(w.placements) > 0 {
		for i := 0; i < len(w.placements); i++ {
			p := w.placements[i]
			p.a.call.placed(w, p.a, p.c)
		}
		clear(w.placements)
		w.placements = w.placements[:0]
		for i := 0; i < len(w.events); i++ {
			w.events[i].stream.call.progressed(w, w.events[i])
		}
		clear(w.events)
		w.events = w.events[:0]
		if n := len(w.touched); n > 0 {
			c := w.touched[n-1]
			w.touched[n-1] = nil
			w.touched = w.touched[:n-1]
			c.flush(w)
		}
	}
}
