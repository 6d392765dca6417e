package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// fedWire returns a tls.Conn that has what feed is given, and the client that makes records for it.
func fedWire(t *testing.T) (tc *tls.Conn, w *wire, peer *recordPeer, sealed *[]byte) {
	t.Helper()
	server, client := testTLS(t)
	near, far := socketPair(t)
	w = &wire{Conn: near}
	tc = tls.Server(w, server)
	done := make(chan error, 1)
	go func() { done <- tc.Handshake() }()
	peer = shakeHands(t, far, client, true)
	peer.cut(nil) // the last flight
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.in.looped, w.queuing = true, true
	sealed = new([]byte)
	peer.cut = func(b []byte) { *sealed = append(*sealed, b...) }
	return tc, w, peer, sealed
}

// feed is one read of the loop.
func (w *wire) feed(b []byte) {
	w.in.buf = readBufs.Get().(*byteBuf)
	w.in.pos, w.in.end = 0, copy(w.in.buf.b, b)
	w.in.left = recordsAtOnce
}

// readAll reads until there is nothing.
func readAll(t *testing.T, tc *tls.Conn, w *wire) []byte {
	t.Helper()
	var all []byte
	b := make([]byte, 100)
	for {
		n, err := tc.Read(b)
		all = append(all, b[:n]...)
		if errors.Is(err, errNothingYet) {
			w.in.drop()
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Wherever a read ends, in a record's header, in its bytes, in a handshake message of several records or between two
// of them, tls.Conn gives everything before and goes on with the next read: a promise of crypto/tls that loops need.
func TestTLSRecordsMayBeCutAnywhere(t *testing.T) {
	tc, w, peer, sealed := fedWire(t)
	round := func() []byte {
		*sealed = nil
		peer.recordLen = func() int { return 7 }
		_, _ = peer.Write([]byte("some bytes in three"))
		peer.send(func(k *recordKeys) []byte { return k.sealUpdate(true, true) })
		peer.send(func(k *recordKeys) []byte { return k.seal(recordData, nil) })
		peer.send(func(k *recordKeys) []byte { return k.sealUpdate(false, false) })
		_, _ = peer.Write([]byte(" records"))
		return *sealed
	}
	const want = "some bytes in three records"
	whole := round()
	for cut := range len(whole) + 1 {
		if cut > 0 {
			whole = round() // keys and counters move on
		}
		w.feed(whole[:cut])
		got := readAll(t, tc, w)
		w.feed(whole[cut:])
		if got = append(got, readAll(t, tc, w)...); string(got) != want {
			t.Fatalf("cut after %d bytes of %d: %q", cut, len(whole), got)
		}
	}
	var got []byte
	for _, b := range round() {
		w.feed([]byte{b})
		got = append(got, readAll(t, tc, w)...)
	}
	if string(got) != want {
		t.Fatalf("byte by byte: %q", got)
	}
	if !w.in.dry() || w.in.buf != nil {
		t.Error("something is held when all has been read")
	}
}

// tls.Conn is handed one record at a time, and no more of them than a turn may take, though one Read of it goes through
// any number that bring nothing to read.
func TestTLSTurnsAreBounded(t *testing.T) {
	tc, w, peer, sealed := fedWire(t)
	records := 0
	for range 40 {
		for range 10 { // more than 16 in a row are refused by crypto/tls
			peer.send(func(k *recordKeys) []byte { return k.sealUpdate(false, false) })
			records++
		}
		_, _ = peer.Write([]byte{'x'})
		records++
	}
	w.feed(*sealed)
	got, turns := 0, 0
	for ; w.in.pos < w.in.end; turns++ {
		w.in.left = recordsAtOnce
		from := w.in.pos
		for {
			n, err := tc.Read(make([]byte, 10))
			got += n
			if errors.Is(err, errNothingYet) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		taken := 0
		var at recordCursor
		for b := w.in.buf.b[from:w.in.pos]; len(b) > 0; taken++ {
			b = b[at.pass(b):]
		}
		if taken > recordsAtOnce || !at.between() {
			t.Fatalf("turn %d took %d records, the limit is %d", turns, taken, recordsAtOnce)
		}
	}
	if want := (records + recordsAtOnce - 1) / recordsAtOnce; got != 40 || turns != want {
		t.Errorf("%d bytes in %d turns, want 40 in %d", got, turns, want)
	}
}

func FuzzRecordCursor(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 2, 1, 2, 23, 3, 3, 0, 0, 22, 3, 3, 0xff, 0xff, 1}, uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		var ends []int // as told by whoever sees all at once
		for at := 0; at+recordHeaderLen <= len(b); {
			at += recordHeaderLen + int(b[at+3])<<8 + int(b[at+4])
			if at <= len(b) {
				ends = append(ends, at)
			}
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		var at recordCursor
		var got []int
		for pos := 0; pos < len(b); {
			n := at.pass(b[pos:min(len(b), pos+1+rnd.IntN(8))])
			if n == 0 {
				t.Fatalf("no byte passes at %d", pos)
			}
			if pos += n; at.between() {
				got = append(got, pos)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(ends) {
			t.Fatalf("records end at %v, want %v", got, ends)
		}
	})
}

// echoing answers every call with what it brings, as it comes.
func echoing(p *rawPeer) {
	go func() {
		open := make(map[uint32]bool)
		for {
			f, err := p.await(func(f frame) bool { return f.typ == http2.FrameHeaders || f.typ == http2.FrameData })
			if err != nil && p.gone() {
				return
			}
			switch {
			case err != nil: // nothing has come for long
			case !open[f.id]:
				open[f.id] = true
				p.answerHead(f.id)
			case len(f.data) > 0:
				if !p.allow(f.id, len(f.data)) {
					return
				}
				p.data(f.id, f.data, false)
			}
			if f.end {
				p.trailers(f.id, "0")
			}
		}
	}()
}

func (p *rawPeer) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// restless has a peer make records of all lengths, cut them anywhere, and change keys now and then.
func (p *recordPeer) restless(seed uint64, asked *atomic.Int32) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	tiny := false
	p.recordLen = func() int {
		if rnd.IntN(50) == 0 {
			tiny = !tiny
		}
		if tiny {
			return 1 + rnd.IntN(20)
		}
		return 1 + rnd.IntN(16<<10)
	}
	p.before = func() (b []byte) {
		if rnd.IntN(5) == 0 { // of hundreds of records, some will
			request := rnd.IntN(2) == 0
			if request {
				asked.Add(1)
			}
			b = p.out.sealUpdate(request, rnd.IntN(2) == 0)
		}
		return b
	}
	send := p.cut
	p.cut = func(b []byte) {
		for rnd.IntN(2) == 0 && len(b) > 0 {
			n := 1 + rnd.IntN(len(b))
			send(b[:n])
			b = b[n:]
			if rnd.IntN(4) == 0 {
				time.Sleep(time.Millisecond) // or else it may arrive in one piece all the same
			}
		}
		send(b)
	}
}

// A client sends a burst and then nothing until all of it is back: whatever were left behind in some buffer, of which
// no event tells, would be missed. Records are of all lengths, cut anywhere, several in a read, and keys change meanwhile.
func TestTLSBurstsComeThroughWhole(t *testing.T) {
	server, client := testTLS(t)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			var asked, askedAbove atomic.Int32
			up := listenRawOver(t, func(nc net.Conn) net.Conn {
				p := shakeHands(t, nc, server, false)
				p.restless(seed+100, &askedAbove)
				return p
			}, echoing)
			g := newRigTo(t, Config{TLS: server}, UpstreamConfig{Addr: up.addr, TLS: func() (*tls.Config, error) { return client, nil }}, nil)
			nc, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			below := shakeHands(t, nc, client, true)
			below.restless(seed, &asked)
			c := newRawPeer(t, below)
			c.begin()
			c.request(1, false)
			rnd := rand.New(rand.NewPCG(seed, 3))
			for range 60 {
				n := 1 + rnd.IntN(100)
				switch rnd.IntN(4) {
				case 0:
					n = 1 + rnd.IntN(150_000) // a window, less what the relay may still owe of it
				case 1:
					n = 1 + rnd.IntN(20_000)
				}
				if !c.allow(1, n) {
					t.Fatal("the connection ended")
				}
				sent := make([]byte, n)
				for i := range sent {
					sent[i] = byte(rnd.Uint32())
				}
				var frames []byte
				for rest := sent; len(rest) > 0; {
					k := min(len(rest), 1+rnd.IntN(maxFrameLen))
					frames = append(appendFrameHeader(frames, k, http2.FrameData, 0, 1), rest[:k]...)
					rest = rest[k:]
				}
				c.raw(frames)
				if got := c.body(1, n); !bytes.Equal(got, sent) {
					t.Fatalf("a burst of %d bytes came back as %d, or others", n, len(got))
				}
			}
			c.data(1, nil, true)
			c.next("trailers", isTrailers(1))
			c.sync() // and so all answers to new keys are there
			if want := int(asked.Load()); below.updated() != want || want == 0 {
				t.Errorf("%d answers to new keys, want %d and some", below.updated(), want)
			}
			if askedAbove.Load() == 0 {
				t.Error("the server never changed keys: this shows less than it should")
			}
		})
	}
}

