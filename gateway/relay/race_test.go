package relay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// hedged is a relay whose calls go to first and, without an answer, to second as well.
type hedged struct {
	*rig
	first, second *rawServer
	other         Dispatch
}

func newHedged(t *testing.T, p *recorder) *hedged {
	t.Helper()
	t.Parallel()
	h := &hedged{first: listenRaw(t, nil), second: listenRaw(t, nil)}
	p.dispatch.Unary, p.dispatch.Hedge = true, 20*time.Millisecond
	p.prepare = func(r *Relay) {
		h.other = Dispatch{Upstream: r.NewUpstream(UpstreamConfig{Addr: h.second.addr}), Unary: true, Replay: true}
	}
	if p.due == nil {
		p.due = func(*Call) Verdict { return To(&h.other) }
	}
	if p.failed == nil {
		p.failed = func(c *Call, o Outcome) Verdict {
			if c.Racing() && o.Code != 3 {
				return Wait()
			}
			return Pass()
		}
	}
	h.rig = newRig(t, Config{}, h.first.addr, p)
	return h
}

const racing = "a request that is sent twice"

// race makes a call and returns both its attempts' servers, each with the whole request.
func (h *hedged) race(c *rawPeer) (first, second *rawPeer) {
	h.t.Helper()
	c.request(1, false)
	c.data(1, []byte(racing), true)
	first = h.first.accept()
	second = h.second.accept()
	for _, s := range []*rawPeer{first, second} {
		s.next("the call", isHeaders(1))
		if got := string(s.body(1, len(racing))); got != racing {
			h.t.Errorf("a server got %q, want %q", got, racing)
		}
	}
	return first, second
}

// over waits for the call's end and checks that each of its two attempts was accounted
// for once: by Failed, by Dropped or by Over.
func (h *hedged) over() Outcome {
	h.t.Helper()
	waitFor(h.t, "the call to be over", func() bool { return len(h.policy.outcomes()) == 1 })
	end := h.policy.outcomes()[0]
	told := map[*Dispatch]int{}
	for _, o := range append(h.policy.failures(), h.policy.dropped()...) {
		told[o.Dispatch]++
	}
	if end.Dispatch != nil && told[end.Dispatch] == 0 { // else it was told as failed, and passed on
		told[end.Dispatch]++
	}
	if told[&h.policy.dispatch] != 1 || told[&h.other] != 1 {
		h.t.Errorf("the first attempt's end was told %d times and the second one's %d times, want once each",
			told[&h.policy.dispatch], told[&h.other])
	}
	h.settled()
	h.windows()
	return end
}

func (h *hedged) expect(c *rawPeer, status, body string) {
	h.t.Helper()
	var got bytes.Buffer
	f := c.next("the end of the answer", func(f frame) bool {
		got.Write(f.data)
		return f.id == 1 && f.end
	})
	if f.field("grpc-status") != status || got.String() != body {
		h.t.Errorf("got status %q and %q, want %q and %q", f.field("grpc-status"), got.String(), status, body)
	}
}

func (p *rawPeer) answer200(id uint32, body string) {
	p.answerHead(id)
	p.data(id, []byte(body), false)
	p.trailers(id, "0")
}

// Whichever of two attempts answers first wins; the other one is cancelled and told as
// outrun, and what it may still say reaches nobody.
func TestFirstAnswerWinsARace(t *testing.T) {
	for _, c := range []struct {
		name string
		pick func(first, second *rawPeer) (winner, loser *rawPeer)
	}{
		{"first attempt", func(a, b *rawPeer) (*rawPeer, *rawPeer) { return a, b }},
		{"second attempt", func(a, b *rawPeer) (*rawPeer, *rawPeer) { return b, a }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &recorder{}
			h := newHedged(t, p)
			client := dialRaw(t, h.addr)
			winner, loser := c.pick(h.race(client))
			loser.answerHead(1) // early headers win nothing
			loser.sync()
			winner.answer200(1, "won")
			h.expect(client, "0", "won")
			if f := loser.next("the cancellation", isReset4(1)); f.code != http2.ErrCodeCancel {
				t.Errorf("the loser got %v, want CANCEL", f.code)
			}
			loser.data(1, []byte("lost"), false)
			loser.trailers(1, "0")
			loser.sync()
			if end := h.over(); end.Kind != Answered || end.Code != 0 {
				t.Errorf("the call ended as %+v", end)
			}
			if d := p.dropped(); len(d) != 1 || d[0].Kind != Outrun || d[0].Committed {
				t.Errorf("dropped: %+v, want one attempt that was outrun", d)
			}
		})
	}
}

