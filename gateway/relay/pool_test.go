package relay

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// answering makes a raw server answer every call with OK as soon as the request
// has ended.
func answering(p *rawPeer) {
	p.onRecv = func(f frame) {
		if f.end && (f.typ == http2.FrameHeaders || f.typ == http2.FrameData) {
			p.trailersOnly(f.id, "0")
		}
	}
}

// statusOf sends a call without a body and waits for its status.
func (p *rawPeer) statusOf(id uint32) string {
	p.t.Helper()
	p.request(id, true)
	return p.next("the answer", isTrailers(id)).field("grpc-status")
}

func TestConnectionAtLastStreamIDIsReplaced(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{MaxUpstreamStream: 7}, up.addr, nil)
	c := dialRaw(t, g.addr)
	begun := time.Now()
	const calls = 180
	for id := uint32(1); id < 2*calls; id += 2 {
		if got := c.statusOf(id); got != "0" {
			t.Fatalf("call on stream %d ended with status %s, want 0", id, got)
		}
	}
	if d := time.Since(begun); d > calls/3*sweepEvery {
		t.Errorf("%d calls took %v: replacing a connection waits for something", calls, d)
	}
	for range calls / 3 { // ids 1, 3 and 5 on each
		up.accept()
	}
	// What is used up is closed once nobody needs it.
	waitFor(t, "used-up connections to close", func() bool { return len(g.snapshot()) == 2 })
}

// A failed connection may still be in the pool while one of its own calls looks
// for another one, on the reader that would take it out.
func TestCallMovesOnFromTheReaderOfADeadConnection(t *testing.T) {
	up := listenRaw(t, nil)
	p := &recorder{failed: nil}
	p.failed = func(c *Call, o Outcome) Verdict {
		if o.Kind == Reset && c.Attempts() == 1 {
			for _, uc := range c.relay.snapshot() {
				if uc.isClient() {
					uc.fail(errors.New("cut by the test"))
				}
			}
			return To(&p.dispatch)
		}
		return Pass()
	}
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	s.reset(1, http2.ErrCodeInternal)
	s = up.accept()
	s.next("the second attempt", isHeaders(1))
	s.trailersOnly(1, "0")
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s, want 0 from the second attempt", got)
	}
}

func TestPoolGrowsWhileCallsWaitForSlots(t *testing.T) {
	up := listenRaw(t, nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	g := newRig(t, Config{MaxUpstreamConns: 4}, up.addr, nil)
	c := dialRaw(t, g.addr)
	for id := uint32(1); id <= 7; id += 2 {
		c.request(id, true)
	}
	for range 4 { // all four are served at once, though no further call arrives
		s := up.accept()
		s.next("a call", isHeaders(1))
		defer s.trailersOnly(1, "0")
	}
	waitFor(t, "four slots taken", func() bool { return g.slots() == 4 })
}

func TestWaitingCallsGetANewConnectionAfterGoAway(t *testing.T) {
	up := listenRaw(t, nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	g := newRig(t, Config{MaxUpstreamConns: 1}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	s := up.accept()
	s.next("the first call", isHeaders(1))
	c.request(3, true)
	c.sync()
	s.goAway(1, http2.ErrCodeNo) // the first call goes on, and stays
	s2 := up.accept()
	s2.next("the waiting call", isHeaders(1))
	s2.trailersOnly(1, "0")
	c.next("the second answer", isTrailers(3))
	s.trailersOnly(1, "0")
	c.next("the first answer", isTrailers(1))
	waitFor(t, "the connection that went away to close", func() bool { return len(g.snapshot()) == 2 })
}

// flakyDial fails while bad is set.
type flakyDial struct {
	bad   atomic.Bool
	dials atomic.Int32
}

func (d *flakyDial) dial(ctx context.Context, addr string) (net.Conn, error) {
	d.dials.Add(1)
	if d.bad.Load() {
		return nil, errors.New("no route to the test")
	}
	var nd net.Dialer
	return nd.DialContext(ctx, "tcp", addr)
}

func TestPoolGrowsAgainAfterAFailedAttemptToGrow(t *testing.T) {
	up := listenRaw(t, nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	d := &flakyDial{}
	g := newRigTo(t, Config{BackoffMin: 10 * time.Millisecond, BackoffMax: 20 * time.Millisecond},
		UpstreamConfig{Addr: up.addr, Dial: d.dial}, nil)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	s := up.accept()
	s.next("the first call", isHeaders(1))
	d.bad.Store(true)
	c.request(3, true)
	waitFor(t, "the attempt to grow", func() bool { return d.dials.Load() > 1 })
	d.bad.Store(false)
	s2 := up.accept()
	s2.next("the second call", isHeaders(1))
	s2.trailersOnly(1, "0")
	c.next("the second answer", isTrailers(3))
	s.trailersOnly(1, "0")
	c.next("the first answer", isTrailers(1))
}

func TestUnreachableUpstreamFailsCallsAtOnce(t *testing.T) {
	d := &flakyDial{}
	d.bad.Store(true)
	g := newRigTo(t, Config{BackoffMin: time.Minute, BackoffMax: time.Minute}, UpstreamConfig{Addr: "192.0.2.1:1", Dial: d.dial}, nil)
	c := dialRaw(t, g.addr)
	for id := uint32(1); id < 9; id += 2 {
		if got := c.statusOf(id); got != "14" {
			t.Errorf("status %s, want 14 (UNAVAILABLE)", got)
		}
	}
	if n := d.dials.Load(); n != 1 {
		t.Errorf("%d attempts to connect while the pause runs, want 1", n)
	}
	for _, o := range g.policy.failures() {
		if o.Kind != Unreachable {
			t.Errorf("outcome %v, want %v", o.Kind, Unreachable)
		}
	}
}

// While an upstream stays unreachable, nobody waits for the next attempt to find
// that out once more.
func TestCallsDoNotWaitForAHungReconnection(t *testing.T) {
	var dials atomic.Int32
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			return nil, errors.New("refused")
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	g := newRigTo(t, Config{BackoffMin: time.Millisecond, ConnectTimeout: patience}, UpstreamConfig{Addr: "192.0.2.1:1", Dial: dial}, nil)
	c := dialRaw(t, g.addr)
	c.statusOf(1)
	waitFor(t, "the reconnection to hang", func() bool { return dials.Load() == 2 })
	begun := time.Now()
	if got := c.statusOf(3); got != "14" {
		t.Errorf("status %s, want 14", got)
	}
	if d := time.Since(begun); d > time.Second {
		t.Errorf("the call waited %v", d)
	}
}

func TestHungDialEndsWithTheCallsDeadline(t *testing.T) {
	dial := func(ctx context.Context, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	g := newRigTo(t, Config{ConnectTimeout: time.Minute}, UpstreamConfig{Addr: "192.0.2.1:1", Dial: dial}, nil)
	c := dialRaw(t, g.addr)
	c.request(1, true, "grpc-timeout", "100m")
	begun := time.Now()
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "4" {
		t.Errorf("status %s, want 4 (DEADLINE_EXCEEDED)", got)
	}
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("the call waited %v", d)
	}
}
