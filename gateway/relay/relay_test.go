package relay

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// passPolicy sends every call to one upstream.
type passPolicy struct {
	up       *Upstream
	dispatch Dispatch
	over     func(*Call, Outcome)
	look     bool // at the first piece of the body, before the call is sent
}

func (p *passPolicy) Opened(c *Call) Verdict {
	if d, ok := c.Timeout(); ok {
		c.SetDeadline(c.Opened().Add(d))
	}
	if p.look {
		c.Inspect = true
		return Wait()
	}
	return To(&p.dispatch)
}

func (p *passPolicy) Body(c *Call, b []byte, _ bool) ([]byte, Verdict) {
	if c.Data != nil {
		return b, Wait()
	}
	c.Data = true
	return b, To(&p.dispatch)
}

func (p *passPolicy) Failed(c *Call, o Outcome) Verdict {
	if o.Kind == Unprocessed && c.Replayable() && c.Attempts() < 3 {
		return To(&p.dispatch)
	}
	return Pass()
}

func (p *passPolicy) Status(_ *Call, _ OutcomeKind, code uint32, msg string) *Status {
	return &Status{Code: code, Message: msg}
}

func (p *passPolicy) Due(*Call) Verdict { return Wait() }

func (p *passPolicy) Dropped(*Call, Outcome) {}

func (p *passPolicy) Over(c *Call, o Outcome) {
	if p.over != nil {
		p.over(c, o)
	}
}

// startRelay runs a relay in front of addr and returns its address.
func startRelay(t testing.TB, cfg Config, addr string) (*Relay, string) {
	t.Helper()
	return startRelayWith(t, cfg, addr, &passPolicy{})
}

func startRelayWith(t testing.TB, cfg Config, addr string, p *passPolicy) (*Relay, string) {
	t.Helper()
	r := New(cfg, p)
	p.up = r.NewUpstream(UpstreamConfig{Addr: addr})
	p.dispatch = Dispatch{Upstream: p.up, Replay: true}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(ln) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r, ln.Addr().String()
}

func startInterop(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func TestInteropThroughRelay(t *testing.T) {
	r, addr := startRelay(t, Config{}, startInterop(t))
	tc := testpb.NewTestServiceClient(dial(t, addr))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"empty_unary", func() { interop.DoEmptyUnaryCall(ctx, tc) }},
		{"large_unary", func() { interop.DoLargeUnaryCall(ctx, tc) }},
		{"client_streaming", func() { interop.DoClientStreaming(ctx, tc) }},
		{"server_streaming", func() { interop.DoServerStreaming(ctx, tc) }},
		{"ping_pong", func() { interop.DoPingPong(ctx, tc) }},
		{"empty_stream", func() { interop.DoEmptyStream(ctx, tc) }},
		{"timeout", func() { interop.DoTimeoutOnSleepingServer(ctx, tc) }},
		{"cancel_after_begin", func() { interop.DoCancelAfterBegin(ctx, tc) }},
		{"cancel_after_first", func() { interop.DoCancelAfterFirstResponse(ctx, tc) }},
		{"status", func() { interop.DoStatusCodeAndMessage(ctx, tc) }},
		{"special_status", func() { interop.DoSpecialStatusMessage(ctx, tc) }},
		{"metadata", func() { interop.DoCustomMetadata(ctx, tc) }},
		{"unimplemented", func() { interop.DoUnimplementedMethod(ctx, dialConn(t, addr)) }},
	} {
		t.Run(c.name, func(*testing.T) { c.do() })
	}
	waitFor(t, "no calls", func() bool { return r.Calls() == 0 })
}

func dialConn(t testing.TB, addr string) *grpc.ClientConn { return dial(t, addr) }
