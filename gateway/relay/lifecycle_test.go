package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// chaosServer answers calls in every way a server can, good and bad.
func chaosServer(seed uint64) func(*rawPeer) {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 1))
	return func(p *rawPeer) {
		goneAway := false
		p.onRecv = func(f frame) {
			if f.typ != http2.FrameHeaders {
				return
			}
			mu.Lock()
			n := rnd.IntN(100)
			size := rnd.IntN(40_000)
			mu.Unlock()
			switch {
			case n < 30:
				p.trailersOnly(f.id, "0")
			case n < 50:
				p.answerHead(f.id)
				p.sendAll(f.id, make([]byte, size))
				p.trailers(f.id, "0")
			case n < 58:
				p.answerHead(f.id)
				p.data(f.id, make([]byte, size%maxFrameLen), false)
				p.reset(f.id, http2.ErrCodeInternal)
			case n < 66:
				p.reset(f.id, http2.ErrCodeRefusedStream)
			case n < 74:
				p.trailersOnly(f.id, "14")
			case n < 80:
				p.answerHead(f.id) // and nothing else
			case n < 88: // nothing at all
			case n < 91:
				p.headers(f.id, false, ":status", "503", "content-type", "text/html")
			case n < 93 && !goneAway:
				goneAway = true
				p.goAway(f.id-min(f.id, 4), http2.ErrCodeNo)
			case n < 95:
				p.settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(size % 50)},
					http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(size)})
			case n < 96:
				_ = p.nc.Close()
			default:
				p.trailersOnly(f.id, "0")
			}
		}
	}
}

// sendAll sends DATA without a thought of windows but with one of frame sizes.
// 40 KB fit into the relay's.
func (p *rawPeer) sendAll(id uint32, b []byte) {
	for len(b) > 0 {
		n := min(len(b), maxFrameLen)
		p.data(id, b[:n], false)
		b = b[n:]
	}
}

// Whatever ends a call, it ends once, and gives back what it held.
func TestCallsEndOnceUnderAStorm(t *testing.T) {
	up := listenRaw(t, chaosServer(7))
	p := &recorder{}
	p.failed = func(c *Call, o Outcome) Verdict {
		if c.Replayable() && c.Attempts() < 3 {
			return To(&p.dispatch)
		}
		return Pass()
	}
	p.dispatch.Unary = true
	g := newRig(t, Config{MaxUpstreamConns: 4, StreamsPerConn: 20, EarlyResets: 1 << 30, BackoffMin: 5 * time.Millisecond,
		BackoffMax: 20 * time.Millisecond, MaxUpstreamStream: 401}, up.addr, p)
	const clients, calls = 8, 250
	quit := make(chan struct{})
	var wg, killer sync.WaitGroup
	killer.Go(func() { // connections of either side break at any moment
		for {
			select {
			case <-quit:
				return
			case <-time.After(40 * time.Millisecond):
			}
			if all := g.snapshot(); len(all) > 0 {
				all[rand.IntN(len(all))].fail(errors.New("cut by the test"))
			}
		}
	})
	for i := range clients {
		wg.Go(func() { stormClient(t, g.addr, uint64(i), calls) })
	}
	wg.Wait()
	close(quit)
	killer.Wait()
	g.settled()
	p.mu.Lock()
	n := len(p.over)
	kinds := make(map[OutcomeKind]int)
	for _, o := range p.ended {
		kinds[o.Kind]++
	}
	p.mu.Unlock()
	t.Logf("%d calls ended: %v", n, kinds)
	if n < clients*calls/2 {
		t.Errorf("only %d calls were made", n)
	}
	for _, k := range []OutcomeKind{Answered, Canceled, DeadlineExceeded} {
		if kinds[k] == 0 {
			t.Errorf("no call ended as %v: the storm is too calm", k)
		}
	}
}

