package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow and connWindow are what the server may send before it is told to go
	// on: enough for tensors of a megabyte.
	streamWindow = 1 << 20
	connWindow   = 16 << 20

	// readSize takes two of the largest frames; writeLimit is how much DATA waits for
	// the socket.
	readSize   = 32 << 10
	writeLimit = 256 << 10
)

// conn is one connection and, after it was lost, its successors.
type conn struct {
	client *Client
	wake   chan struct{} // for the writer: there is something in out

	mu       sync.Mutex
	phase    *phase   // the run under way
	socket   net.Conn // nil while there is none
	draining bool     // the server takes no new calls here
	parked   int      // tokens of streams that cannot be used now
	out      []byte   // what the writer takes next
	calls    map[uint32]*call
	waiting  []uint32 // streams that could send now, in turn
	idle     []*call  // to be used again
	next     uint32   // stream id

	window     int // the server's, for the connection
	initial    int // the server's, for new streams
	maxStreams uint32
	greeted    bool // the server's SETTINGS have come
	credit     int  // bytes received and not yet given back to the connection's window

	encoder *hpack.Encoder
	encoded bytes.Buffer
	block   []byte // the request's fields once all of them are in the server's table
	blocks  int    // encoded since the table last changed

	// Owned by the reader.
	buffer    []byte
	have      int // bytes in buffer that are not handled yet
	decoder   *hpack.Decoder
	current   *call // whose fields are decoded; nil for a stream that is gone
	fragments []byte
	open      frame // HEADERS whose CONTINUATIONs are still to come; kind is 0 if none
}

func newConn(client *Client) *conn {
	return &conn{client: client, wake: make(chan struct{}, 1), buffer: make([]byte, readSize)}
}

// attach prepares for a new socket, and greets. Calls begin after resume.
func (c *conn) attach(socket net.Conn) error {
	hello := appendSettings([]byte(http2.ClientPreface),
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow})
	hello = appendWindowUpdate(hello, 0, connWindow-initialWindow)
	if _, err := socket.Write(hello); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = false
	c.out, c.calls, c.waiting, c.next = c.out[:0], make(map[uint32]*call), c.waiting[:0], 1
	c.window, c.initial, c.maxStreams = initialWindow, initialWindow, 1<<31-1
	c.greeted, c.credit = false, 0
	c.encoder, c.block, c.blocks = hpack.NewEncoder(&c.encoded), nil, 0
	c.have, c.open, c.decoder = 0, frame{}, hpack.NewDecoder(4096, c.field)
	return nil
}

// --- calls

// begin opens a call and queues its request. It reports false if the phase is over or no
// call can begin here now; the stream's token then waits for the next connection.
func (c *conn) begin(p *phase, due, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket == nil || c.draining {
		c.parked++
		return false
	}
	if !p.begin() {
		return false
	}
	c.start(p, due, now)
	return true
}

// fill opens calls of the closed loop on every free stream.
func (c *conn) fill(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.phase
	if p == nil || p.tokens != nil || c.socket == nil || c.draining {
		return
	}
	for len(c.calls) < c.client.config.Streams && p.begin() {
		c.start(p, now, now)
	}
}

// start opens a call that its phase has let begin. c.mu is held.
func (c *conn) start(p *phase, due, now time.Duration) {
	var k *call
	if n := len(c.idle); n > 0 {
		k, c.idle = c.idle[n-1], c.idle[:n-1]
	} else {
		k = new(call)
	}
	*k = call{phase: p, due: due, sent: now, rest: c.client.config.Message, window: c.initial}
	id := c.next
	c.next += 2
	c.calls[id] = k
	c.appendHeaders(id)
	c.waiting = append(c.waiting, id)
	c.pump()
}

// adopt makes the connection serve a phase.
func (c *conn) adopt(p *phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase, c.parked = p, 0
}

// resume lets calls begin on a socket that is attached.
func (c *conn) resume(socket net.Conn, now time.Duration) {
	c.mu.Lock()
	c.socket = socket
	for ; c.parked > 0; c.parked-- {
		c.phase.tokens <- c // has room for all there are
	}
	c.mu.Unlock()
	c.fill(now)
}

// end takes a call out and tells its phase. c.mu is held.
func (c *conn) end(id uint32, now time.Duration, outcome string, unanswered bool) {
	k := c.calls[id]
	delete(c.calls, id)
	k.phase.end(c, k, now, outcome, unanswered)
	c.idle = append(c.idle, k)
}

// expire resets calls sent before a moment.
func (c *conn) expire(before, now time.Duration, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, k := range c.calls {
		if k.sent <= before {
			c.out = appendReset(c.out, id, http2.ErrCodeCancel)
			c.end(id, now, outcome, outcome == outcomeTimedOut)
		}
	}
	c.kick()
}

// lose ends all calls of a connection that is gone.
func (c *conn) lose(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket = nil
	for id := range c.calls {
		c.end(id, now, outcomeLost, false)
	}
}

// --- writing

