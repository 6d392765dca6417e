package relay

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// drain begins to drain and returns what Drain will have said.
func (g *rig) drain(timeout time.Duration) <-chan error {
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	go func() { defer cancel(); done <- g.Drain(ctx) }()
	return done
}

func TestDrainTellsTwiceAndFinishesCalls(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	s := up.accept()
	s.next("the first call", isHeaders(1))
	done := g.drain(patience)
	if f := c.next("first GOAWAY", isType(http2.FrameGoAway)); f.last != maxWindow || f.code != http2.ErrCodeNo {
		t.Errorf("first GOAWAY names stream %d with %v, want 2^31-1 and NO_ERROR", f.last, f.code)
	}
	c.request(3, true) // was under way when GOAWAY came
	s.next("a call after the first GOAWAY", isHeaders(3))
	if f := c.next("second GOAWAY", isType(http2.FrameGoAway)); f.last != 3 || f.code != http2.ErrCodeNo {
		t.Errorf("second GOAWAY names stream %d with %v, want 3 and NO_ERROR", f.last, f.code)
	}
	c.request(5, true) // has been told
	s.trailersOnly(3, "0")
	c.next("the second call's answer", isTrailers(3))
	c.data(1, []byte("the rest"), true)
	s.body(1, 8)
	s.trailersOnly(1, "0")
	c.next("the first call's answer", isTrailers(1))
	if err := <-done; err != nil {
		t.Errorf("Drain: %v", err)
	}
	c.ended()
	if late := s.take(isHeaders(5)); len(late) > 0 {
		t.Errorf("a call above the last stream was served: %v", late)
	}
}

func TestDrainGivesUpWithItsContext(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	up.accept().next("the call", isHeaders(1))
	if err := <-g.drain(100 * time.Millisecond); err == nil {
		t.Error("Drain() = nil with a call under way")
	}
	if _, err := net.Dial("tcp", g.addr); err == nil {
		t.Error("connections are still accepted")
	}
}

// A client whose handshake was under way when the others were told is told too.
func TestDrainReachesConnectionsBeingAccepted(t *testing.T) {
	up := listenRaw(t, answering)
	server, client := testTLS(t)
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection to be accepted", func() bool { return g.Stats().Conns == 1 })
	done := g.drain(patience)
	waitFor(t, "drain to begin", g.isDraining)
	time.Sleep(50 * time.Millisecond)
	c := newRawPeer(t, tls.Client(nc, client))
	c.raw([]byte(http2.ClientPreface))
	c.settings()
	c.start()
	c.next("GOAWAY", isType(http2.FrameGoAway))
	if got := c.statusOf(1); got != "0" {
		t.Errorf("status %s", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Drain: %v", err)
	}
}

// A client that is slow to read what it was promised gets all of it.
func TestDrainWaitsForSlowReaders(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRawWith(t, g.addr, func(p *rawPeer) { p.credit = false }, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	s := g.call(c, up, 1)
	s.answerHead(1)
	s.data(1, make([]byte, 5000), false)
	s.trailers(1, "0")
	done := g.drain(patience)
	c.next("second GOAWAY", func(f frame) bool { return f.typ == http2.FrameGoAway && f.last == 1 })
	time.Sleep(3 * lingerTime / 2)
	c.windowUpdate(1, 10_000)
	c.body(1, 4000)
	if got := c.next("trailers", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Drain: %v", err)
	}
}

// No unary call of a real client is lost when one of two gateways drains: what it
// refuses is never processed, and the client goes on to the other one.
func TestNoUnaryCallIsLostInADrain(t *testing.T) {
	backend := startInterop(t)
	g := newRig(t, Config{}, backend, nil)
	second := newRig(t, Config{}, backend, nil)
	cc := dialBoth(t, g.addr, second.addr)
	tc := testpb.NewTestServiceClient(cc)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var calls atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := tc.UnaryCall(context.Background(), &testpb.SimpleRequest{
					ResponseSize: 3000, Payload: interop.ClientNewPayload(testpb.PayloadType_COMPRESSABLE, 5000)})
				if status.Code(err) != codes.OK {
					t.Errorf("a call was lost: %v", err)
				}
				calls.Add(1)
			}
		})
	}
	waitFor(t, "traffic", func() bool { return calls.Load() > 200 })
	if err := <-g.drain(patience); err != nil {
		t.Errorf("Drain: %v", err)
	}
	g.Close()
	after := calls.Load()
	waitFor(t, "traffic afterwards", func() bool { return calls.Load() > after+200 })
	cancel()
	wg.Wait()
	if n := len(g.policy.outcomes()); n == 0 {
		t.Error("the drained relay had no calls")
	}
}

// Connections age and are replaced without a call noticing.
func TestOldConnectionsAreToldToGo(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{MaxAge: 300 * time.Millisecond}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	if f, err := c.find(isTrailers(1)); err != nil || f.field("grpc-status") != "0" { // whichever comes first
		t.Fatalf("status %s, %v", f.field("grpc-status"), err)
	}
	c.next("first GOAWAY", isType(http2.FrameGoAway))
	c.next("second GOAWAY", isType(http2.FrameGoAway))
	c.ended()
}

func TestIdleConnectionsAreToldToGo(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{IdleTimeout: 300 * time.Millisecond, UpstreamIdle: 300 * time.Millisecond}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.statusOf(1)
	up.accept().next("GOAWAY upstream", isType(http2.FrameGoAway))
	c.next("GOAWAY", isType(http2.FrameGoAway))
	c.ended()
	waitFor(t, "all connections to close", func() bool { return len(g.snapshot()) == 0 })
}