// stormClient opens calls and treats them in every way a client can.
func stormClient(t *testing.T, addr string, seed uint64, calls int) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	var c *rawPeer
	id := uint32(0)
	for range calls {
		if c != nil && c.gone() { // or what follows would be no calls
			c.close()
			c = nil
		}
		if c == nil {
			nc, err := dialRig(addr)
			if err != nil {
				t.Error(err)
				return
			}
			c = newRawPeer(t, nc)
			c.raw([]byte(http2.ClientPreface))
			c.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(rnd.IntN(30_000))})
			go c.read()
			id = 1
		}
		timeout := []string{"900m", "300m", "50m", "300u"}[rnd.IntN(4)]
		c.request(id, false, "grpc-timeout", timeout)
		for range rnd.IntN(3) {
			c.data(id, make([]byte, rnd.IntN(10_000)), false)
		}
		switch n := rnd.IntN(100); {
		case n < 60:
			c.data(id, nil, true)
			if n < 6 { // and sees what comes of it, however busy the machine is
				_, _ = c.await(func(f frame) bool {
					return f.id == id && (f.end || f.typ == http2.FrameRSTStream)
				})
			}
		case n < 85:
			c.reset(id, http2.ErrCodeCancel)
		case n < 90:
			c.windowUpdate(id, 0)
		case n < 92:
			c.close()
			c = nil
			continue
		}
		if rnd.IntN(5) == 0 {
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
		}
		if id += 2; rnd.IntN(50) == 0 {
			c.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(rnd.IntN(30_000))})
		}
	}
	if c != nil {
		time.Sleep(100 * time.Millisecond)
		c.close()
	}
}

func TestCloseEndsEverythingAtOnce(t *testing.T) {
	up := listenRaw(t, nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 5})
	g := newRig(t, Config{MaxUpstreamConns: 1}, up.addr, nil)
	c := dialRaw(t, g.addr)
	for id := uint32(1); id < 41; id += 2 { // some sent, some waiting
		c.request(id, false)
	}
	c.sync()
	g.Close()
	if n := len(g.policy.outcomes()); n != 20 {
		t.Errorf("%d calls were over when Close returned, want 20", n)
	}
	if s := g.Stats(); s.Calls != 0 || s.Conns != 0 {
		t.Errorf("after Close: %+v", s)
	}
}

// Close waits for what Serve has just accepted.
func TestCloseWhileConnectionsArrive(t *testing.T) {
	for range 50 {
		r := New(Config{}, &recorder{over: make(map[*Call]int)})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- r.Serve(ln) }()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if nc, err := net.Dial("tcp", ln.Addr().String()); err == nil {
					_, _ = nc.Write([]byte(http2.ClientPreface))
					_ = nc.Close()
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
		r.Close()
		if err := <-served; err != nil && !errors.Is(err, errServing) { // Serve may have come too late
			t.Errorf("Serve: %v", err)
		}
		if n := r.Stats().Conns; n != 0 {
			t.Fatalf("%d connections after Close", n)
		}
		wg.Wait()
	}
}

// Close waits for whoever ends calls meanwhile: nothing is told of a call once it has returned.
func TestCloseWaitsForARetirement(t *testing.T) {
	ending, goOn := make(chan struct{}), make(chan struct{})
	p := &recorder{captured: func(*Call) {
		close(ending)
		<-goOn
	}}
	hang := func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	g := newRigTo(t, Config{}, UpstreamConfig{Addr: "192.0.2.1:1", Dial: hang}, p)
	dialRaw(t, g.addr).request(1, false)
	waitFor(t, "the call to wait for a connection", func() bool { return g.up.Waiting() == 1 })
	go g.up.Retire()
	<-ending
	closed := make(chan struct{})
	go func() {
		g.Close()
		close(closed)
	}()
	select {
	case <-closed:
		t.Error("Close returned before the call's end was told")
	case <-time.After(300 * time.Millisecond):
	}
	close(goOn)
	<-closed
	if n := len(p.outcomes()); n != 1 {
		t.Errorf("%d calls were over when Close returned, want 1", n)
	}
}

