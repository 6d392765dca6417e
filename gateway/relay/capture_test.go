package relay

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// capturing is a policy whose calls are copied. What comes of it is put into got,
// nil for a call without a copy.
func capturing(got chan<- *Capture) *recorder {
	return &recorder{
		opened:   func(c *Call) Verdict { c.Inspect = true; return Wait() },
		captured: func(c *Call) { got <- c.Captured() },
	}
}

// dispatchFirst asks for a copy with the first piece and sends the call.
func (p *recorder) dispatchFirst(c *Call, b []byte, _ bool) ([]byte, Verdict) {
	if c.Attempts() > 0 {
		return b, Wait()
	}
	c.Capture()
	return b, To(&p.dispatch)
}

// echoServer answers each call, once it is complete, with answer.
func echoServer(answer []byte, fields ...string) func(*rawPeer) {
	return func(p *rawPeer) {
		p.onRecv = func(f frame) {
			if !f.end || f.id == 0 {
				return
			}
			p.headers(f.id, false, append([]string{":status", "200", "content-type", "application/grpc"}, fields...)...)
			p.sendAll(f.id, answer)
			p.trailers(f.id, "0")
		}
	}
}

func TestCopyIsWhatWasAskedAndAnswered(t *testing.T) {
	for name, cfg := range map[string]Config{
		"kept for another attempt":           {},
		"too long for another attempt":       {ReplayPerCall: 20_000},
		"no room to keep requests elsewhere": {ReplayTotal: 40 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan *Capture, 1)
			answer := patterned(1, 0, 30_000)
			up := listenRaw(t, echoServer(answer, "grpc-encoding", "gzip"))
			p := capturing(got)
			p.body = p.dispatchFirst
			g := newRig(t, cfg, up.addr, p)
			c := dialRaw(t, g.addr)
			request := patterned(2, 0, 45_000)
			c.request(1, false)
			for piece := range chunksOf(request, 15_000) {
				c.data(1, piece.bytes, piece.last)
			}
			c.next("the end", isTrailers(1))
			k := <-got
			if k == nil {
				t.Fatal("there is no copy")
			}
			if b := k.AppendRequest(nil); !bytes.Equal(b, request) || k.RequestBytes() != len(request) {
				t.Errorf("the copy of the request has %d bytes, or others", len(b))
			}
			if b := k.AppendAnswer([]byte("before")); !bytes.Equal(b, append([]byte("before"), answer...)) || k.AnswerBytes() != len(answer) {
				t.Errorf("the copy of the answer has %d bytes, or others", k.AnswerBytes())
			}
			if e := k.AnswerEncoding(); e != "gzip" {
				t.Errorf("the answer's encoding is %q, want gzip", e)
			}
			if s := g.Stats(); s.CaptureBytes != int64(k.Memory()) || s.ReplayBytes != 0 {
				t.Errorf("charged are %d bytes for copies and %d for replay, want %d and 0", s.CaptureBytes, s.ReplayBytes, k.Memory())
			}
			k.Retain()
			k.Release()
			if g.Stats().CaptureBytes == 0 {
				t.Error("the copy was freed while somebody holds it")
			}
			k.Release()
			if n := g.Stats().CaptureBytes; n != 0 {
				t.Errorf("%d bytes are charged after the last release", n)
			}
		})
	}
}

type part struct {
	bytes []byte
	last  bool
}

func chunksOf(b []byte, n int) func(func(part) bool) {
	return func(yield func(part) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(part{b[:k], k == len(b)}) {
				return
			}
			b = b[k:]
		}
	}
}

// What an attempt without success had answered is not part of the answer, and the
// request is copied once, however often it is sent.
func TestCopyOfACallThatWasSentTwice(t *testing.T) {
	got := make(chan *Capture, 1)
	up := listenRaw(t, nil)
	p := capturing(got)
	p.dispatch.Unary = true
	p.body = p.dispatchFirst
	p.failed = func(c *Call, _ Outcome) Verdict {
		c.Capture() // too late, and of no harm
		return To(&p.dispatch)
	}
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	c.data(1, []byte("first "), false)
	s := up.accept()
	s.body(1, 6)
	s.reset(1, http2.ErrCodeRefusedStream)
	s.body(3, 6)
	c.data(1, []byte("second"), true)
	s.body(3, 6)
	s.answerHead(3)
	s.data(3, []byte("answer"), false)
	s.trailers(3, "0")
	c.next("the end", isTrailers(1))
	k := <-got
	defer k.Release()
	if r, a := string(k.AppendRequest(nil)), string(k.AppendAnswer(nil)); r != "first second" || a != "answer" {
		t.Errorf("the copy is %q and %q", r, a)
	}
}