// An attempt of a race that fails leaves the call to the other one, whichever fails and
// however it does.
func TestFailureOfOneLeavesTheRaceToTheOther(t *testing.T) {
	for how, fail := range map[string]func(*rawPeer){
		"status":     func(s *rawPeer) { s.trailersOnly(1, "14") },
		"held":       func(s *rawPeer) { s.answerHead(1); s.trailers(1, "13") },
		"reset":      func(s *rawPeer) { s.reset(1, http2.ErrCodeInternal) },
		"lost":       func(s *rawPeer) { s.close() },
		"going away": func(s *rawPeer) { s.goAway(0, http2.ErrCodeNo) },
		"invalid":    func(s *rawPeer) { s.headers(1, false, ":status", "503") },
	} {
		for _, second := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, second fails: %v", how, second), func(t *testing.T) {
				h := newHedged(t, &recorder{})
				client := dialRaw(t, h.addr)
				failing, other := h.race(client)
				if second {
					failing, other = other, failing
				}
				fail(failing)
				waitFor(t, "the failure", func() bool { return len(h.policy.failures()) == 1 })
				other.answer200(1, "still there")
				h.expect(client, "0", "still there")
				h.over()
				if d := h.policy.dropped(); len(d) > 0 {
					t.Errorf("dropped: %+v, want none", d)
				}
			})
		}
	}
}

// When both attempts fail, the last failure decides.
func TestBothAttemptsOfARaceFail(t *testing.T) {
	h := newHedged(t, &recorder{})
	client := dialRaw(t, h.addr)
	first, second := h.race(client)
	second.trailersOnly(1, "14")
	waitFor(t, "the first failure", func() bool { return len(h.policy.failures()) == 1 })
	first.trailersOnly(1, "13")
	h.expect(client, "13", "")
	h.over()
}

// A failure that the policy passes on ends the race at once.
func TestPassedFailureEndsTheRace(t *testing.T) {
	h := newHedged(t, &recorder{})
	client := dialRaw(t, h.addr)
	first, second := h.race(client)
	first.trailersOnly(1, "3")
	h.expect(client, "3", "")
	second.next("the cancellation", isReset4(1))
	h.over()
}

// Whatever ends the call ends both attempts.
func TestEndOfTheCallEndsBothAttempts(t *testing.T) {
	for name, end := range map[string]func(h *hedged, c *rawPeer){
		"cancelled":   func(_ *hedged, c *rawPeer) { c.reset(1, http2.ErrCodeCancel) },
		"client gone": func(_ *hedged, c *rawPeer) { c.close() },
		"deadline":    func(h *hedged, c *rawPeer) { h.expect(c, "4", "") },
	} {
		t.Run(name, func(t *testing.T) {
			p := &recorder{}
			if name == "deadline" {
				p.opened = func(c *Call) Verdict {
					c.SetDeadline(time.Now().Add(2 * time.Second))
					return To(&p.dispatch)
				}
			}
			h := newHedged(t, p)
			client := dialRaw(t, h.addr)
			first, second := h.race(client)
			end(h, client)
			first.next("the cancellation", isReset4(1))
			second.next("the cancellation", isReset4(1))
			o := h.over()
			if d := p.dropped(); len(d) != 1 || d[0].Kind != o.Kind {
				t.Errorf("dropped: %+v, want one that ended as the call did, %v", d, o.Kind)
			}
		})
	}
}

// Requests that are not kept whole are not sent twice, nor those still under way.
func TestOnlyWholeRequestsAreHedged(t *testing.T) {
	t.Run("too long", func(t *testing.T) {
		h := newHedged(t, &recorder{})
		client := dialRaw(t, h.addr)
		client.request(1, false)
		body := strings.Repeat("x", 60000)
		go func() {
			for range 20 { // 1.2 MB, over the limit of a call
				if client.allow(1, len(body)) {
					for rest := body; rest != ""; {
						n := min(len(rest), maxFrameLen)
						client.data(1, []byte(rest[:n]), false)
						rest = rest[n:]
					}
				}
			}
			client.data(1, nil, true)
		}()
		s := h.first.accept()
		s.next("the end of the request", func(f frame) bool { return f.id == 1 && f.end })
		time.Sleep(60 * time.Millisecond)
		s.answer200(1, "alone")
		h.expect(client, "0", "alone")
	})
	t.Run("under way", func(t *testing.T) {
		asked := make(chan struct{}, 1)
		h := newHedged(t, &recorder{due: func(*Call) Verdict { asked <- struct{}{}; return Wait() }})
		client := dialRaw(t, h.addr)
		client.request(1, false)
		client.data(1, []byte("half"), false)
		s := h.first.accept()
		s.body(1, 4)
		time.Sleep(60 * time.Millisecond)
		select {
		case <-asked:
			t.Error("asked for a second attempt while the client still sends")
		default:
		}
		client.data(1, nil, true)
		<-asked
		s.answer200(1, "alone")
		h.expect(client, "0", "alone")
	})
}

