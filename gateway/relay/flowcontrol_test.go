package relay

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// ledger is a peer's account of what it has let the relay send. It reports every
// byte beyond that, and every byte that is not the one that was sent.
type ledger struct {
	p *rawPeer

	// Guarded by p.mu.
	rnd         *rand.Rand
	connGranted int64
	connGot     int64
	initial     int64   // in force: acknowledged
	pending     []int64 // sent, not yet acknowledged
	granted     map[uint32]int64
	got         map[uint32]int64 // payload bytes, padding included
	bytes       map[uint32]int64 // of content
	seed        map[uint32]byte  // of the content that arrives
	length      map[uint32]int64 // announced
	open        map[uint32]bool  // has begun, as both sides know
	ended       map[uint32]bool  // nothing more will arrive
	reset       map[uint32]bool  // nor need anything be sent
}

func newLedger(p *rawPeer, seed uint64) *ledger {
	p.credit = false
	l := &ledger{p: p, rnd: rand.New(rand.NewPCG(seed, 3)), connGranted: initialWindow, initial: initialWindow,
		granted: make(map[uint32]int64), got: make(map[uint32]int64), bytes: make(map[uint32]int64),
		seed: make(map[uint32]byte), length: make(map[uint32]int64), ended: make(map[uint32]bool), open: make(map[uint32]bool),
		reset: make(map[uint32]bool), pending: []int64{initialWindow}} // the first SETTINGS
	return l
}

// pattern is the content of every body here.
func pattern(seed byte, at int64) byte { return seed + byte(at*7) + byte(at>>8) }

func patterned(seed byte, from, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = pattern(seed, from+int64(i))
	}
	return b
}

// receive accounts for a frame; p.mu is held.
func (l *ledger) receive(f frame) {
	switch f.typ {
	case http2.FrameSettings:
		if f.ack && len(l.pending) > 0 {
			l.initial, l.pending = l.pending[0], l.pending[1:]
		}
	case http2.FrameHeaders:
		if v := f.field("seed"); v != "" {
			n, _ := strconv.Atoi(v)
			l.seed[f.id] = byte(n)
			n, _ = strconv.Atoi(f.field("len"))
			l.length[f.id] = int64(n)
		}
		if f.end && f.field("grpc-status") == "0" {
			l.finish(f.id)
		}
		l.ended[f.id] = l.ended[f.id] || f.end
	case http2.FrameRSTStream:
		l.ended[f.id], l.reset[f.id] = true, true
	case http2.FrameData:
		l.connGot += int64(f.length)
		l.got[f.id] += int64(f.length)
		if l.connGot > l.connGranted {
			l.p.t.Errorf("%d bytes on the connection, %d granted", l.connGot, l.connGranted)
		}
		base := l.initial
		for _, v := range l.pending {
			base = max(base, v)
		}
		if l.got[f.id] > base+l.granted[f.id] && f.length > 0 {
			l.p.t.Errorf("stream %d: %d bytes, %d granted", f.id, l.got[f.id], base+l.granted[f.id])
		}
		for i, b := range f.data {
			if want := pattern(l.seed[f.id], l.bytes[f.id]+int64(i)); b != want {
				l.p.t.Errorf("stream %d: byte %d is %d, want %d", f.id, l.bytes[f.id]+int64(i), b, want)
				break
			}
		}
		l.bytes[f.id] += int64(len(f.data))
		if f.end {
			l.finish(f.id)
			l.ended[f.id] = true
		}
	}
}

// finish checks that a body is whole; p.mu is held.
func (l *ledger) finish(id uint32) {
	if l.bytes[id] != l.length[id] {
		l.p.t.Errorf("stream %d ended well after %d of %d bytes", id, l.bytes[id], l.length[id])
	}
}

// grant lets the relay send a little more, on the connection and on a stream that
// is under way, and sometimes changes the window of all streams.
func (l *ledger) grant() {
	p := l.p
	p.mu.Lock()
	var upd []http2.Setting
	if l.rnd.IntN(15) == 0 {
		v := int64(l.rnd.IntN(3000))
		l.pending = append(l.pending, v)
		upd = []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: uint32(v)}}
	}
	// Never more than a few thousand bytes ahead, so that windows are what limits.
	var conn uint32
	if ahead := l.connGranted - l.connGot; ahead < 30_000 {
		conn = uint32(1 + l.rnd.IntN(30_000))
		l.connGranted += int64(conn)
	}
	streams := make(map[uint32]uint32)
	for id := range l.open { // a few: the order is random
		if !l.ended[id] && len(streams) < 4 {
			streams[id] = uint32(1 + l.rnd.IntN(8000))
			l.granted[id] += int64(streams[id])
		}
	}
	p.mu.Unlock()
	if upd != nil {
		p.settings(upd...)
	}
	if conn > 0 {
		p.windowUpdate(0, conn)
	}
	for id, n := range streams {
		p.windowUpdate(id, n)
	}
}

