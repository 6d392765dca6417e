package relay

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// Each test here shows one limit of the relay biting, while another client of the
// same relay is served.

// bystander keeps calling until the test ends, and fails if it is not served.
func bystander(t *testing.T, addr string) (stop func()) {
	t.Helper()
	c := dialRaw(t, addr)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for id := uint32(1); ; id += 2 {
			select {
			case <-quit:
				return
			case <-time.After(5 * time.Millisecond):
			}
			begun := time.Now()
			c.request(id, true)
			f, err := c.await(isTrailers(id))
			if err != nil || f.field("grpc-status") != "0" {
				t.Errorf("another client's call: status %q, %v", f.field("grpc-status"), err)
				return
			}
			if d := time.Since(begun); d > 2*time.Second {
				t.Errorf("another client's call took %v", d)
			}
		}
	}()
	return func() { close(quit); <-done }
}

// toldOff waits for GOAWAY with a code, and the end of the connection.
func (p *rawPeer) toldOff(code http2.ErrCode) {
	p.t.Helper()
	f := p.next("GOAWAY", isType(http2.FrameGoAway))
	if f.code != code {
		p.t.Errorf("GOAWAY with %v (%s), want %v", f.code, f.data, code)
	}
	_ = p.nc.Close()
	p.ended()
}

func TestRapidReset(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{}, up.addr, nil)
	defer bystander(t, g.addr)()
	c := dialRaw(t, g.addr)
	for i := range uint32(600) {
		c.request(2*i+1, false)
		c.reset(2*i+1, http2.ErrCodeCancel)
	}
	c.toldOff(http2.ErrCodeEnhanceYourCalm)
}

// A client may also make the server reset its streams (CVE-2025-8671).
func TestProvokedResetsCountAsResets(t *testing.T) {
	up := listenRaw(t, answering)
	for _, c := range []struct {
		name    string
		provoke func(c *rawPeer, id uint32)
	}{
		{"WINDOW_UPDATE of 0", func(c *rawPeer, id uint32) { c.request(id, false); c.windowUpdate(id, 0) }},
		{"window above 2^31-1", func(c *rawPeer, id uint32) { c.request(id, false); c.windowUpdate(id, maxWindow) }},
		{"priority on itself", func(c *rawPeer, id uint32) {
			c.request(id, false)
			c.write(func(fr *http2.Framer) error { return fr.WritePriority(id, http2.PriorityParam{StreamDep: id}) })
		}},
		{"more than content-length", func(c *rawPeer, id uint32) {
			c.request(id, false, "content-length", "1")
			c.data(id, []byte("xx"), false)
		}},
		{"less than content-length", func(c *rawPeer, id uint32) { c.request(id, true, "content-length", "1") }},
		{"trailers without END_STREAM", func(c *rawPeer, id uint32) { c.request(id, false); c.headers(id, false, "a", "b") }},
		{"malformed", func(c *rawPeer, id uint32) { c.request(id, true, "UPPER", "x") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{EarlyResets: 50}, up.addr, nil)
			defer bystander(t, g.addr)()
			cl := dialRaw(t, g.addr)
			for i := range uint32(100) {
				c.provoke(cl, 2*i+1)
			}
			cl.toldOff(http2.ErrCodeEnhanceYourCalm)
		})
	}
}

// Many resets among more calls that end well are a busy client's good right.
func TestResetsOfABusyClientAreAllowed(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{EarlyResets: 20}, up.addr, nil)
	c := dialRaw(t, g.addr)
	for i := range uint32(50) {
		for k := range uint32(3) {
			if got := c.statusOf(8*i + 2*k + 1); got != "0" {
				t.Fatalf("status %s", got)
			}
		}
		c.request(8*i+7, false)
		c.reset(8*i+7, http2.ErrCodeCancel)
	}
	c.sync()
	if bye := c.take(isType(http2.FrameGoAway)); len(bye) > 0 {
		t.Errorf("GOAWAY although a quarter was reset: %v", bye)
	}
}