// An attempt that has used up its part of the deadline is cancelled, and the policy may
// go elsewhere in what is left; the upstream was told how long it had.
func TestAttemptEndsBeforeItsCall(t *testing.T) {
	t.Parallel()
	first, second := listenRaw(t, nil), listenRaw(t, nil)
	p := &recorder{}
	var other Dispatch
	p.prepare = func(r *Relay) {
		other = Dispatch{Upstream: r.NewUpstream(UpstreamConfig{Addr: second.addr}), Unary: true, Replay: true}
	}
	p.opened = func(c *Call) Verdict {
		c.SetDeadline(c.Opened().Add(20 * time.Second))
		p.dispatch.Unary, p.dispatch.Until = true, c.Opened().Add(time.Second)
		return To(&p.dispatch)
	}
	p.failed = func(*Call, Outcome) Verdict { return To(&other) }
	g := newRig(t, Config{}, first.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	s := first.accept()
	if d, ok := parseTimeout(s.next("the call", isHeaders(1)).field("grpc-timeout")); !ok || d > time.Second {
		t.Errorf("the first server was given %v, want at most 1 s", d)
	}
	s.next("the cancellation", isReset4(1))
	s = second.accept()
	if d, ok := parseTimeout(s.next("the call", isHeaders(1)).field("grpc-timeout")); !ok || d < 2*time.Second {
		t.Errorf("the second server was given %v, want what is left of 20 s", d)
	}
	s.trailersOnly(1, "0")
	c.next("the answer", isTrailers(1))
	if f := p.failures(); len(f) != 1 || f[0].Kind != DeadlineExceeded || f[0].Dispatch != &p.dispatch {
		t.Errorf("failures: %+v, want the first attempt's deadline", f)
	}
}

// An answer that has begun may go on past its attempt's part of the deadline.
func TestBegunAnswersOutliveTheirPart(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, nil)
	p := &recorder{}
	p.opened = func(c *Call) Verdict {
		p.dispatch.Unary, p.dispatch.Until = true, c.Opened().Add(time.Second)
		return To(&p.dispatch)
	}
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	s.answerHead(1)
	s.data(1, []byte("begun"), false)
	c.next("the answer", isHeaders(1))
	time.Sleep(1100 * time.Millisecond)
	s.trailers(1, "0")
	if got := c.next("the end", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s, want 0", got)
	}
}

// A status waits for the policy's second thoughts and is handed out as it came if there
// are none: early headers, details and all.
func TestKeptStatusIsHandedOutAsItCame(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("early headers: %v", early), func(t *testing.T) {
			t.Parallel()
			up := listenRaw(t, nil)
			p := &recorder{}
			p.dispatch.Unary = true
			p.failed = func(_ *Call, o Outcome) Verdict {
				if o.PushbackFor != 30*time.Millisecond || !o.Pushback {
					t.Errorf("got %+v, want a pushback of 30 ms", o)
				}
				return Later(o.PushbackFor)
			}
			p.due = func(*Call) Verdict { return Pass() }
			g := newRig(t, Config{}, up.addr, p)
			c := dialRaw(t, g.addr)
			c.request(1, true)
			s := up.accept()
			s.next("the call", isHeaders(1))
			begun := time.Now()
			if early {
				s.answerHead(1)
				s.trailers(1, "14", "grpc-retry-pushback-ms", "30", "x-detail", "kept")
			} else {
				s.trailersOnly(1, "14", "grpc-retry-pushback-ms", "30", "x-detail", "kept")
			}
			f := c.next("the answer", isTrailers(1))
			if f.field("grpc-status") != "14" || f.field("x-detail") != "kept" || f.field("grpc-retry-pushback-ms") != "30" {
				t.Errorf("got %v", f.fields)
			}
			if waited := time.Since(begun); waited < 20*time.Millisecond {
				t.Errorf("the policy was asked after %v, want 30 ms", waited)
			}
		})
	}
}