// appendHeaders queues the request's fields. c.mu is held.
func (c *conn) appendHeaders(id uint32) {
	block := c.block
	if block == nil {
		c.encoded.Reset()
		for _, f := range c.client.fields {
			_ = c.encoder.WriteField(f) // a buffer takes everything
		}
		block = c.encoded.Bytes()
		if c.blocks++; c.blocks == 2 { // the first filled the table, from now on nothing changes
			c.block = bytes.Clone(block)
		}
	}
	at := len(c.out)
	c.out = appendFrameHeader(c.out, 0, http2.FrameHeaders, http2.FlagHeadersEndHeaders, id)
	from := len(c.out)
	c.out = append(c.out, block...)
	for i := range c.client.config.Varied {
		c.out = c.client.config.Varied[i].append(c.out)
	}
	length := len(c.out) - from
	if length > maxFrame {
		c.out = appendBlock(append(c.out[:at], c.out[from:]...), at, id)
		return
	}
	c.out[at], c.out[at+1], c.out[at+2] = byte(length>>16), byte(length>>8), byte(length)
}

// append writes the field as a literal that is not indexed (RFC 7541, 6.2.2), as clients do with
// what is never the same.
func (v *Varied) append(b []byte) []byte {
	b = append(b, 0, byte(len(v.Name)))
	b = append(b, v.Name...)
	at := len(b)
	b = append(b, 0)
	b = append(b, v.Prefix...)
	b = strconv.AppendInt(b, int64(v.From+rand.IntN(v.To-v.From+1)), 10)
	b = append(b, v.Suffix...)
	b[at] = byte(len(b) - at - 1)
	return b
}

// pump queues as much of the requests as the windows and the socket take, a frame of each
// in turn, and wakes the writer. c.mu is held.
func (c *conn) pump() {
	for len(c.waiting) > 0 && c.window > 0 && len(c.out) < writeLimit {
		id := c.waiting[0]
		c.waiting = c.waiting[1:]
		k := c.calls[id]
		if k == nil {
			continue // it has ended meanwhile
		}
		n := min(len(k.rest), maxFrame, k.window, c.window)
		if n <= 0 {
			continue // windowUpdate puts it back
		}
		var flags http2.Flags
		if n == len(k.rest) {
			flags = http2.FlagDataEndStream
		}
		c.out = appendFrameHeader(c.out, n, http2.FrameData, flags, id)
		c.out = append(c.out, k.rest[:n]...)
		k.rest = k.rest[n:]
		k.window -= n
		c.window -= n
		if len(k.rest) > 0 {
			c.waiting = append(c.waiting, id)
		}
	}
	c.kick()
}

// kick wakes the writer if there is something to write. c.mu is held.
func (c *conn) kick() {
	if len(c.out) == 0 {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write writes what is queued until ctx ends or writing fails, which ends the reader too.
func (c *conn) write(ctx context.Context, socket net.Conn) {
	var spare []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for {
			c.mu.Lock()
			c.pump()
			b := c.out
			c.out = spare[:0]
			c.mu.Unlock()
			spare = b
			if len(b) == 0 {
				break
			}
			if _, err := socket.Write(b); err != nil {
				_ = socket.Close() // the reader ends with it, and says what there is to say
				return
			}
		}
	}
}

// --- reading

// errDrained says that the server wanted the connection to end, and it has.
var errDrained = errors.New("GOAWAY")

// read handles what the server has sent, of which it waits for the first piece.
func (c *conn) read(socket net.Conn) (now time.Duration, err error) {
	n, err := socket.Read(c.buffer[c.have:])
	now = c.client.now()
	if err != nil {
		return now, err
	}
	c.have += n
	used, err := c.handle(c.buffer[:c.have], now)
	c.have = copy(c.buffer, c.buffer[used:c.have])
	return now, err
}

// handle handles the complete frames in b and returns how many bytes those were.
func (c *conn) handle(b []byte, now time.Duration) (used int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		f, n, err := parseFrame(b[used:])
		if err != nil {
			return used, err
		}
		if n == 0 {
			c.kick()
			if c.draining && len(c.calls) == 0 {
				return used, errDrained
			}
			return used, nil
		}
		used += n
		if err := c.frame(f, now); err != nil {
			return used, err
		}
	}
}

// frame handles one frame. c.mu is held.
func (c *conn) frame(f frame, now time.Duration) error {
	if c.open.kind != 0 && f.kind != http2.FrameContinuation {
		return fmt.Errorf("%v inside a header block", f.kind)
	}
	switch f.kind {
	case http2.FrameData:
		return c.data(f, now)
	case http2.FrameHeaders:
		p, err := f.content()
		if err != nil {
			return err
		}
		if !f.flags.Has(http2.FlagHeadersEndHeaders) {
			c.open, c.fragments = f, append(c.fragments[:0], p...)
			return nil
		}
		return c.headers(f, p, now)
	case http2.FrameContinuation:
		return c.continuation(f, now)
	case http2.FrameSettings:
		return c.settings(f)
	case http2.FrameWindowUpdate:
		return c.windowUpdate(f)
	case http2.FramePing:
		if !f.flags.Has(http2.FlagPingAck) {
			c.out = appendFrameHeader(c.out, len(f.payload), http2.FramePing, http2.FlagPingAck, 0)
			c.out = append(c.out, f.payload...)
		}
	case http2.FrameRSTStream:
		if len(f.payload) != 4 {
			return errors.New("RST_STREAM of a wrong length")
		}
		if c.calls[f.stream] != nil {
			code := http2.ErrCode(binary.BigEndian.Uint32(f.payload))
			c.end(f.stream, now, fmt.Sprintf("RST_STREAM %v", code), false)
		}
	case http2.FrameGoAway:
		return c.goAway(f, now)
	}
	return nil
}