func TestContinuationFlood(t *testing.T) {
	up := listenRaw(t, answering)
	begin := func(c *rawPeer) {
		c.write(func(fr *http2.Framer) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: nil, EndHeaders: false})
		})
	}
	next := func(c *rawPeer, b []byte) {
		c.write(func(fr *http2.Framer) error { return fr.WriteContinuation(1, false, b) })
	}
	t.Run("count", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		defer bystander(t, g.addr)()
		c := dialRaw(t, g.addr)
		begin(c)
		for range maxContinuations + 1 {
			next(c, nil)
		}
		c.toldOff(http2.ErrCodeEnhanceYourCalm)
	})
	t.Run("bytes", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		defer bystander(t, g.addr)()
		c := dialRaw(t, g.addr)
		begin(c)
		for range maxBlockBytes/maxFrameLen + 1 {
			next(c, make([]byte, maxFrameLen))
		}
		c.toldOff(http2.ErrCodeEnhanceYourCalm)
	})
	t.Run("time", func(t *testing.T) {
		g := newRig(t, Config{HandshakeTimeout: time.Second}, up.addr, nil)
		defer bystander(t, g.addr)()
		c := dialRaw(t, g.addr)
		begin(c)
		stop := time.Now().Add(patience)
		for n := 0; n < maxContinuations && time.Now().Before(stop); n++ { // every one is progress, and none the end
			next(c, nil)
			select {
			case <-c.done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		t.Error("a header block may last as long as it likes")
	})
}

// A header block that lasts is not the fault of one that was complete before.
func TestHeaderBlockIsTimedFromItsOwnBeginning(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, answering)
	g := newRig(t, Config{HandshakeTimeout: 2 * time.Second}, up.addr, nil)
	c := dialRaw(t, g.addr)
	var last uint32
	for id := uint32(1); id < 40; id += 2 {
		b := c.block(":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "application/grpc")
		var buf bytes.Buffer // the end of one block and the beginning of the next in one piece
		fr := http2.NewFramer(&buf, nil)
		if last != 0 {
			_ = fr.WriteContinuation(last, true, nil)
		}
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b, EndStream: true})
		c.raw(buf.Bytes())
		last = id
		time.Sleep(200 * time.Millisecond)
	}
	c.write(func(fr *http2.Framer) error { return fr.WriteContinuation(last, true, nil) })
	c.next("the last answer", isTrailers(last))
}

// deaf is a client whose receive buffer is small and that does not read.
func deaf(t *testing.T, addr string) *rawPeer {
	t.Helper()
	c := dialRawWith(t, addr, func(p *rawPeer) { _ = p.tcp().SetReadBuffer(64 << 10) })
	c.pause(true)
	return c
}

// shallow keeps the kernel from taking megabytes for a client that does not read.
func (g *rig) shallow(c *rawPeer) *conn {
	g.t.Helper()
	conn := g.connOf(c)
	var err error
	switch t := beneathTLS(conn.t).(type) {
	case *fdTransport:
		err = t.nc.(*net.TCPConn).SetWriteBuffer(64 << 10)
	case *polled:
		err = unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return conn
}

// flood writes b again and again until the relay has had enough of it.
func (g *rig) flood(c *rawPeer, b []byte) {
	g.t.Helper()
	conn := g.shallow(c)
	piece := bytes.Repeat(b, 1000)
	_ = c.nc.SetWriteDeadline(time.Now().Add(patience))
	for end := time.Now().Add(patience); time.Now().Before(end); {
		conn.mu.Lock()
		closing := conn.closing || conn.closed
		n := conn.queued() + len(conn.ctl)
		conn.mu.Unlock()
		if n > 4<<20 {
			g.t.Fatalf("%d bytes wait for a client that does not read", n)
		}
		if closing {
			return
		}
		c.raw(piece)
	}
	g.t.Fatal("the flood was not stopped")
}

// connOf returns the relay's end of a client's connection.
func (g *rig) connOf(c *rawPeer) *conn {
	g.t.Helper()
	for _, d := range g.snapshot() {
		if d.name == c.nc.LocalAddr().String() {
			return d
		}
	}
	g.t.Fatal("no such connection")
	return nil
}

func TestControlFloods(t *testing.T) {
	up := listenRaw(t, answering)
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"SETTINGS", appendSettings(nil)},
		{"PING", appendPing(nil, false, make([]byte, 8))},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{}, up.addr, nil)
			defer bystander(t, g.addr)()
			cl := deaf(t, g.addr)
			g.flood(cl, c.frame)
			cl.pause(false)
			cl.toldOff(http2.ErrCodeEnhanceYourCalm)
		})
	}
}