// After a wait the call is sent again, and a client that leaves meanwhile ends it.
func TestCallsWaitToBeSentAgain(t *testing.T) {
	t.Parallel()
	up := listenRaw(t, nil)
	p := &recorder{}
	p.failed = func(*Call, Outcome) Verdict {
		if len(p.failures()) == 1 {
			return Later(20 * time.Millisecond)
		}
		return Later(time.Hour)
	}
	p.due = func(*Call) Verdict { return To(&p.dispatch) }
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	c.data(1, []byte(racing), true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	s.trailersOnly(1, "14")
	s.next("the call again", isHeaders(3))
	if got := string(s.body(3, len(racing))); got != racing {
		t.Errorf("sent again: %q", got)
	}
	s.trailersOnly(3, "0")
	if got := c.next("the answer", isTrailers(1)).field("grpc-status"); got != "0" {
		t.Errorf("status %s, want 0", got)
	}
	c.request(3, false)
	c.data(3, []byte(racing), true)
	s.next("the call", isHeaders(5))
	s.trailersOnly(5, "14")
	waitFor(t, "the failure", func() bool { return len(p.failures()) == 2 })
	c.reset(3, http2.ErrCodeCancel)
	waitFor(t, "the call to be over", func() bool { return len(p.outcomes()) == 2 })
	if o := p.outcomes()[1]; o.Kind != Canceled {
		t.Errorf("ended as %+v, want cancelled", o)
	}
}

// Whatever ends races and waits, every attempt's end is told once and nothing is held
// afterwards.
func TestRacesEndOnceUnderAStorm(t *testing.T) {
	first, second := listenRaw(t, chaosServer(11)), listenRaw(t, chaosServer(12))
	var mu sync.Mutex
	var ups [2]*Upstream
	told := map[*Dispatch]int{} // how often Failed has told the end of an attempt
	var raced, waited int
	dispatch := func(hedge time.Duration) Verdict {
		d := &Dispatch{Upstream: ups[rand.IntN(2)], Unary: true, Replay: true, Hedge: hedge}
		told[d] = 0
		return To(d)
	}
	p := &recorder{}
	p.prepare = func(r *Relay) {
		ups = [2]*Upstream{p.up, r.NewUpstream(UpstreamConfig{Addr: second.addr})}
	}
	p.opened = func(c *Call) Verdict {
		if d, ok := c.Timeout(); ok {
			c.SetDeadline(c.Opened().Add(d))
		}
		mu.Lock()
		defer mu.Unlock()
		return dispatch(time.Duration(1+rand.IntN(30)) * time.Millisecond)
	}
	p.due = func(c *Call) Verdict {
		mu.Lock()
		defer mu.Unlock()
		if c.parked != nil {
			waited++
		} else {
			raced++
		}
		if rand.IntN(10) == 0 {
			return Pass()
		}
		return dispatch(0)
	}
	p.failed = func(c *Call, o Outcome) Verdict {
		mu.Lock()
		defer mu.Unlock()
		told[o.Dispatch]++
		switch n := rand.IntN(10); {
		case n < 2:
			return Pass()
		case n < 8 && o.Kind == Answered && !c.Racing():
			return Later(time.Duration(rand.IntN(20)) * time.Millisecond)
		case c.Racing() || c.Attempts() >= 4 || !c.Replayable():
			return Wait()
		}
		return dispatch(10 * time.Millisecond)
	}
	g := newRig(t, Config{MaxUpstreamConns: 3, StreamsPerConn: 20, EarlyResets: 1 << 30, BackoffMin: 5 * time.Millisecond,
		BackoffMax: 20 * time.Millisecond, MaxUpstreamStream: 401}, first.addr, p)
	quit := make(chan struct{})
	var clients, killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if all := g.snapshot(); len(all) > 0 {
				all[rand.IntN(len(all))].fail(errors.New("cut by the test"))
			}
		}
	})
	for i := range 8 {
		clients.Go(func() { stormClient(t, g.addr, 100+uint64(i), 150) })
	}
	clients.Wait()
	close(quit)
	killer.Wait()
	g.settled()
	g.windows()
	mu.Lock()
	defer mu.Unlock()
	drops := p.dropped()
	for _, o := range drops {
		told[o.Dispatch]++
	}
	for _, o := range p.outcomes() {
		if o.Dispatch != nil && told[o.Dispatch] == 0 { // else it was told as failed, and passed on
			told[o.Dispatch] = 1
		}
	}
	for d, n := range told {
		if n != 1 {
			t.Errorf("the end of an attempt at %s was told %d times, want once", d.Upstream.Addr(), n)
		}
	}
	t.Logf("%d calls, %d second attempts asked for, %d waits, %d attempts dropped", len(p.outcomes()), raced, waited, len(drops))
	if raced == 0 || len(drops) == 0 {
		t.Error("the storm is too calm")
	}
}