// What comes with the end of the handshake has been read by it, and nothing may ever follow that.
func TestTLSBytesBehindTheHandshakeAreSeen(t *testing.T) {
	server, client := testTLS(t)
	up := listenRaw(t, answering)
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	below := shakeHands(t, nc, client, true) // its last flight is still to come
	var all []byte
	send := below.cut
	below.cut = func(b []byte) { all = append(all, b...) }
	c := newRawPeer(t, below)
	c.ackSettings = false
	c.raw([]byte(http2.ClientPreface))
	c.settings()
	c.request(1, true)
	send(all)
	c.start()
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s", got)
	}
}

// Wherever a client breaks off, nothing of it stays.
func TestTLSClientsThatBreakOff(t *testing.T) {
	server, client := testTLS(t)
	up := listenRaw(t, nil)
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	const cuts = 30
	for i := range cuts {
		nc, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		below := shakeHands(t, nc, client, true)
		c := newRawPeer(t, below)
		c.begin()
		c.request(1, false)
		c.sync()
		var sealed []byte
		send := below.cut
		below.cut = func(b []byte) { sealed = append(sealed, b...) }
		c.data(1, make([]byte, 1000), false)
		if i == 0 {
			below.send(func(k *recordKeys) []byte { return k.seal(recordAlert, []byte{1, 0}) }) // close_notify
			send(sealed)
			c.ended() // it is the relay that closes the socket
			continue
		}
		send(sealed[:(len(sealed)-1)*i/cuts])
		c.close()
	}
	waitFor(t, "the connections to be gone", func() bool { return g.Stats().Conns == 0 && g.Calls() == 0 })
	for _, o := range g.policy.outcomes() {
		if o.Kind != Canceled {
			t.Errorf("a call ended as %v", o.Kind)
		}
	}
}

