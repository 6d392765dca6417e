package relay

import (
	"crypto/tls"
	"flag"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// readers has the whole suite run as it does without loops.
var readers = flag.Bool("readers", false, "give every connection a goroutine that reads it, as elsewhere than on Linux")

// overTLS has it run with TLS wherever a test does not say how rigs and raw peers are connected. It is for
// changes of how connections are read, with and without -readers: go test -race ./gateway/relay -tls.
var overTLS = flag.Bool("tls", false, "connect raw clients and raw servers with TLS")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// suiteTLS is what connections have by -tls, and withTLS has the addresses, of rigs and of raw servers, that take it.
var (
	suiteTLS = sync.OnceValues(newTLS)
	withTLS  sync.Map
)

func hasTLS(addr string) bool {
	_, ok := withTLS.Load(addr)
	return ok
}

// rig is a relay under test with a policy that records how every call ends.
type rig struct {
	*Relay
	t      testing.TB
	addr   string
	up     *Upstream
	policy *recorder
}

// recorder is a policy that a test can change in each part. The parts that are nil
// send every call to up and pass every failure on.
type recorder struct {
	up       *Upstream
	dispatch Dispatch
	opened   func(*Call) Verdict
	body     func(*Call, []byte, bool) ([]byte, Verdict)
	failed   func(*Call, Outcome) Verdict
	captured func(*Call)
	due      func(*Call) Verdict
	prepare  func(*Relay) // what is to be set with the relay made and not yet serving

	mu    sync.Mutex
	over  map[*Call]int
	ended []Outcome
	fails []Outcome
	drops []Outcome
}

func (p *recorder) Opened(c *Call) Verdict {
	if d, ok := c.Timeout(); ok {
		c.SetDeadline(c.Opened().Add(d))
	}
	if p.opened != nil {
		return p.opened(c)
	}
	return To(&p.dispatch)
}

func (p *recorder) Body(c *Call, b []byte, end bool) ([]byte, Verdict) {
	if p.body != nil {
		return p.body(c, b, end)
	}
	return b, Wait()
}

func (p *recorder) Failed(c *Call, o Outcome) Verdict {
	p.mu.Lock()
	p.fails = append(p.fails, o)
	p.mu.Unlock()
	if p.failed != nil {
		return p.failed(c, o)
	}
	return Pass()
}

func (p *recorder) Due(c *Call) Verdict {
	if p.due != nil {
		return p.due(c)
	}
	return Wait()
}

func (p *recorder) Dropped(_ *Call, o Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops = append(p.drops, o)
}

func (p *recorder) Status(_ *Call, kind OutcomeKind, code uint32, msg string) *Status {
	return &Status{Code: code, Message: msg, Details: []byte(kind.String())}
}

func (p *recorder) Over(c *Call, o Outcome) {
	if p.captured != nil {
		p.captured(c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over[c]++
	p.ended = append(p.ended, o)
}

// outcomes returns how the calls that are over have ended.
func (p *recorder) outcomes() []Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Outcome(nil), p.ended...)
}

func (p *recorder) failures() []Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Outcome(nil), p.fails...)
}

func (p *recorder) dropped() []Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Outcome(nil), p.drops...)
}

// newRig starts a relay whose policy sends calls to upstream. Part p of the policy
// may be nil.
func newRig(t testing.TB, cfg Config, upstream string, p *recorder) *rig {
	t.Helper()
	return newRigTo(t, cfg, UpstreamConfig{Addr: upstream}, p)
}

func newRigTo(t testing.TB, cfg Config, upstream UpstreamConfig, p *recorder) *rig {
	t.Helper()
	if p == nil {
		p = &recorder{}
	}
	p.over = make(map[*Call]int)
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = math.MaxUint32 // bodies here are bytes, not messages
	}
	if *readers {
		cfg.Loops = -1
	}
	fromSuite := *overTLS && cfg.TLS == nil
	if fromSuite {
		cfg.TLS, _ = suiteTLS()
	}
	if hasTLS(upstream.Addr) && upstream.TLS == nil {
		_, client := suiteTLS()
		upstream.TLS = func() (*tls.Config, error) { return client, nil }
	}
	g := &rig{Relay: New(cfg, p), t: t, policy: p}
	g.up = g.NewUpstream(upstream)
	p.up = g.up
	p.dispatch.Upstream = g.up
	p.dispatch.Replay = true
	if p.prepare != nil {
		p.prepare(g.Relay)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = ln.Addr().String()
	if fromSuite {
		withTLS.Store(g.addr, true)
		t.Cleanup(func() { withTLS.Delete(g.addr) })
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	t.Cleanup(func() {
		g.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		g.settled()
	})
	return g
}

// settled checks that nothing is held any more and that every call ended once.
func (g *rig) settled() {
	g.t.Helper()
	waitFor(g.t, "nothing to be held", func() bool {
		s := g.Stats()
		return s.Calls == 0 && s.BufferedBytes == 0 && s.ReplayBytes == 0 && s.CaptureBytes == 0 && g.slots() == 0
	})
	g.policy.mu.Lock()
	defer g.policy.mu.Unlock()
	for c, n := range g.policy.over {
		if n != 1 {
			g.t.Errorf("call %s: Over was called %d times, want once", c.Path(), n)
		}
	}
}

// slots returns how many slots are taken on all upstream connections.
func (g *rig) slots() int {
	n := 0
	for _, c := range g.snapshot() {
		if s, ok := c.side.(*upstreamSide); ok {
			s.u.mu.Lock()
			n += s.active
			s.u.mu.Unlock()
		}
	}
	return n
}

// windows checks that at rest every flow-control window is at its initial value,
// as far as the relay knows.
func (g *rig) windows() {
	g.t.Helper()
	for _, c := range g.snapshot() {
		waitFor(g.t, "credit to be given back", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.closed || (len(c.streams) == 0 && c.recvCredit == 0 && c.recvWin == int64(g.cfg.ConnWindow) &&
				c.buffered == 0 && c.ready.len() == 0)
		})
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// socketPair returns the two ends of a TCP connection, closed with the test.
func socketPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if far, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	return near, far
}