// Closing an upstream ends all calls on it, also on connections that were already
// on their way out.
func TestUpstreamCloseEndsItsCalls(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	s := up.accept()
	s.next("the first call", isHeaders(1))
	s.goAway(1, http2.ErrCodeNo)
	waitFor(t, "the connection to leave the pool", func() bool { return g.up.Conns() == 0 })
	c.request(3, false)
	up.accept().next("the second call", isHeaders(1))
	g.up.Close()
	for _, id := range []uint32{1, 3} {
		f, err := c.find(isTrailers(id))
		if err != nil {
			t.Fatalf("stream %d: %v", id, err)
		}
		if got := f.field("grpc-status"); got != "14" {
			t.Errorf("stream %d: status %s, want 14", id, got)
		}
	}
}

func TestRetiredUpstreamFinishesItsCalls(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	s := g.call(c, up, 1)
	g.up.Retire()
	if got := c.statusOf(3); got != "14" {
		t.Errorf("a new call ended with %s, want 14", got)
	}
	s.trailersOnly(1, "0")
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("the call under way ended with %s, want 0", got)
	}
	if f := s.next("GOAWAY", isType(http2.FrameGoAway)); f.code != http2.ErrCodeNo {
		t.Errorf("GOAWAY with %v", f.code)
	}
	waitFor(t, "the connection to close", func() bool { return len(g.snapshot()) == 1 })
}

// Calls that wait when their upstream is retired may go elsewhere.
func TestWaitingCallsMoveOnFromARetiredUpstream(t *testing.T) {
	second := listenRaw(t, answering)
	p := &recorder{}
	hang := func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	other := &Dispatch{}
	p.prepare = func(r *Relay) { other.Upstream = r.NewUpstream(UpstreamConfig{Addr: second.addr}) }
	p.failed = func(_ *Call, o Outcome) Verdict {
		if o.Kind == Unreachable && o.Upstream == p.up {
			return To(other)
		}
		return Pass()
	}
	g := newRigTo(t, Config{}, UpstreamConfig{Addr: "192.0.2.1:1", Dial: hang}, p)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	c.sync()
	g.up.Retire()
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s, want 0 from the other upstream", got)
	}
}

// A policy that sends a call round in circles is stopped.
func TestAttemptsAreBounded(t *testing.T) {
	p := &recorder{}
	p.failed = func(*Call, Outcome) Verdict { return To(&p.dispatch) }
	dial := func(context.Context, string) (net.Conn, error) { return nil, errors.New("no") }
	g := newRigTo(t, Config{}, UpstreamConfig{Addr: "192.0.2.1:1", Dial: dial}, p)
	c := dialRaw(t, g.addr)
	if got := c.statusOf(1); got != "13" {
		t.Errorf("status %s, want 13", got)
	}
}

// A client that breaks off is told to the upstream at once.
func TestCancellationReachesTheUpstream(t *testing.T) {
	up := listenRaw(t, nil)
	for _, how := range []struct {
		name string
		end  func(c *rawPeer)
	}{
		{"RST_STREAM", func(c *rawPeer) { c.reset(1, http2.ErrCodeCancel) }},
		{"connection closed", func(c *rawPeer) { c.close() }},
		{"stream fault", func(c *rawPeer) { c.windowUpdate(1, 0) }},
		{"connection fault", func(c *rawPeer) { c.windowUpdate(0, 0) }},
	} {
		t.Run(how.name, func(t *testing.T) {
			g := newRig(t, Config{}, up.addr, nil)
			c := dialRaw(t, g.addr)
			c.request(1, false)
			s := up.accept()
			s.next("the call", isHeaders(1))
			s.answerHead(1)
			c.next("HEADERS", isHeaders(1))
			how.end(c)
			if f := s.next("RST_STREAM", isReset4(1)); f.code != http2.ErrCodeCancel {
				t.Errorf("RST_STREAM with %v, want CANCEL", f.code)
			}
			waitFor(t, "the call to be over", func() bool { return len(g.policy.outcomes()) == 1 })
			if o := g.policy.outcomes()[0]; o.Kind != Canceled || !o.Committed {
				t.Errorf("outcome %+v, want a committed cancellation", o)
			}
		})
	}
}
