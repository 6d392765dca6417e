package client

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// until reads frames until one is as wanted; it reports false if the connection ends before.
func (p *peer) until(is func(http2.Frame) bool) bool {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return false
		}
		if is(f) {
			return true
		}
	}
}

// ping returns once the client has answered a ping.
func (p *peer) ping() bool {
	_ = p.WritePing(false, [8]byte{})
	return p.until(isPong)
}

func isPong(f http2.Frame) bool {
	ping, ok := f.(*http2.PingFrame)
	return ok && ping.IsAck()
}

// take reads until so much of a request has come.
func (p *peer) take(n int) bool {
	return p.until(func(f http2.Frame) bool {
		if d, ok := f.(*http2.DataFrame); ok {
			n -= int(d.Length)
		}
		return n <= 0
	})
}

// gate is where a server of a test stands until the test lets it go on.
type gate struct {
	reached chan struct{}
	opened  chan struct{}
	open    func()
}

func newGate() *gate {
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

// pass is the server's way through.
func (g *gate) pass() { close(g.reached); <-g.opened }

// wait returns once the server is there.
func (g *gate) wait(t *testing.T) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(patience):
		t.Fatal("the server did not get there")
	}
}

// TestCallThatIsStartedAgainElsewhere is none of the first connection's business: it was cut off while it waited for
// the window of that one, and waits for that of another now. Neither server gets what is meant for the other.
func TestCallThatIsStartedAgainElsewhere(t *testing.T) {
	t.Parallel()
	const size = 150_000
	one, two := newGate(), newGate()
	strays := make(chan int, 1)
	first := serve(t, nil, func(_ int, p *peer) {
		if !p.take(initialWindow) || !p.ping() { // it lives, and is not given up
			return
		}
		one.pass()
		_ = p.WriteWindowUpdate(0, 1<<20)
		n := 0
		for range 2 { // what there is to be sent follows the first answer, and comes before the second
			_ = p.WritePing(false, [8]byte{})
			p.until(func(f http2.Frame) bool {
				if f.Header().Type == http2.FrameData {
					n++
				}
				return isPong(f)
			})
		}
		strays <- n
		p.next()
	})
	second := serve(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}, func(_ int, p *peer) {
		if !p.take(initialWindow) || !p.ping() {
			return
		}
		two.pass()
		_ = p.WriteWindowUpdate(0, 1<<20)
		got := initialWindow
		p.until(func(f http2.Frame) bool {
			d, ok := f.(*http2.DataFrame)
			if ok {
				got += int(d.Length)
			}
			return ok && d.StreamEnded()
		})
		p.answer(1, fmt.Sprint(got))
		p.next()
	})
	defer one.open()
	defer two.open()

	r := newRig(t)
	k := r.begin(first, strings.Repeat("x", size))
	one.wait(t)
	r.Cancel(k, time.Now())
	if r.ended(); k.End != Canceled {
		t.Fatalf("ended %v", k.End)
	}
	r.Start(Endpoint{Addr: second}, k, time.Now())
	r.Flush()
	two.wait(t)
	one.open()
	if n := <-strays; n != 0 {
		t.Errorf("the first server got %d frames of what is meant for the second", n)
	}
	two.open()
	if r.ended(); k.End != Answered || string(k.Answer) != fmt.Sprint(size) {
		t.Errorf("ended %v, the second server got %s bytes of %d", k.End, k.Answer, size)
	}
}

// TestFieldsOfACallThatIsOver, whose second half comes when it has been started again, say nothing of it.
func TestFieldsOfACallThatIsOver(t *testing.T) {
	t.Parallel()
	half, next := newGate(), newGate()
	addr := serve(t, nil, func(_ int, p *peer) {
		stream := p.next()
		p.block.Reset()
		_ = p.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.block.Bytes(), EndStream: true})
		half.pass()
		p.block.Reset()
		_ = p.enc.WriteField(hpack.HeaderField{Name: "grpc-status", Value: "13"})
		_ = p.WriteContinuation(stream, true, p.block.Bytes())
		stream = p.next()
		next.pass()
		p.answer(stream, "the other one's")
		p.next()
	})
	defer half.open()
	defer next.open()

	r := newRig(t)
	k := r.begin(addr, "x")
	half.wait(t)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		k.conn.mu.Lock()
		decoding := k.conn.current == k
		k.conn.mu.Unlock()
		if decoding {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the first half of the fields was not read")
		}
	}
	r.Cancel(k, time.Now())
	if r.ended(); k.End != Canceled {
		t.Fatalf("ended %v", k.End)
	}
	r.Start(Endpoint{Addr: addr}, k, time.Now())
	r.Flush()
	half.open()
	next.open()
	if r.ended(); k.End != Answered || k.Code != 0 || string(k.Answer) != "the other one's" {
		t.Errorf("ended %v with code %d and %q, want what the server says of the second", k.End, k.Code, k.Answer)
	}
}

// TestCallIsInTurnOnce, however its windows and that of the connection shut and open.
func TestCallIsInTurnOnce(t *testing.T) {
	t.Parallel()
	both := newGate()
	addr := serve(t, nil, func(_ int, p *peer) {
		if !p.take(initialWindow) { // both windows are shut
			return
		}
		_ = p.WriteWindowUpdate(1, 100)
		p.ping()
		both.pass()
		p.next()
	})
	defer both.open()
	r := newRig(t)
	k := r.begin(addr, strings.Repeat("x", 100_000))
	both.wait(t)
	k.conn.mu.Lock()
	if n := len(k.conn.sending); n != 1 {
		t.Errorf("it is in turn %d times", n)
	}
	k.conn.mu.Unlock()
	r.Cancel(k, time.Now())
	r.ended()
	k.conn.mu.Lock()
	if n := len(k.conn.sending); n != 0 {
		t.Errorf("it is over, and in turn %d times", n)
	}
	k.conn.mu.Unlock()
}