// Who breaks the rules of TLS is told so.
func TestTLSFaultsAreAnswered(t *testing.T) {
	server, client := testTLS(t)
	up := listenRaw(t, answering)
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	for _, c := range []struct {
		name string
		seal func(k *recordKeys) []byte
		want alertError
	}{
		{"garbage", func(*recordKeys) []byte { return append([]byte{recordData, 3, 3, 0, 40}, make([]byte, 40)...) }, 20},
		{"too long", func(*recordKeys) []byte { return append([]byte{recordData, 3, 3, 0xff, 0xff}, make([]byte, 400)...) }, 22},
		{"a handshake once more", func(k *recordKeys) []byte { return k.seal(recordHandshake, []byte{1, 0, 0, 1, 0}) }, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			p := shakeHands(t, nc, client, true)
			h := newRawPeer(t, p)
			h.raw([]byte(http2.ClientPreface))
			h.settings()
			p.send(c.seal)
			_ = nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, p); !errors.Is(err, c.want) {
				t.Errorf("the connection ended with %v, want %v", err, c.want)
			}
		})
	}
	waitFor(t, "the connections to be gone", func() bool { return g.Stats().Conns == 0 })
}

// Clients that send nothing but records of one byte and new keys, as fast as they can, keep nobody else from being served.
func TestTLSFloodsStarveNobody(t *testing.T) {
	server, client := testTLS(t)
	up := listenRaw(t, answering)
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	for range 2 {
		nc, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		below := shakeHands(t, nc, client, true)
		c := newRawPeer(t, below)
		c.begin()
		below.recordLen = func() int { return 1 }
		below.before = func() (b []byte) {
			for range 3 {
				b = append(b, below.out.sealUpdate(false, false)...)
			}
			return b
		}
		piece := bytes.Repeat([]byte{0, 0, 5, byte(http2.FramePriority), 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}, 20)
		flooding := make(chan struct{})
		go func() {
			defer close(flooding)
			for !c.gone() {
				_ = nc.SetWriteDeadline(time.Now().Add(patience))
				c.raw(piece)
			}
		}()
		t.Cleanup(func() { c.close(); <-flooding })
	}
	nc, err := tls.Dial("tcp", g.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	c := newRawPeer(t, nc)
	c.begin()
	for id := uint32(1); id < 20; id += 2 {
		if got := c.statusOf(id); got != "0" {
			t.Fatalf("status %s", got)
		}
	}
}

// What the socket did not take goes before what tls.Conn has queued meanwhile.
func TestTLSQueueKeepsItsOrder(t *testing.T) {
	w := &wire{queuing: true}
	for _, s := range []string{"one ", "two "} {
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	b := w.take()
	if _, err := w.Write([]byte("three")); err != nil {
		t.Fatal(err)
	}
	w.putBack(b, 2)
	if b = w.take(); string(b.b) != "e two three" || w.take() != nil {
		t.Errorf("%q is queued, want what was not sent and then the rest", b.b)
	}
	if _, err := w.Write(make([]byte, maxCipherBacklog+1)); !errors.Is(err, errCipherBacklog) {
		t.Errorf("queueing more than may wait: %v", err)
	}
}

// A frame in more records than are taken at once, after which nothing comes: the loop has to go on by itself.
func TestTLSTurnsGoOn(t *testing.T) {
	server, client := testTLS(t)
	up := listenRaw(t, answering)
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	below := shakeHands(t, nc, client, true)
	c := newRawPeer(t, below)
	c.begin()
	for id := uint32(1); id < 20; id += 2 {
		below.recordLen = nil
		c.request(id, false)
		c.sync()
		below.recordLen = func() int { return 1 }
		c.raw(append(appendFrameHeader(nil, 8*recordsAtOnce, http2.FrameData, http2.FlagDataEndStream, id), make([]byte, 8*recordsAtOnce)...))
		if got := c.next("the answer", isTrailers(id)).field("grpc-status"); got != "0" {
			t.Fatalf("status %s", got)
		}
	}
}