// Answers that the gateway makes need no window, and their streams end at once:
// neither flow control nor the limit on streams bounds them.
func TestClientThatDoesNotReadItsRefusals(t *testing.T) {
	up := listenRaw(t, answering)
	p := &recorder{}
	p.opened = func(c *Call) Verdict {
		if c.Path() == "/refuse/me" {
			return Refuse(&Status{Code: 12, Message: strings.Repeat("no", 1000)})
		}
		return To(&p.dispatch)
	}
	g := newRig(t, Config{}, up.addr, p)
	defer bystander(t, g.addr)()
	c := deaf(t, g.addr)
	conn := g.shallow(c)
	end := time.Now().Add(patience)
	_ = c.nc.SetWriteDeadline(end)
	for id := uint32(1); ; id += 2 { // sockets alone can hold tens of thousands
		c.headers(id, true, ":method", "POST", ":scheme", "http", ":path", "/refuse/me", "content-type", "application/grpc")
		if id%101 != 0 {
			continue
		}
		conn.mu.Lock()
		n, closing := conn.queued()+len(conn.ctl), conn.closing || conn.closed
		conn.mu.Unlock()
		if n > 4<<20 {
			t.Fatalf("%d bytes wait for a client that does not read", n)
		}
		if closing {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the relay never had enough")
		}
	}
}

// A hung server whose socket is full must not collect the calls of everybody.
func TestUpstreamThatDoesNotReadIsReplaced(t *testing.T) {
	var first *rawPeer
	up := listenRaw(t, func(p *rawPeer) {
		if first == nil {
			first = p
			_ = p.tcp().SetReadBuffer(4096)
			p.onRecv = func(f frame) {
				if f.typ == http2.FrameHeaders {
					p.paused = true // p.mu is held
				}
			}
			return
		}
		answering(p)
	})
	g := newRig(t, Config{MaxUpstreamConns: 1, StreamsPerConn: 1 << 20}, up.addr, nil)
	c := dialRaw(t, g.addr)
	big := strings.Repeat("x", 12<<10)
	answered := false
	for id := uint32(1); id < 8000 && !answered; id += 100 {
		for k := range uint32(50) {
			c.request(id+2*k, true, "big", big, "grpc-timeout", "100m")
		}
		for k := range uint32(50) {
			f, err := c.find(isTrailers(id + 2*k))
			if err != nil {
				t.Fatal(err)
			}
			answered = answered || f.field("grpc-status") == "0"
		}
		for _, u := range g.snapshot() {
			u.mu.Lock()
			n := u.queued()
			u.mu.Unlock()
			if n > 4<<20 {
				t.Fatalf("%d bytes wait for an upstream that does not read", n)
			}
		}
	}
	if !answered {
		t.Error("no call found another connection")
	}
}

// A thousand unread control frames are too many; a thousand that are read are not.
func TestBurstOfPingsFromAClientThatReads(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.raw(bytes.Repeat(appendPing(nil, false, make([]byte, 8)), 5000))
	c.sync()
	if got := c.statusOf(1); got != "0" {
		t.Errorf("status %s", got)
	}
}

func TestEmptyDataFlood(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	for range 200 {
		c.data(1, nil, false)
	}
	c.toldOff(http2.ErrCodeEnhanceYourCalm)
}

// Padding is charged to the windows but carries nothing.
func TestPaddedEmptyDataFlood(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	for range 200 {
		c.write(func(fr *http2.Framer) error { return fr.WriteDataPadded(1, false, nil, make([]byte, 255)) })
	}
	c.toldOff(http2.ErrCodeEnhanceYourCalm)
}

