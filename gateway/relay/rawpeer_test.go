package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// frame is one received frame, as a raw peer saw it. Header blocks are decoded
// and whole.
type frame struct {
	typ      http2.FrameType
	id       uint32
	ack, end bool
	code     http2.ErrCode       // RST_STREAM, GOAWAY
	last     uint32              // GOAWAY
	incr     uint32              // WINDOW_UPDATE
	fields   []hpack.HeaderField // HEADERS
	data     []byte              // DATA, PING, GOAWAY's debug data
	length   int                 // of the payload
	settings []http2.Setting     // SETTINGS
}

// field returns the value of a field of a header block, "" if there is none.
func (f frame) field(name string) string {
	for _, h := range f.fields {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// rawPeer is one end of an HTTP/2 connection whose every frame a test decides.
// A reader goroutine records what arrives; nothing is answered but what
// the options ask for.
type rawPeer struct {
	t  testing.TB
	nc net.Conn

	// What the reader answers by itself; set before start.
	ackSettings bool
	ackPings    bool
	credit      bool // give every DATA byte back at once, stream and connection

	wmu  sync.Mutex
	fr   *http2.Framer // for writing
	enc  *hpack.Encoder
	ebuf bytes.Buffer

	mu      sync.Mutex
	cond    *sync.Cond
	queue   []frame
	err     error       // why the reader ended
	paused  bool        // the reader reads nothing more
	closing bool        // and no longer pauses
	onRecv  func(frame) // called by the reader before queueing, with mu held

	// What the relay lets this end send.
	connWin int64
	initial int64
	wins    map[uint32]int64 // by stream; absent = initial

	done chan struct{}
}

func newRawPeer(t testing.TB, nc net.Conn) *rawPeer {
	p := &rawPeer{t: t, nc: nc, ackSettings: true, ackPings: true, credit: true, done: make(chan struct{})}
	p.cond = sync.NewCond(&p.mu)
	p.connWin, p.initial, p.wins = initialWindow, initialWindow, make(map[uint32]int64)
	p.fr = http2.NewFramer(nc, nil)
	p.fr.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.ebuf)
	return p
}

// start begins to read; the connection is closed with the test.
func (p *rawPeer) start() {
	go p.read()
	p.t.Cleanup(p.close)
}

func (p *rawPeer) close() {
	p.mu.Lock()
	p.closing = true // a frame that has been read may say to pause again
	p.cond.Broadcast()
	p.mu.Unlock()
	_ = p.nc.Close()
	<-p.done
}

// pause stops reading from the socket, or goes on with it.
func (p *rawPeer) pause(on bool) {
	p.mu.Lock()
	p.paused = on
	p.cond.Broadcast()
	p.mu.Unlock()
}

func (p *rawPeer) read() {
	defer close(p.done)
	fr := http2.NewFramer(nil, bufio.NewReader(p.nc))
	fr.SetMaxReadFrameSize(maxFrameLen) // a larger one is the relay's fault
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		p.mu.Lock()
		for p.paused && !p.closing {
			p.cond.Wait()
		}
		p.mu.Unlock()
		hf, err := fr.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isReset(err) {
				p.t.Errorf("raw peer: the relay sent what http2.Framer refuses: %v (%v)", err, fr.ErrorDetail())
			}
			p.mu.Lock()
			p.err = err
			p.cond.Broadcast()
			p.mu.Unlock()
			return
		}
		f := toFrame(hf)
		p.answer(f)
		p.mu.Lock()
		p.noteCredit(f)
		if p.onRecv != nil {
			p.onRecv(f)
		}
		p.queue = append(p.queue, f)
		p.cond.Broadcast()
		p.mu.Unlock()
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

func toFrame(hf http2.Frame) frame {
	h := hf.Header()
	f := frame{typ: h.Type, id: h.StreamID, length: int(h.Length)}
	switch x := hf.(type) {
	case *http2.DataFrame:
		f.data, f.end = bytes.Clone(x.Data()), x.StreamEnded()
	case *http2.MetaHeadersFrame:
		f.fields, f.end = x.Fields, x.StreamEnded()
	case *http2.RSTStreamFrame:
		f.code = x.ErrCode
	case *http2.GoAwayFrame:
		f.code, f.last, f.data = x.ErrCode, x.LastStreamID, bytes.Clone(x.DebugData())
	case *http2.WindowUpdateFrame:
		f.incr = x.Increment
	case *http2.PingFrame:
		f.ack, f.data = x.IsAck(), bytes.Clone(x.Data[:])
	case *http2.SettingsFrame:
		f.ack = x.IsAck()
		_ = x.ForeachSetting(func(s http2.Setting) error { f.settings = append(f.settings, s); return nil })
	}
	return f
}

// answer does what the options ask for. Write errors show in what the test
// waits for.
func (p *rawPeer) answer(f frame) {
	switch {
	case f.typ == http2.FrameSettings && !f.ack && p.ackSettings:
		p.write(func(fr *http2.Framer) error { return fr.WriteSettingsAck() })
	case f.typ == http2.FramePing && !f.ack && p.ackPings:
		p.write(func(fr *http2.Framer) error { return fr.WritePing(true, [8]byte(f.data)) })
	case f.typ == http2.FrameData && f.length > 0 && p.credit:
		p.write(func(fr *http2.Framer) error {
			if !f.end {
				if err := fr.WriteWindowUpdate(f.id, uint32(f.length)); err != nil {
					return err
				}
			}
			return fr.WriteWindowUpdate(0, uint32(f.length))
		})
	}
}

// write writes with the framer. An error means that the connection is gone,
// which the reader notices too.
func (p *rawPeer) write(f func(*http2.Framer) error) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	_ = f(p.fr)
}