// Past a limit the copy is given up, never the call.
func TestCopyIsGivenUpPastItsLimits(t *testing.T) {
	for name, cfg := range map[string]Config{
		"request":              {CapturePerCall: 8_000},
		"request and answer":   {CapturePerCall: 15_000},
		"all copies":           {CaptureTotal: 1},
		"request, not kept":    {CapturePerCall: 8_000, ReplayTotal: 40 << 10},
		"all copies, not kept": {CaptureTotal: 1, ReplayTotal: 40 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan *Capture, 1)
			answer := patterned(1, 0, 10_000)
			up := listenRaw(t, echoServer(answer))
			p := capturing(got)
			p.body = p.dispatchFirst
			g := newRig(t, cfg, up.addr, p)
			c := dialRaw(t, g.addr)
			c.request(1, false)
			c.data(1, patterned(2, 0, 10_000), true)
			if b := c.body(1, len(answer)); !bytes.Equal(b, answer) {
				t.Error("the client got another answer")
			}
			c.next("the end", isTrailers(1))
			if k := <-got; k != nil {
				t.Errorf("there is a copy of %d and %d bytes", k.RequestBytes(), k.AnswerBytes())
				k.Release()
			}
			if s := g.Stats(); s.CapturesLost != 1 || s.CaptureBytes != 0 {
				t.Errorf("%d copies lost and %d bytes held, want 1 and 0", s.CapturesLost, s.CaptureBytes)
			}
		})
	}
}

func TestCallWithoutCopyHasNone(t *testing.T) {
	got := make(chan *Capture, 1)
	up := listenRaw(t, echoServer([]byte("answer")))
	p := capturing(got)
	p.opened = nil
	g := newRig(t, Config{}, up.addr, p)
	c := dialRaw(t, g.addr)
	c.request(1, false)
	c.data(1, []byte("request"), true)
	c.next("the end", isTrailers(1))
	if k := <-got; k != nil {
		t.Error("a call was copied though nobody asked")
	}
	if s := g.Stats(); s.CapturesLost != 0 {
		t.Errorf("%d copies were given up", s.CapturesLost)
	}
}

// Whatever ends a call, its copy's memory comes back, taken or not.
func TestCopiesLeakNothingUnderAStorm(t *testing.T) {
	up := listenRaw(t, chaosServer(11))
	var mu sync.Mutex
	var held []*Capture
	copies, copied := 0, 0
	p := &recorder{}
	p.captured = func(c *Call) {
		if rand.IntN(10) == 0 {
			return // and nobody takes it
		}
		k := c.Captured()
		if k == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if copies++; k.RequestBytes() > 0 && k.AnswerBytes() > 0 {
			copied++
		}
		held = append(held, k)
	}
	p.opened = func(c *Call) Verdict { c.Capture(); return To(&p.dispatch) }
	p.failed = func(c *Call, _ Outcome) Verdict {
		if c.Replayable() && c.Attempts() < 3 {
			return To(&p.dispatch)
		}
		return Pass()
	}
	g := newRig(t, Config{CaptureTotal: 2 << 20, CapturePerCall: 60_000, ReplayPerCall: 10_000, EarlyResets: 1 << 30,
		BackoffMin: 5 * time.Millisecond, BackoffMax: 20 * time.Millisecond}, up.addr, p)
	quit := make(chan struct{})
	var clients, holder sync.WaitGroup
	holder.Go(func() { // gives some back at any time
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Millisecond):
			}
			mu.Lock()
			for range min(len(held), 20) {
				i := rand.IntN(len(held))
				held[i].Release()
				held[i] = held[len(held)-1]
				held = held[:len(held)-1]
			}
			mu.Unlock()
		}
	})
	for i := range 8 {
		clients.Go(func() { stormClient(t, g.addr, uint64(i), 150) })
	}
	clients.Wait()
	whole := func() int {
		mu.Lock()
		defer mu.Unlock()
		return copied
	}
	for i := 0; whole() == 0 && i < 50; i++ { // on a busy machine every client may have given up first
		stormClient(t, g.addr, uint64(8+i), 150)
	}
	waitFor(t, "the calls to end", func() bool { return g.Calls() == 0 })
	close(quit)
	holder.Wait()
	mu.Lock()
	for _, k := range held {
		k.Release()
	}
	mu.Unlock()
	t.Logf("%d copies, %d of them with request and answer; %d given up", copies, copied, g.Stats().CapturesLost)
	if copied == 0 {
		t.Errorf("none of %d copies holds request and answer: this shows nothing", copies)
	}
	g.settled()
}
