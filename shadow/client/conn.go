package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow and connWindow are what the server may send before it is told to go
	// on, in bytes. How much of an answer is kept is for the call to say.
	streamWindow = 64 << 10
	connWindow   = 1 << 20

	// What HTTP/2 says until somebody says otherwise.
	initialWindow = 65535
	initialTable  = 4096
	frameSize     = 16 << 10

	// readSize takes two of the largest frames; writeLimit is how much waits for the
	// socket before requests do.
	readSize   = 32 << 10
	writeLimit = 256 << 10

	// lastStream is where a connection ends: well before its numbers do.
	lastStream = 1<<31 - 1<<16
)

// conn is one connection. Calls wait in it until it is there.
type conn struct {
	client   *Client
	endpoint Endpoint
	used     time.Time     // when it was last asked for; client.mu is held
	wake     chan struct{} // for the writer: there is something in out

	mu       sync.Mutex
	socket   net.Conn // nil before there is one
	raw      net.Conn // beneath socket: closing it never waits
	retired  bool     // it takes no new calls and ends with the last it has
	gone     time.Time
	read     time.Time        // when something was last received
	calls    map[uint32]*Call // on streams
	waiting  []*Call          // for the connection, or a stream
	sending  []*Call          // could send now, in turn, each once
	sent     []*Call          // the whole request, in the round of the writer
	over     []*Call          // to be handed over
	next     uint32           // stream
	window   int              // the server's, for the connection
	initial  int              // the server's, for new streams
	streams  uint32           // the server's limit
	received int              // bytes, not yet given back to the connection's window

	out     outbox
	frames  *http2.Framer // writes into out, reads from the socket
	encoder *hpack.Encoder
	block   bytes.Buffer

	// Owned by the reader.
	decoder *hpack.Decoder
	current *Call // whose fields are decoded; nil for a stream that is gone
	last    bool  // the block being decoded ends its stream
	stream  uint32
	length  int // of the block so far
}

// outbox is what the writer takes next.
type outbox struct{ b []byte }

func (o *outbox) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

func newConn(c *Client, e Endpoint) *conn {
	cc := &conn{
		client: c, endpoint: e, wake: make(chan struct{}, 1),
		calls: make(map[uint32]*Call), next: 1,
		window: initialWindow, initial: initialWindow, streams: 1<<31 - 1,
	}
	cc.encoder = hpack.NewEncoder(&cc.block)
	cc.decoder = hpack.NewDecoder(initialTable, cc.field)
	cc.decoder.SetMaxStringLength(maxBlock)
	return cc
}

// run connects, and reads until the connection ends.
func (c *conn) run() {
	socket, raw, err := c.dial()
	if err != nil {
		c.end()
		return
	}
	// Closed, the socket ends the reader, which then ends the writer.
	defer context.AfterFunc(c.client.ctx, func() { _ = raw.Close() })()
	ended := make(chan struct{})
	var writer sync.WaitGroup
	reader := bufio.NewReaderSize(socket, readSize)
	c.greet(socket, raw, reader)
	writer.Go(func() { c.write(ended) })
	c.readAll(reader)
	_ = raw.Close()
	close(ended)
	writer.Wait()
	c.end()
}

// dial connects and, if that is asked for, encrypts.
func (c *conn) dial() (socket, raw net.Conn, err error) {
	ctx, cancel := context.WithTimeout(c.client.ctx, dialFor)
	defer cancel()
	raw, err = new(net.Dialer).DialContext(ctx, "tcp", c.endpoint.Addr)
	if err != nil || c.endpoint.TLS == nil {
		return raw, raw, err
	}
	if socket, err = encrypt(ctx, raw, c.endpoint.TLS); err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	return socket, raw, nil
}