// raw writes bytes as they are.
func (p *rawPeer) raw(b []byte) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	_, _ = p.nc.Write(b)
}

func (p *rawPeer) settings(s ...http2.Setting) {
	p.write(func(fr *http2.Framer) error { return fr.WriteSettings(s...) })
}

func (p *rawPeer) windowUpdate(id, n uint32) {
	p.write(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(id, n) })
}

func (p *rawPeer) reset(id uint32, code http2.ErrCode) {
	p.write(func(fr *http2.Framer) error { return fr.WriteRSTStream(id, code) })
}

func (p *rawPeer) goAway(last uint32, code http2.ErrCode) {
	p.write(func(fr *http2.Framer) error { return fr.WriteGoAway(last, code, nil) })
}

func (p *rawPeer) data(id uint32, b []byte, end bool) {
	p.write(func(fr *http2.Framer) error { return fr.WriteData(id, end, b) })
}

// block encodes a header list with the connection's compression state: what it
// returns must be sent, and in order.
func (p *rawPeer) block(fields ...string) []byte {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	return p.blockLocked(fields)
}

func (p *rawPeer) blockLocked(fields []string) []byte {
	p.ebuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.ebuf.Bytes())
}

// headers sends a header block, names and values alternating.
func (p *rawPeer) headers(id uint32, end bool, fields ...string) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	b := p.blockLocked(fields)
	first := b[:min(len(b), maxFrameLen)]
	b = b[len(first):]
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0})
	for len(b) > 0 {
		next := b[:min(len(b), maxFrameLen)]
		b = b[len(next):]
		_ = p.fr.WriteContinuation(id, len(b) == 0, next)
	}
}

// noteCredit keeps account of what may be sent. p.mu is held.
func (p *rawPeer) noteCredit(f frame) {
	switch f.typ {
	case http2.FrameWindowUpdate:
		if f.id == 0 {
			p.connWin += int64(f.incr)
		} else {
			p.wins[f.id] = p.window(f.id) + int64(f.incr)
		}
	case http2.FrameSettings:
		for _, s := range f.settings {
			if s.ID == http2.SettingInitialWindowSize {
				for id := range p.wins {
					p.wins[id] += int64(s.Val) - p.initial
				}
				p.initial = int64(s.Val)
			}
		}
	case http2.FrameRSTStream:
		p.wins[f.id] = maxWindow // nobody counts any more; who sends need not wait
	}
}

func (p *rawPeer) window(id uint32) int64 {
	if w, ok := p.wins[id]; ok {
		return w
	}
	return p.initial
}

// allow waits until n bytes may be sent on a stream, and takes them from the
// windows; false means that the connection has ended.
func (p *rawPeer) allow(id uint32, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && (p.connWin < int64(n) || p.window(id) < int64(n)) {
		p.cond.Wait()
	}
	p.connWin -= int64(n)
	p.wins[id] = p.window(id) - int64(n)
	return p.err == nil
}

// next waits for the first frame that matches, and drops it and those before it.
func (p *rawPeer) next(what string, match func(frame) bool) frame {
	p.t.Helper()
	f, err := p.await(match)
	if err != nil {
		p.t.Fatalf("waiting for %s: %v", what, err)
	}
	return f
}