// keepGranting grants until stop is closed.
func (l *ledger) keepGranting(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-l.p.done:
			return
		case <-time.After(500 * time.Microsecond):
			l.grant()
		}
	}
}

// sendBody sends n bytes in random pieces, some padded, as the relay's windows
// permit, and gives up where giveUp says. It reports whether it sent all.
func (l *ledger) sendBody(id uint32, seed byte, n int64, end bool, giveUp int64) bool {
	for at := int64(0); at < n; {
		l.p.mu.Lock()
		k := min(n-at, 1+int64(l.rnd.IntN(5000)))
		pad := 0
		if l.rnd.IntN(4) == 0 {
			pad = 1 + l.rnd.IntN(200)
		}
		stop := l.reset[id] || at >= giveUp
		l.p.mu.Unlock()
		if stop {
			return false
		}
		length := int(k)
		if pad > 0 {
			length += 1 + pad
		}
		if !l.p.allow(id, length) {
			return false
		}
		piece := patterned(seed, at, k)
		last := end && at+k == n
		l.p.write(func(fr *http2.Framer) error {
			if pad > 0 {
				return fr.WriteDataPadded(id, last, piece, make([]byte, pad))
			}
			return fr.WriteData(id, last, piece)
		})
		at += k
	}
	if n == 0 && end {
		l.p.data(id, nil, true)
	}
	return true
}

// size draws the length of a body; one in six needs several of the relay's windows.
func (l *ledger) size() int64 {
	if l.draw(6) == 0 {
		return int64(100_000 + l.draw(100_000))
	}
	return int64(l.draw(20_000))
}

// draw returns a random number below n.
func (l *ledger) draw(n int) int {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.rnd.IntN(n)
}

// wait returns once a stream has ended.
func (l *ledger) wait(id uint32) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	for !l.ended[id] && l.p.err == nil {
		l.p.cond.Wait()
	}
}

// Every byte is counted: whatever happens to the calls, at the end every window is
// what it was in the beginning, as both sides of every connection see it.
func TestNoCreditIsLost(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { testNoCreditIsLost(t, seed) })
	}
}

func testNoCreditIsLost(t *testing.T, seed uint64) {
	stop := make(chan struct{})
	var granting, calls sync.WaitGroup
	var mu sync.Mutex
	var ledgers []*ledger
	up := listenRaw(t, func(p *rawPeer) {
		mu.Lock()
		l := newLedger(p, seed*100+uint64(len(ledgers)))
		ledgers = append(ledgers, l)
		granting.Go(func() { l.keepGranting(stop) })
		mu.Unlock()
		p.onRecv = func(f frame) {
			l.receive(f)
			if f.typ == http2.FrameHeaders && f.field(":path") != "" {
				l.open[f.id] = true
				calls.Go(func() { l.serveCall(f.id) })
			}
		}
	})
	g := newRig(t, Config{StreamWindow: initialWindow, ConnWindow: 200_000, MaxStreams: 12, MaxUpstreamConns: 2,
		StreamsPerConn: 15, EarlyResets: 1 << 30}, up.addr, nil)
	var opened sync.WaitGroup
	for i := range 4 {
		var l *ledger
		c := dialRawWith(t, g.addr, func(p *rawPeer) {
			l = newLedger(p, seed*100+50+uint64(i))
			p.onRecv = l.receive
		})
		mu.Lock()
		ledgers = append(ledgers, l)
		mu.Unlock()
		granting.Go(func() { l.keepGranting(stop) })
		var idMu sync.Mutex
		id := uint32(1)
		for range 15 { // more at once than the relay permits
			opened.Go(func() {
				for range 5 {
					body, s := l.size(), byte(l.draw(256))
					idMu.Lock()
					mine := id
					id += 2
					c.request(mine, false, "grpc-timeout", "30S", "seed", strconv.Itoa(int(s)), "len", strconv.FormatInt(body, 10))
					idMu.Unlock()
					c.mu.Lock()
					l.open[mine] = true
					c.mu.Unlock()
					l.clientCall(mine, s, body)
				}
			})
		}
	}
	opened.Wait()
	g.settled()
	mu.Lock()
	defer mu.Unlock()
	for _, l := range ledgers {
		l.p.sync() // a server may not have read yet of a call that its client has broken off
	}
	calls.Wait()
	close(stop)
	granting.Wait()
	g.settled()
	g.windows()
	for _, l := range ledgers {
		waitFor(t, "the relay's window to be whole", func() bool {
			l.p.mu.Lock()
			defer l.p.mu.Unlock()
			return l.p.connWin == 200_000
		})
	}
	for _, l := range ledgers {
		var c *conn
		for _, d := range g.snapshot() {
			if !d.isClient() && d.name == l.p.nc.LocalAddr().String() || d.isClient() && d.localAddr() == l.p.nc.RemoteAddr().String() {
				c = d
			}
		}
		if c == nil {
			t.Error("a connection did not last")
			continue
		}
		waitFor(t, "both accounts to agree", func() bool {
			l.p.mu.Lock()
			want := l.connGranted - l.connGot
			l.p.mu.Unlock()
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.sendWin == want
		})
	}
	kinds := make(map[OutcomeKind]int)
	for _, o := range g.policy.outcomes() {
		kinds[o.Kind]++
	}
	t.Logf("outcomes: %v", kinds)
	if kinds[Answered] == 0 || kinds[Canceled] == 0 || kinds[Reset] == 0 {
		t.Errorf("outcomes %v: not every kind was seen", kinds)
	}
}