func encrypt(ctx context.Context, raw net.Conn, config func() (*tls.Config, error)) (net.Conn, error) {
	cfg, err := config()
	if err != nil {
		return nil, err
	}
	secure := tls.Client(raw, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if p := secure.ConnectionState().NegotiatedProtocol; p != http2.NextProtoTLS {
		return nil, fmt.Errorf("the server speaks %q, want %s", p, http2.NextProtoTLS)
	}
	return secure, nil
}

// greet sends what a connection begins with, and lets the calls go that wait for it.
func (c *conn) greet(socket, raw net.Conn, reader *bufio.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket, c.raw = socket, raw
	c.frames = http2.NewFramer(&c.out, reader)
	c.frames.SetReuseFrames()
	c.frames.SetMaxReadFrameSize(frameSize)
	c.out.b = append(c.out.b, http2.ClientPreface...)
	_ = c.frames.WriteSettings( // the outbox takes everything, here and below
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxBlock})
	_ = c.frames.WriteWindowUpdate(0, connWindow-initialWindow)
	c.stir()
}

// end ends all calls of a connection that is no more.
func (c *conn) end() {
	now := time.Now()
	c.mu.Lock()
	c.retired, c.gone = true, now
	c.sending = nil
	for _, k := range c.calls {
		c.finish(k, Lost, now)
	}
	for _, k := range c.waiting {
		c.finish(k, Lost, now)
	}
	c.waiting, c.out.b = nil, nil
	c.mu.Unlock()
	c.handOver()
}

// handOver tells of the calls that are over; c.mu is not held.
func (c *conn) handOver() {
	c.mu.Lock()
	over := c.over
	c.over = nil
	c.mu.Unlock()
	if len(over) > 0 {
		c.client.done(over)
	}
}

// --- calls

// start takes a call in, for the next flush. It reports false if the connection takes none
// any more; one that could not be made stands for its address for a while.
func (c *conn) start(k *Call) bool {
	c.mu.Lock()
	lost := c.retired && c.socket == nil && time.Since(c.gone) < redialAfter
	if c.retired && !lost {
		c.mu.Unlock()
		return false
	}
	k.reset(c)
	if lost {
		c.finish(k, Lost, time.Now())
		c.mu.Unlock()
		c.handOver()
		return true
	}
	c.waiting = append(c.waiting, k)
	c.mu.Unlock()
	return true
}

// flush has the writer send what has been started. Without a connection it goes with the
// greeting.
func (c *conn) flush() {
	c.mu.Lock()
	c.stir()
	c.mu.Unlock()
}

// cancel ends a call, unless it is over. A connection on which nothing was heard during
// a whole call is not trusted with another.
func (c *conn) cancel(k *Call, now time.Time) {
	c.mu.Lock()
	if !k.over {
		if k.id == 0 {
			c.waiting = slices.DeleteFunc(c.waiting, func(w *Call) bool { return w == k })
		} else {
			_ = c.frames.WriteRSTStream(k.id, http2.ErrCodeCancel)
			if c.read.Before(k.Started) {
				c.retireLocked()
			}
		}
		c.finish(k, Canceled, now)
		if c.retired && len(c.calls) == 0 && c.raw != nil {
			_ = c.raw.Close() // the writer may hang in it
		}
		c.stir()
	}
	c.mu.Unlock()
	c.handOver()
}

// finish takes a call out; c.mu is held. The connection keeps nothing of it: whoever made it may be starting
// it again, elsewhere, as soon as it is handed over.
func (c *conn) finish(k *Call, end End, now time.Time) {
	if k.over {
		return
	}
	delete(c.calls, k.id)
	if k.queued {
		c.sending = slices.DeleteFunc(c.sending, func(s *Call) bool { return s == k })
	}
	if c.current == k {
		c.current = nil // the rest of its fields is still to come
	}
	k.finish(end, now)
	k.rest = nil
	c.over = append(c.over, k)
	if c.retired && len(c.calls) == 0 && c.socket != nil {
		c.kick() // the writer sends what is left, and ends the connection
	}
}

// retire lets the connection end with its last call.
func (c *conn) retire() {
	c.mu.Lock()
	c.retireLocked()
	c.mu.Unlock()
	c.handOver()
}

// retireLocked is retire with c.mu held: somebody hands over what has ended. Calls that
// have no stream go elsewhere.
func (c *conn) retireLocked() {
	c.retired = true
	now := time.Now()
	for _, k := range c.waiting {
		c.finish(k, Unsent, now)
	}
	c.waiting = nil
	c.kick()
}

// --- writing

// mayOpen reports whether a call that waits can have a stream now; c.mu is held.
func (c *conn) mayOpen() bool {
	return len(c.waiting) > 0 && len(c.calls) < int(c.streams) && len(c.out.b) < writeLimit && !c.retired
}