func (p *rawPeer) await(match func(frame) bool) (frame, error) {
	timer := time.AfterFunc(patience, func() {
		p.mu.Lock()
		p.cond.Broadcast()
		p.mu.Unlock()
	})
	defer timer.Stop()
	end := time.Now().Add(patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 0; ; {
		for ; i < len(p.queue); i++ {
			if f := p.queue[i]; match(f) {
				p.queue = append(p.queue[:0:0], p.queue[i+1:]...)
				return f, nil
			}
		}
		if p.err != nil {
			return frame{}, fmt.Errorf("connection ended: %w", p.err)
		}
		if !time.Now().Before(end) {
			return frame{}, errors.New("timed out")
		}
		p.cond.Wait()
	}
}

// take removes and returns the frames for which match holds among those that
// have arrived.
func (p *rawPeer) take(match func(frame) bool) []frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken, kept []frame
	for _, f := range p.queue {
		if match(f) {
			taken = append(taken, f)
		} else {
			kept = append(kept, f)
		}
	}
	p.queue = kept
	return taken
}

// ended waits until the relay has closed the connection.
func (p *rawPeer) ended() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the relay did not close the connection")
	}
}

// sync returns once the relay has handled all that was sent before.
func (p *rawPeer) sync() {
	p.t.Helper()
	var mark [8]byte
	binary.BigEndian.PutUint64(mark[:], syncMarks.next())
	p.write(func(fr *http2.Framer) error { return fr.WritePing(false, mark) })
	if _, err := p.find(func(f frame) bool { return f.typ == http2.FramePing && f.ack && [8]byte(f.data) == mark }); err != nil {
		p.t.Fatalf("waiting for the PING that follows: %v", err)
	}
}

// find is await that leaves the frames before the match in the queue.
func (p *rawPeer) find(match func(frame) bool) (frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	timer := time.AfterFunc(patience, func() { p.mu.Lock(); p.cond.Broadcast(); p.mu.Unlock() })
	defer timer.Stop()
	end := time.Now().Add(patience)
	for {
		for i, f := range p.queue {
			if match(f) {
				p.queue = append(p.queue[:i], p.queue[i+1:]...)
				return f, nil
			}
		}
		if p.err != nil {
			return frame{}, fmt.Errorf("connection ended: %w", p.err)
		}
		if !time.Now().Before(end) {
			return frame{}, errors.New("timed out")
		}
		p.cond.Wait()
	}
}

type counter struct {
	mu sync.Mutex
	n  uint64
}

func (c *counter) next() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

var syncMarks counter

// --- what to wait for

func isHeaders(id uint32) func(frame) bool {
	return func(f frame) bool { return f.typ == http2.FrameHeaders && f.id == id }
}

func isTrailers(id uint32) func(frame) bool {
	return func(f frame) bool { return f.typ == http2.FrameHeaders && f.id == id && f.end }
}

func isReset4(id uint32) func(frame) bool {
	return func(f frame) bool { return f.typ == http2.FrameRSTStream && f.id == id }
}

func isType(typ http2.FrameType) func(frame) bool {
	return func(f frame) bool { return f.typ == typ }
}

func anyHeaders(f frame) bool { return f.typ == http2.FrameHeaders }

// --- the two sides

// dialRaw connects a raw client and completes the exchange of SETTINGS.
func dialRaw(t testing.TB, addr string, settings ...http2.Setting) *rawPeer {
	t.Helper()
	return dialRawWith(t, addr, nil, settings...)
}

// dialRawWith is dialRaw for a client that setup changes before it starts.
func dialRawWith(t testing.TB, addr string, setup func(*rawPeer), settings ...http2.Setting) *rawPeer {
	t.Helper()
	p := connectRaw(t, addr)
	if setup != nil {
		setup(p)
	}
	p.begin(settings...)
	return p
}

// begin completes the exchange of SETTINGS.
func (p *rawPeer) begin(settings ...http2.Setting) {
	p.t.Helper()
	p.raw([]byte(http2.ClientPreface))
	p.settings(settings...)
	p.start()
	p.next("SETTINGS acknowledgement", func(f frame) bool { return f.typ == http2.FrameSettings && f.ack })
}

// dialRawQuiet connects a client that sends nothing by itself.
func dialRawQuiet(t testing.TB, addr string) *rawPeer {
	t.Helper()
	p := connectRaw(t, addr)
	p.ackSettings, p.ackPings, p.credit = false, false, false
	p.start()
	return p
}