// goAway lets the calls that the server still answers end. c.mu is held.
func (c *conn) goAway(f frame, now time.Duration) error {
	if len(f.payload) < 8 {
		return errors.New("GOAWAY of a wrong length")
	}
	c.draining = true
	last := binary.BigEndian.Uint32(f.payload) & (1<<31 - 1)
	for id := range c.calls {
		if id > last {
			c.end(id, now, "GOAWAY", false)
		}
	}
	return nil
}

func (c *conn) continuation(f frame, now time.Duration) error {
	const most = 1 << 20
	if c.open.kind == 0 || f.stream != c.open.stream || len(c.fragments)+len(f.payload) > most {
		return errors.New("unexpected CONTINUATION")
	}
	c.fragments = append(c.fragments, f.payload...)
	if !f.flags.Has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	f = c.open
	c.open = frame{}
	return c.headers(f, c.fragments, now)
}

// headers handles a complete block. c.mu is held.
func (c *conn) headers(f frame, block []byte, now time.Duration) error {
	c.current = c.calls[f.stream]
	if _, err := c.decoder.Write(block); err != nil {
		return err
	}
	if err := c.decoder.Close(); err != nil {
		return err
	}
	if c.current != nil && f.flags.Has(http2.FlagHeadersEndStream) {
		c.end(f.stream, now, c.current.outcome(), false)
	}
	return nil
}

// field takes one field of the block being decoded.
func (c *conn) field(f hpack.HeaderField) {
	if c.current == nil {
		return
	}
	switch f.Name {
	case ":status":
		c.current.http = f.Value
	case "grpc-status":
		c.current.status = f.Value
	case "grpc-message":
		c.current.said = f.Value
	}
}

// data handles a piece of an answer. c.mu is held.
func (c *conn) data(f frame, now time.Duration) error {
	p, err := f.content()
	if err != nil {
		return err
	}
	if c.credit += len(f.payload); c.credit >= connWindow/2 {
		c.out = appendWindowUpdate(c.out, 0, c.credit)
		c.credit = 0
	}
	k := c.calls[f.stream]
	if k == nil {
		return nil
	}
	k.bytes += len(p)
	k.answer.add(p)
	if f.flags.Has(http2.FlagDataEndStream) {
		c.end(f.stream, now, k.outcome(), false)
		return nil
	}
	if k.consumed += len(f.payload); k.consumed >= streamWindow/2 {
		c.out = appendWindowUpdate(c.out, f.stream, k.consumed)
		k.consumed = 0
	}
	return nil
}

// settings obeys the server's. c.mu is held.
func (c *conn) settings(f frame) error {
	if f.flags.Has(http2.FlagSettingsAck) {
		return nil
	}
	if len(f.payload)%6 != 0 {
		return errors.New("SETTINGS of a wrong length")
	}
	for p := f.payload; len(p) > 0; p = p[6:] {
		value := binary.BigEndian.Uint32(p[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(p)) {
		case http2.SettingInitialWindowSize:
			for id, k := range c.calls {
				c.widen(id, k, int(value)-c.initial)
			}
			c.initial = int(value)
		case http2.SettingMaxFrameSize:
			if value < maxFrame {
				return fmt.Errorf("SETTINGS_MAX_FRAME_SIZE of %d, want at least %d", value, maxFrame) // RFC 9113, 6.5.2
			}
		case http2.SettingMaxConcurrentStreams:
			c.maxStreams = value
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSize(min(value, 4096))
			c.block, c.blocks = nil, 0
		}
	}
	c.greeted = true
	c.out = appendFrameHeader(c.out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	c.pump()
	return nil
}

// windowUpdate lets more of the requests go. c.mu is held.
func (c *conn) windowUpdate(f frame) error {
	if len(f.payload) != 4 {
		return errors.New("WINDOW_UPDATE of a wrong length")
	}
	n := int(binary.BigEndian.Uint32(f.payload) & (1<<31 - 1))
	if f.stream == 0 {
		c.window += n
	} else if k := c.calls[f.stream]; k != nil {
		c.widen(f.stream, k, n)
	}
	c.pump()
	return nil
}

// widen changes the window of a stream, which may then send again. c.mu is held.
func (c *conn) widen(id uint32, k *call, by int) {
	closed := k.window <= 0
	k.window += by
	if closed && k.window > 0 && len(k.rest) > 0 {
		c.waiting = append(c.waiting, id)
	}
}
