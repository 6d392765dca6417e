package relay

import (
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// quietConn is a connection nobody serves, for tests of its bookkeeping.
func quietConn(t testing.TB) (*conn, *worker) {
	t.Helper()
	r := New(Config{}, &recorder{over: make(map[*Call]int)})
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close(); r.Close() })
	c := newConn(r, &pipeTransport{nc: near}, &upstreamSide{}, "quiet")
	return c, r.newWorker()
}

// quietStream opens a stream on c with the window the peer gave.
func quietStream(c *conn, id uint32, window int64) *stream {
	s := &stream{conn: c, id: id, sendWin: window, recvWin: int64(c.relay.cfg.StreamWindow), call: &Call{relay: c.relay}}
	c.streams[id] = s
	return s
}

// sentTo returns how many bytes of DATA for a stream are in the write queue.
func sentTo(c *conn, id uint32) (n int) {
	if c.out == nil {
		return 0
	}
	for b := c.out.b; len(b) > 0; {
		h := parseFrameHeader(b)
		if h.stream == id && h.typ == http2.FrameData {
			n += h.length
		}
		b = b[frameHeaderLen+h.length:]
	}
	return n
}

func TestNewcomersDoNotPassStreamsInLine(t *testing.T) {
	c, w := quietConn(t)
	waiting, newcomer := quietStream(c, 1, 1000), quietStream(c, 3, 1000)
	c.sendWin = 0
	waiting.send(w, make([]byte, 100), false, nil)
	c.sendWin = 100 // and before anybody has looked at who waits:
	newcomer.send(w, make([]byte, 100), false, nil)
	c.schedule(w)
	if got, gotNew := sentTo(c, 1), sentTo(c, 3); got != 100 || gotNew != 0 {
		t.Errorf("the stream in line sent %d, the newcomer %d; want 100 and 0", got, gotNew)
	}
	waiting.removeLocked()
	newcomer.removeLocked()
}

func TestWindowIsSharedRoundRobin(t *testing.T) {
	c, w := quietConn(t)
	c.sendWin = 0
	var all []*stream
	for id := uint32(1); id < 9; id += 2 {
		s := quietStream(c, id, 1<<20)
		s.send(w, make([]byte, 4*pieceLen), true, nil)
		all = append(all, s)
	}
	c.sendWin = 6 * pieceLen
	c.schedule(w)
	for i, want := range []int{2, 2, 1, 1} {
		if got := sentTo(c, all[i].id); got != want*pieceLen {
			t.Errorf("stream %d sent %d bytes, want %d", all[i].id, got, want*pieceLen)
		}
	}
	for _, s := range all {
		s.removeLocked()
	}
}

// Streams come and go while a connection's window stays closed.
func TestEndedStreamsLeaveTheLine(t *testing.T) {
	c, w := quietConn(t)
	c.sendWin = 0
	for id := uint32(1); id < 2001; id += 2 {
		s := quietStream(c, id, 1000)
		s.send(w, make([]byte, 100), false, nil)
		if id%3 == 0 {
			s.resetLocked(w, http2.ErrCodeCancel)
		} else {
			s.removeLocked()
		}
	}
	if n := c.ready.len(); n != 0 {
		t.Errorf("%d ended streams are still in line", n)
	}
	if c.buffered != 0 || c.relay.buffers.used.Load() != 0 {
		t.Errorf("%d bytes buffered here, %d in all, want none", c.buffered, c.relay.buffers.used.Load())
	}
}

func TestFramesThatCrossOurResetsAreForgiven(t *testing.T) {
	var r recentResets
	for id := uint32(1); id <= 4001; id += 2 {
		r.add(id)
	}
	for id := uint32(4001); id > 4001-2*1000; id -= 2 {
		if !r.has(id) {
			t.Fatalf("stream %d, among the last thousand, is forgotten", id)
		}
	}
	if r.has(1) || r.has(4003) {
		t.Error("streams from long ago or never reset are remembered")
	}
}

// RST_STREAM for what arrives late must stay behind the answer.
func TestResetDoesNotOvertakeTheAnswer(t *testing.T) {
	up := listenRaw(t, nil)
	p := &recorder{}
	p.opened = func(*Call) Verdict { return Refuse(&Status{Code: 12, Message: "no"}) }
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.pause(true)
	b := c.block(":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "application/grpc")
	var burst []byte
	const n = 1500 // more than are remembered, in one chunk with their DATA
	for i := range uint32(n) {
		burst = append(appendFrameHeader(burst, len(b), http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2*i+1), b...)
		b = c.block(":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "application/grpc")
	}
	for i := range uint32(n) {
		burst = append(appendFrameHeader(burst, 1, http2.FrameData, 0, 2*i+1), 'x')
	}
	c.raw(burst)
	c.pause(false)
	c.sync()
	seen := make(map[uint32]http2.FrameType)
	for _, f := range c.take(func(f frame) bool { return f.id != 0 }) {
		if _, ok := seen[f.id]; !ok {
			seen[f.id] = f.typ
		}
	}
	for id, typ := range seen {
		if typ != http2.FrameHeaders {
			t.Fatalf("stream %d: %v came before the answer", id, typ)
		}
	}
	if len(seen) != n {
		t.Errorf("%d calls answered, want %d", len(seen), n)
	}
}