func connectRaw(t testing.TB, addr string) *rawPeer {
	t.Helper()
	nc, err := dialRig(addr)
	if err != nil {
		t.Fatal(err)
	}
	return newRawPeer(t, nc)
}

// dialRig connects to a rig, with TLS if it has that by -tls.
func dialRig(addr string) (net.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err == nil && hasTLS(addr) {
		_, client := suiteTLS()
		nc = tls.Client(nc, client)
	}
	return nc, err
}

func beneathTLS(t transport) transport {
	if s, ok := t.(*tlsTransport); ok {
		return s.t
	}
	return t
}

// tcp returns the socket beneath.
func (p *rawPeer) tcp() *net.TCPConn {
	nc := p.nc
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	if c, ok := nc.(*maybeTLS); ok {
		nc = c.Conn
	}
	return nc.(*net.TCPConn)
}

// maybeTLS is a connection to a raw server with -tls, where a test that dials by itself does so in plaintext.
type maybeTLS struct {
	net.Conn
	r *bufio.Reader
}

func (c *maybeTLS) Read(p []byte) (int, error) { return c.r.Read(p) }

func acceptSuite(nc net.Conn) net.Conn {
	if !*overTLS {
		return nc
	}
	c := &maybeTLS{nc, bufio.NewReader(nc)}
	if b, err := c.r.Peek(1); err != nil || b[0] != recordHandshake {
		return c
	}
	server, _ := suiteTLS()
	return tls.Server(c, server)
}

// request opens a call the way gRPC clients do.
func (p *rawPeer) request(id uint32, end bool, extra ...string) {
	p.headers(id, end, append([]string{":method", "POST", ":scheme", "http", ":path", "/test.Service/Method",
		":authority", "test", "content-type", "application/grpc", "te", "trailers"}, extra...)...)
}

// answerHead sends the first HEADERS of an answer.
func (p *rawPeer) answerHead(id uint32) {
	p.headers(id, false, ":status", "200", "content-type", "application/grpc")
}

func (p *rawPeer) trailers(id uint32, status string, extra ...string) {
	p.headers(id, true, append([]string{"grpc-status", status}, extra...)...)
}

// trailersOnly answers with one header block.
func (p *rawPeer) trailersOnly(id uint32, status string, extra ...string) {
	p.headers(id, true, append([]string{":status", "200", "content-type", "application/grpc", "grpc-status", status}, extra...)...)
}

// rawServer accepts upstream connections.
type rawServer struct {
	addr  string
	ln    net.Listener
	conns chan *rawPeer
	tb    testing.TB
}

// listenRaw starts a server whose every connection begins with the settings and
// then does what setup says; setup runs before the reader starts and may be nil.
func listenRaw(t testing.TB, setup func(*rawPeer), settings ...http2.Setting) *rawServer {
	t.Helper()
	s := listenRawOver(t, acceptSuite, setup, settings...)
	if *overTLS {
		withTLS.Store(s.addr, true)
		t.Cleanup(func() { withTLS.Delete(s.addr) })
	}
	return s
}

// listenRawOver is listenRaw with something between HTTP/2 and TCP.
func listenRawOver(t testing.TB, over func(net.Conn) net.Conn, setup func(*rawPeer), settings ...http2.Setting) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{addr: ln.Addr().String(), ln: ln, conns: make(chan *rawPeer, 1000), tb: t}
	done := make(chan struct{})
	var mu sync.Mutex
	var all []*rawPeer
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p := newRawPeer(t, over(nc))
			if setup != nil {
				setup(p)
			}
			if !p.skipPreface() {
				_ = nc.Close()
				continue
			}
			p.settings(settings...)
			go p.read()
			mu.Lock()
			all = append(all, p)
			mu.Unlock()
			select {
			case s.conns <- p:
			default: // nobody looks at so many
			}
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
		for _, p := range all {
			p.close()
		}
	})
	return s
}

// skipPreface reads the client's preface, which is no frame.
func (p *rawPeer) skipPreface() bool {
	_ = p.nc.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, len(http2.ClientPreface))
	_, err := io.ReadFull(p.nc, b)
	_ = p.nc.SetReadDeadline(time.Time{})
	return err == nil && string(b) == http2.ClientPreface
}

// accept waits for the next connection from the relay.
func (s *rawServer) accept() *rawPeer {
	s.tb.Helper()
	select {
	case p := <-s.conns:
		return p
	case <-time.After(patience):
		s.tb.Fatal("the relay did not connect")
		return nil
	}
}