func TestOneByteDataFrames(t *testing.T) {
	const n = 50_000
	up := listenRaw(t, func(p *rawPeer) { p.credit = false })
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	var frames bytes.Buffer
	fr := http2.NewFramer(&frames, nil)
	for i := range n {
		_ = fr.WriteData(1, i == n-1, []byte{byte(i)})
	}
	c.raw(frames.Bytes())
	c.sync()
	if s := g.Stats(); s.BufferedBytes+s.ReplayBytes > 4*n {
		t.Errorf("%d bytes in pieces of one take %d bytes of buffers", n, s.BufferedBytes+s.ReplayBytes)
	}
	s := up.accept()
	got, count := 0, 0
	for got < n {
		f := s.next("DATA", isType(http2.FrameData))
		for _, b := range f.data {
			if b != byte(got) {
				t.Fatalf("byte %d is %d", got, b)
			}
			got++
		}
		count++
	}
	if count > n/100 {
		t.Errorf("%d one-byte frames went on as %d frames: not coalesced", n, count)
	}
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
}

func TestOversizedHeaderLists(t *testing.T) {
	up := listenRaw(t, answering)
	many := make([]string, 0, 400)
	for i := range 200 {
		many = append(many, fmt.Sprintf("field-%d", i), "x")
	}
	for _, c := range []struct {
		name  string
		extra []string
	}{
		{"bytes", []string{"big", strings.Repeat("x", 17<<10)}},
		{"fields", many},
		{"bytes in CONTINUATIONs", []string{"big", strings.Repeat("\x7f", 40<<10)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{}, up.addr, nil)
			cl := dialRaw(t, g.addr)
			cl.request(1, true, append([]string{"indexed", "by-both"}, c.extra...)...)
			f := cl.next("the refusal", isTrailers(1))
			if f.field(":status") != "431" || f.field("grpc-status") != "8" {
				t.Errorf("got %v, want 431 with RESOURCE_EXHAUSTED", f.fields)
			}
			// What was too large for a call was not too large for the compression state.
			cl.request(3, true, "indexed", "by-both")
			if f := cl.next("the next answer", isTrailers(3)); f.field("grpc-status") != "0" {
				t.Errorf("the next call got %v", f.fields)
			}
		})
	}
}

func TestStreamsAboveTheLimitAreRefused(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{MaxStreams: 10}, up.addr, nil)
	c := dialRaw(t, g.addr)
	for id := uint32(1); id <= 19; id += 2 {
		c.request(id, false)
	}
	c.request(21, false, "indexed-above", "the-limit")
	if f := c.next("RST_STREAM", isReset4(21)); f.code != http2.ErrCodeRefusedStream {
		t.Errorf("RST_STREAM with %v, want REFUSED_STREAM", f.code)
	}
	c.data(21, []byte("crossed"), true)
	s := up.accept()
	s.next("the first call", isHeaders(1))
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
	c.reset(1, http2.ErrCodeNo)
	c.request(23, true, "indexed-above", "the-limit")
	h := s.next("the next call", func(f frame) bool { return f.typ == http2.FrameHeaders && f.field("indexed-above") != "" })
	if h.field("indexed-above") != "the-limit" {
		t.Errorf("compression state lost: %v", h.fields)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	up := listenRaw(t, answering)
	for _, c := range []struct{ name, send string }{
		{"nothing", ""},
		{"half a preface", http2.ClientPreface[:10]},
		{"no SETTINGS", http2.ClientPreface},
		{"part of SETTINGS", http2.ClientPreface + "\x00\x00\x06\x04\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, Config{HandshakeTimeout: time.Second}, up.addr, nil)
			defer bystander(t, g.addr)()
			p := dialRawQuiet(t, g.addr)
			p.raw([]byte(c.send))
			p.ended()
		})
	}
}

