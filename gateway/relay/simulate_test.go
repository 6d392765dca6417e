package relay

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// postponed makes a policy whose attempts begin late.
func postponed(by time.Duration) *recorder {
	p := &recorder{}
	p.opened = func(*Call) Verdict {
		d := p.dispatch
		d.NotBefore = time.Now().Add(by)
		return To(&d)
	}
	return p
}

func TestPostponedAttemptIsSentWithWhatCameMeanwhile(t *testing.T) {
	up := listenRaw(t, nil)
	const wait = 150 * time.Millisecond
	g := newRig(t, Config{}, up.addr, postponed(wait))
	c := dialRaw(t, g.addr)
	begin := time.Now()
	c.request(1, false)
	want := bytes.Repeat([]byte("sluice"), 5000)
	c.data(1, want[:15_000], false)
	c.data(1, want[15_000:], true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	if got := time.Since(begin); got < wait {
		t.Errorf("the call was sent after %v, want %v at least", got, wait)
	}
	if got := s.body(1, len(want)); !bytes.Equal(got, want) {
		t.Error("the request arrived otherwise")
	}
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
	c.sync()
	g.windows()
	waitFor(t, "the end", func() bool { return len(g.policy.outcomes()) == 1 })
	if o := g.policy.outcomes()[0]; o.Ended.Sub(o.Started) < wait {
		t.Errorf("the attempt took %v, want its delay to count", o.Ended.Sub(o.Started))
	}
}

func TestPostponedAttemptEndsWithTheDeadline(t *testing.T) {
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, postponed(time.Hour))
	c := dialRaw(t, g.addr)
	c.request(1, true, "grpc-timeout", "50m")
	if f := c.next("a refusal", isTrailers(1)); f.field("grpc-status") != "4" {
		t.Errorf("grpc-status %s, want 4", f.field("grpc-status"))
	}
	waitFor(t, "the end", func() bool { return len(g.policy.outcomes()) == 1 })
	if o := g.policy.outcomes()[0]; o.Kind != DeadlineExceeded || o.Upstream != g.up {
		t.Errorf("it ended with %+v, want its deadline at the upstream", o)
	}
}

func TestPostponedAttemptEndsWithItsClient(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, postponed(time.Second))
	c := dialRaw(t, g.addr)
	c.request(1, false)
	c.data(1, make([]byte, 1000), false)
	c.sync()
	c.reset(1, http2.ErrCodeCancel)
	waitFor(t, "the end", func() bool { return len(g.policy.outcomes()) == 1 })
	c.request(3, true) // the upstream sees this one first
	s := up.accept()
	s.next("the second call", isHeaders(1))
	s.trailersOnly(1, "0")
	c.next("its answer", isTrailers(3))
}

// simulated makes a policy whose first attempts end like this.
func simulated(sim Simulation) *recorder {
	p := &recorder{}
	p.opened = func(*Call) Verdict {
		d := p.dispatch
		d.Simulate = &sim
		return To(&d)
	}
	return p
}

func TestSimulatedStatusIsAnAttemptThatFailed(t *testing.T) {
	for _, late := range []bool{false, true} {
		up := listenRaw(t, nil)
		p := simulated(Simulation{Kind: Answered, Code: codeUnavailable, Message: "as told"})
		if late {
			opened := p.opened
			p.opened = func(c *Call) Verdict {
				v := opened(c)
				v.to.NotBefore = time.Now().Add(30 * time.Millisecond)
				return v
			}
		}
		attempts := make(chan int, 1)
		p.failed = func(c *Call, _ Outcome) Verdict {
			attempts <- c.Attempts()
			return Pass()
		}
		g := newRig(t, Config{}, up.addr, p)
		c := dialRaw(t, g.addr)
		c.request(1, true)
		f := c.next("the status", isTrailers(1))
		if f.field("grpc-status") != "14" || f.field("grpc-message") != "as told" {
			t.Errorf("late %v: the client got %+v, want status 14 as told", late, f)
		}
		if n := <-attempts; n != 1 {
			t.Errorf("late %v: %d attempts, want 1", late, n)
		}
		if o := p.failures()[0]; o.Kind != Answered || o.Code != codeUnavailable || o.Upstream != g.up || o.FirstByte.IsZero() {
			t.Errorf("late %v: outcome %+v, want an answer of the upstream's", late, o)
		}
		if g.up.Conns() != 0 {
			t.Errorf("late %v: a connection was opened", late)
		}
	}
}

func TestCallMovesOnAfterASimulatedReset(t *testing.T) {
	up := listenRaw(t, nil)
	p := simulated(Simulation{Kind: Reset, Message: "as told"})
	p.failed = func(*Call, Outcome) Verdict { return To(&p.dispatch) }
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	want := []byte("everything of it")
	c.data(1, want, true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	if got := s.body(1, len(want)); !bytes.Equal(got, want) {
		t.Errorf("the next attempt got %q, want the request", got)
	}
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
	if o := p.failures()[0]; o.Kind != Reset || o.Code != codeInternal || o.Reset != http2.ErrCodeInternal || !o.FirstByte.IsZero() {
		t.Errorf("outcome %+v, want a reset", o)
	}
	c.sync()
	g.windows()
}
