package relay

import (
	"bytes"
	"context"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// gatedDial is a dialler that waits for its gate.
type gatedDial struct{ open chan struct{} }

func newGatedDial() *gatedDial { return &gatedDial{make(chan struct{})} }

func (d *gatedDial) dial(ctx context.Context, addr string) (net.Conn, error) {
	select {
	case <-d.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var nd net.Dialer
	return nd.DialContext(ctx, "tcp", addr)
}

// body collects the DATA of a stream until n bytes have come.
func (p *rawPeer) body(id uint32, n int) []byte {
	p.t.Helper()
	var b []byte
	for len(b) < n {
		f := p.next("DATA", func(f frame) bool { return f.typ == http2.FrameData && f.id == id })
		b = append(b, f.data...)
	}
	return b
}

// A call of which nothing is kept may still move on while nothing of its body has
// come; what comes while the next attempt waits for a connection belongs to it.
func TestBodyArrivingWhileTheSecondAttemptWaitsIsSent(t *testing.T) {
	first, second := listenRaw(t, nil), listenRaw(t, nil)
	gate := newGatedDial()
	p, other := &recorder{}, &Dispatch{}
	p.prepare = func(r *Relay) {
		p.dispatch.Replay = false
		other.Upstream = r.NewUpstream(UpstreamConfig{Addr: second.addr, Dial: gate.dial})
	}
	p.failed = func(*Call, Outcome) Verdict { return To(other) }
	g := newRig(t, Config{}, first.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	s := first.accept()
	s.next("the call", isHeaders(1))
	s.reset(1, http2.ErrCodeRefusedStream)
	waitFor(t, "the second attempt", func() bool { return len(p.failures()) == 1 })
	want := bytes.Repeat([]byte("sluice"), 100)
	c.data(1, want, true)
	c.sync()
	close(gate.open)
	s = second.accept()
	s.next("the call again", isHeaders(1))
	if got := s.body(1, len(want)); !bytes.Equal(got, want) {
		t.Errorf("the second attempt got %d other bytes", len(got))
	}
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
}

func TestCreditFollowsWhenAWaitingCallIsSent(t *testing.T) {
	up := listenRaw(t, nil)
	gate := newGatedDial()
	g := newRigTo(t, Config{StreamWindow: initialWindow}, UpstreamConfig{Addr: up.addr, Dial: gate.dial}, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	for range 4 {
		c.data(1, make([]byte, 15000), false)
	}
	c.sync()
	if early := c.take(func(f frame) bool { return f.typ == http2.FrameWindowUpdate && f.id == 1 }); len(early) > 0 {
		t.Errorf("the stream's window was given back while the call waits: %v", early)
	}
	close(gate.open)
	s := up.accept()
	s.body(1, 60000)
	c.next("the stream's window", func(f frame) bool { return f.typ == http2.FrameWindowUpdate && f.id == 1 })
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
}

// The request is sent again from its first byte and goes on with what the client
// still sends.
func TestReplayJoinsTheLiveBody(t *testing.T) {
	up := listenRaw(t, nil)
	p := &recorder{}
	p.failed = func(c *Call, o Outcome) Verdict {
		if c.Replayable() && c.Attempts() < 3 {
			return To(&p.dispatch)
		}
		return Pass()
	}
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	c.data(1, []byte("one "), false)
	s := up.accept()
	s.body(1, 4)
	s.reset(1, http2.ErrCodeInternal)
	if got := string(s.body(3, 4)); got != "one " {
		t.Fatalf("second attempt began with %q", got)
	}
	c.data(1, []byte("two "), false)
	s.body(3, 4)
	s.reset(3, http2.ErrCodeRefusedStream)
	if got := string(s.body(5, 8)); got != "one two " {
		t.Fatalf("third attempt began with %q", got)
	}
	c.data(1, []byte("three"), true)
	f := s.next("the end", func(f frame) bool { return f.id == 5 && f.end })
	if string(f.data) != "three" {
		t.Errorf("third attempt ended with %q", f.data)
	}
	s.trailersOnly(5, "0")
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s, want 0", got)
	}
	var kinds []OutcomeKind
	for _, o := range p.failures() {
		kinds = append(kinds, o.Kind)
	}
	if len(kinds) != 2 || kinds[0] != Reset || kinds[1] != Unprocessed {
		t.Errorf("failures %v, want reset, unprocessed", kinds)
	}
}

// Past its limit the request goes on, without a second chance.
func TestRequestAboveTheReplayLimitGoesOn(t *testing.T) {
	up := listenRaw(t, nil)
	p := &recorder{}
	replayable := make(chan bool, 1)
	p.failed = func(c *Call, _ Outcome) Verdict {
		replayable <- c.Replayable()
		return To(&p.dispatch) // not possible, and therefore passed on
	}
	g := newRig(t, Config{ReplayPerCall: 10000}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	c.data(1, make([]byte, 8000), false)
	s := up.accept()
	s.body(1, 8000)
	c.data(1, make([]byte, 8000), false)
	s.body(1, 8000)
	if n := g.Stats().ReplayBytes; n != 0 {
		t.Errorf("%d bytes are kept above the limit", n)
	}
	s.reset(1, http2.ErrCodeRefusedStream)
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "14" {
		t.Errorf("status %s, want 14", got)
	}
	if <-replayable {
		t.Error("Replayable() after the limit")
	}
}