// maySend reports whether a piece of a request can be sent now; c.mu is held.
func (c *conn) maySend() bool {
	return len(c.sending) > 0 && c.window > 0 && len(c.out.b) < writeLimit
}

// pump queues as much as the windows and the socket take: the fields of calls that
// wait, and a frame of each request in turn. The writer calls it, right before it writes.
// c.mu is held.
func (c *conn) pump() {
	first := c.next
	for c.mayOpen() {
		k := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		c.open(k)
	}
	for c.maySend() {
		k := c.sending[0]
		c.sending[0] = nil
		c.sending = c.sending[1:]
		k.queued = false
		n := min(len(k.rest), frameSize, k.window, c.window)
		if n <= 0 {
			continue // widen puts it back
		}
		_ = c.frames.WriteData(k.id, n == len(k.rest), k.rest[:n])
		k.rest = k.rest[n:]
		k.window -= n
		c.window -= n
		if len(k.rest) > 0 {
			c.queue(k)
		} else {
			c.sent = append(c.sent, k)
		}
	}
	now := time.Now() // not before: the latency is not that of encoding the others
	for _, k := range c.sent {
		k.sent = now
	}
	clear(c.sent)
	c.sent = c.sent[:0]
	for id := first; id < c.next; id += 2 {
		if k := c.calls[id]; k != nil {
			k.Started = now
		}
	}
}

// open gives a call its stream and queues its fields; c.mu is held.
func (c *conn) open(k *Call) {
	k.id, k.window = c.next, c.initial
	c.calls[k.id] = k
	if c.next += 2; c.next > lastStream {
		c.retireLocked()
	}
	c.encode(k)
	block := c.block.Bytes()
	first := block[:min(len(block), frameSize)]
	block = block[len(first):]
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: k.id, BlockFragment: first, EndStream: len(k.rest) == 0, EndHeaders: len(block) == 0,
	})
	for len(block) > 0 {
		piece := block[:min(len(block), frameSize)]
		block = block[len(piece):]
		_ = c.frames.WriteContinuation(k.id, len(block) == 0, piece)
	}
	if len(k.rest) > 0 {
		c.queue(k)
	}
}

// queue has the rest of a request sent in its turn; c.mu is held.
func (c *conn) queue(k *Call) {
	if !k.queued { // it may still be there with a shut window of its own, when the connection's is shut, too
		k.queued = true
		c.sending = append(c.sending, k)
	}
}

// encode makes the block of a call's fields.
func (c *conn) encode(k *Call) {
	c.block.Reset()
	scheme := "http"
	if c.endpoint.TLS != nil {
		scheme = "https"
	}
	authority := k.Authority
	if authority == "" {
		authority = c.endpoint.Addr
	}
	put := func(name, value string) {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // a buffer takes everything
	}
	put(":method", "POST")
	put(":scheme", scheme)
	put(":path", k.Path)
	put(":authority", authority)
	put("te", "trailers")
	put("user-agent", c.client.agent)
	for _, f := range k.Fields {
		_ = c.encoder.WriteField(f)
	}
}

// stir wakes the writer if there is something for it to do; c.mu is held.
func (c *conn) stir() {
	if c.socket != nil && (len(c.out.b) > 0 || c.mayOpen() || c.maySend()) {
		c.kick()
	}
}

// kick wakes the writer; c.mu is held.
func (c *conn) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write writes what is queued until the reader has ended, writing fails, or a retired
// connection has no calls left. Then the socket is closed, which ends the reader.
func (c *conn) write(ended <-chan struct{}) {
	var spare []byte
	for {
		select {
		case <-ended:
			return
		case <-c.wake:
		}
		for {
			c.mu.Lock()
			c.pump()
			b := c.out.b
			c.out.b = spare[:0]
			done := c.retired && len(c.calls) == 0
			c.mu.Unlock()
			if spare = b; len(b) == 0 {
				if done {
					_ = c.raw.Close()
					return
				}
				break
			}
			err := c.socket.SetWriteDeadline(time.Now().Add(writePatience))
			if err == nil {
				_, err = c.socket.Write(b)
			}
			if err != nil {
				_ = c.raw.Close()
				return
			}
		}
	}
}