func (c *conn) localAddr() string {
	switch t := beneathTLS(c.t).(type) {
	case *fdTransport:
		return t.nc.LocalAddr().String()
	case *polled:
		sa, err := unix.Getsockname(t.fd)
		if err != nil {
			return ""
		}
		return fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	}
	return ""
}

// clientCall sends a body and waits for the answer, or breaks off.
func (l *ledger) clientCall(id uint32, seed byte, n int64) {
	giveUp := n
	if l.draw(4) == 0 {
		giveUp = int64(l.draw(int(n) + 1))
	}
	if !l.sendBody(id, seed, n, true, giveUp) && giveUp < n {
		l.p.mu.Lock()
		l.ended[id] = true
		l.p.mu.Unlock()
		l.p.reset(id, http2.ErrCodeCancel)
		if k := l.draw(3000); l.draw(2) == 0 && l.p.allow(id+1_000_000, k) {
			l.p.data(id, make([]byte, k), false) // for a stream that is no more
		}
		return
	}
	l.wait(id)
	if k := l.draw(500); l.draw(4) == 0 && l.p.allow(id+1_000_000, k) {
		l.p.data(id, make([]byte, k), false)
	}
}

// serveCall answers with a body of its own, or breaks off.
func (l *ledger) serveCall(id uint32) {
	seed, n := byte(l.draw(256)), l.size()
	p := l.p
	if l.draw(10) == 0 {
		p.trailersOnly(id, "9")
		return
	}
	p.headers(id, false, ":status", "200", "content-type", "application/grpc", "seed", strconv.Itoa(int(seed)), "len", strconv.FormatInt(n, 10))
	giveUp := n
	if l.draw(5) == 0 {
		giveUp = int64(l.draw(int(n) + 1))
	}
	if !l.sendBody(id, seed, n, false, giveUp) && giveUp < n {
		p.reset(id, http2.ErrCodeInternal)
		return
	}
	if l.draw(3) > 0 {
		l.wait(id) // for the end of the request; else answer early
	}
	p.trailers(id, "0")
}

// Padding is received like content, though nothing of it leaves for the other side.
func TestPaddingIsCreditedAtOnce(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{StreamWindow: initialWindow, ConnWindow: initialWindow}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	const n = 2000 // frames of 256 bytes, one of them content: several windows
	sent := make(chan bool, 1)
	go func() {
		for i := range n {
			if !c.allow(1, 257) {
				sent <- false
				return
			}
			c.write(func(fr *http2.Framer) error { return fr.WriteDataPadded(1, i == n-1, []byte{1}, make([]byte, 255)) })
		}
		sent <- true
	}()
	select {
	case ok := <-sent:
		if !ok {
			t.Fatal("the connection ended")
		}
	case <-time.After(patience):
		c.close()
		<-sent
		t.Fatal("padding was not given back: the client waits for its window")
	}
	s := up.accept()
	s.body(1, n)
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
}