func TestSlowLorisFrames(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, answering)
	g := newRig(t, Config{HandshakeTimeout: time.Second}, up.addr, nil)
	defer bystander(t, g.addr)()
	c := dialRaw(t, g.addr)
	c.request(1, false)
	b := appendFrameHeader(nil, 1000, http2.FrameData, 0, 1)
	for i := 0; ; i++ {
		if i < len(b) {
			c.raw(b[i : i+1])
		} else {
			c.raw([]byte{0})
		}
		select {
		case <-c.done:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if i > 200 {
			t.Fatal("a frame may take as long as it likes")
		}
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{MaxConnsPerAddr: 3}, up.addr, nil)
	keep := make([]*rawPeer, 3)
	for i := range keep {
		keep[i] = dialRaw(t, g.addr)
	}
	p := dialRawQuiet(t, g.addr)
	p.ended()
	if got := keep[0].statusOf(1); got != "0" {
		t.Errorf("status %s on a connection from before", got)
	}
	keep[1].close()
	waitFor(t, "room", func() bool { return g.Stats().Conns == 2 })
	if got := dialRaw(t, g.addr).statusOf(1); got != "0" {
		t.Errorf("status %s on a connection after one had gone", got)
	}
}

func TestAcceptPausesAtTheLimitOfConnections(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{MaxConns: 2}, up.addr, nil)
	first, second := dialRaw(t, g.addr), dialRaw(t, g.addr)
	third := connectRaw(t, g.addr) // the kernel takes it
	begun := make(chan struct{})
	go func() { // with TLS, it waits already here
		defer close(begun)
		third.raw([]byte(http2.ClientPreface))
		third.settings()
		third.start()
	}()
	if got := first.statusOf(1); got != "0" {
		t.Errorf("status %s on a connection within the limit", got)
	}
	if n := g.Stats().Conns; n > 2 {
		t.Errorf("%d connections, the limit is 2", n)
	}
	select {
	case <-third.done:
		t.Error("the third connection was closed; it should wait")
	default:
	}
	second.close()
	<-begun
	if got := third.statusOf(1); got != "0" {
		t.Errorf("status %s on the connection that waited", got)
	}
}

// A client that sends more than its window, and a window that grows too far.
func TestBrokenFlowControl(t *testing.T) {
	up := listenRaw(t, nil)
	t.Run("connection window above 2^31-1", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		c := dialRaw(t, g.addr)
		c.windowUpdate(0, maxWindow)
		c.toldOff(http2.ErrCodeFlowControl)
	})
	t.Run("stream window above 2^31-1", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		c := dialRaw(t, g.addr)
		c.request(1, false)
		c.windowUpdate(1, maxWindow)
		if f := c.next("RST_STREAM", isReset4(1)); f.code != http2.ErrCodeFlowControl {
			t.Errorf("RST_STREAM with %v, want FLOW_CONTROL_ERROR", f.code)
		}
	})
	t.Run("SETTINGS raise a stream window above 2^31-1", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		c := dialRaw(t, g.addr)
		c.request(1, false)
		c.windowUpdate(1, maxWindow-initialWindow)
		c.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: initialWindow + 1})
		c.toldOff(http2.ErrCodeFlowControl)
	})
	t.Run("initial window above 2^31-1", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		c := dialRaw(t, g.addr)
		c.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		c.toldOff(http2.ErrCodeFlowControl)
	})
	t.Run("DATA beyond the stream window", func(t *testing.T) {
		gate := newGatedDial()
		g := newRigTo(t, Config{StreamWindow: initialWindow, ConnectTimeout: time.Minute}, UpstreamConfig{Addr: up.addr, Dial: gate.dial}, nil)
		c := dialRaw(t, g.addr)
		c.request(1, false)
		for range 5 {
			c.data(1, make([]byte, maxFrameLen), false)
		}
		if f := c.next("RST_STREAM", isReset4(1)); f.code != http2.ErrCodeFlowControl {
			t.Errorf("RST_STREAM with %v, want FLOW_CONTROL_ERROR", f.code)
		}
	})
	t.Run("DATA beyond the connection window", func(t *testing.T) {
		g := newRig(t, Config{ConnWindow: initialWindow}, up.addr, nil)
		c := dialRaw(t, g.addr)
		conn := g.connOf(c)
		conn.mu.Lock() // as if the credit had not been given back in time
		conn.recvWin = 100
		conn.mu.Unlock()
		c.request(1, false)
		c.data(1, make([]byte, 200), false)
		c.toldOff(http2.ErrCodeFlowControl)
	})
}
