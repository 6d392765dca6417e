package client

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// echo answers every call of a connection with its own name.
func echo(p *peer, name string) {
	for stream := p.next(); stream != 0; stream = p.next() {
		p.answer(stream, name)
	}
}

func TestEveryWayToEnd(t *testing.T) {
	for name, c := range map[string]struct {
		play func(p *peer, stream uint32)
		end  End
		code codes.Code
		body string
	}{
		"an answer":       {func(p *peer, s uint32) { p.answer(s, "hello") }, Answered, codes.OK, "hello"},
		"a status alone":  {func(p *peer, s uint32) { p.fields(s, true, ":status", "200", "grpc-status", "5") }, Answered, codes.NotFound, ""},
		"HTTP alone":      {func(p *peer, s uint32) { p.fields(s, true, ":status", "503") }, Answered, codes.Unavailable, ""},
		"HTTP and a page": {func(p *peer, s uint32) { p.fields(s, false, ":status", "404"); _ = p.WriteData(s, true, []byte("no")) }, Answered, codes.Unimplemented, "no"},
		"no status":       {func(p *peer, s uint32) { p.fields(s, false, ":status", "200"); _ = p.WriteData(s, true, nil) }, Answered, codes.Unknown, ""},
		"a reset":         {func(p *peer, s uint32) { _ = p.WriteRSTStream(s, http2.ErrCodeInternal) }, Lost, 0, ""},
		"a reset in an answer": {func(p *peer, s uint32) {
			p.fields(s, false, ":status", "200")
			_ = p.WriteRSTStream(s, http2.ErrCodeCancel)
		}, Answered, codes.Canceled, ""},
		"refused":    {func(p *peer, s uint32) { _ = p.WriteRSTStream(s, http2.ErrCodeRefusedStream) }, Unsent, 0, ""},
		"going away": {func(p *peer, _ uint32) { _ = p.WriteGoAway(0, http2.ErrCodeNo, nil) }, Unsent, 0, ""},
		"too much":   {func(p *peer, s uint32) { p.answer(s, strings.Repeat("x", 11)) }, Oversized, 0, ""},
		"nonsense":   {func(p *peer, _ uint32) { _ = p.WriteRawFrame(http2.FrameSettings, 0, 3, []byte("x")) }, Lost, 0, ""},
		"prelude first": {func(p *peer, s uint32) {
			p.fields(s, false, ":status", "103")
			_ = p.WriteRSTStream(s, http2.ErrCodeInternal)
		}, Lost, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, nil, func(_ int, p *peer) {
				if s := p.next(); s != 0 {
					c.play(p, s)
				}
				p.next()
			})
			r := newRig(t)
			k := &Call{Path: "/a/b", Body: []byte("request"), Limit: 10}
			r.Start(Endpoint{Addr: addr}, k, time.Now())
			r.Flush()
			if got := r.ended(); got != k || k.End != c.end || k.Code != uint32(c.code) || string(k.Answer) != c.body || k.Latency <= 0 {
				t.Errorf("ended %+v", k)
			}
		})
	}
}

// An answer that is complete before the request ends the call, and the rest is not sent.
func TestAnswerBeforeTheRequestIsOver(t *testing.T) {
	reset := make(chan http2.ErrCode, 1)
	addr := serve(t, nil, func(_ int, p *peer) {
		for {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.HeadersFrame:
				p.answer(f.StreamID, "early")
			case *http2.RSTStreamFrame:
				reset <- f.ErrCode
			}
		}
	})
	r := newRig(t)
	k := r.begin(addr, strings.Repeat("x", 1<<20)) // windows are 64 KiB
	if r.ended(); k.End != Answered || string(k.Answer) != "early" {
		t.Errorf("ended %+v", k)
	}
	select {
	case code := <-reset:
		if code != http2.ErrCodeNo {
			t.Errorf("reset with %v", code)
		}
	case <-time.After(patience):
		t.Error("the stream was not reset")
	}
}

// How long a server takes to let the request in is none of its latency.
func TestLatencyBeginsOnceAllIsSent(t *testing.T) {
	t.Parallel()
	const shut = 300 * time.Millisecond
	addr := serve(t, nil, func(_ int, p *peer) {
		for {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			if f.Header().Type == http2.FrameHeaders {
				time.Sleep(shut)
				_ = p.WriteWindowUpdate(0, 1<<20)
				_ = p.WriteWindowUpdate(f.Header().StreamID, 1<<20)
			}
			if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
				p.answer(d.StreamID, "x")
			}
		}
	})
	r := newRig(t)
	k := r.begin(addr, strings.Repeat("x", 100_000)) // more than the windows
	if r.ended(); k.End != Answered || k.Latency <= 0 || k.Ended.Sub(k.Started)-k.Latency < shut*9/10 {
		t.Errorf("ended %v in %v, with a latency of %v", k.End, k.Ended.Sub(k.Started), k.Latency)
	}
}

// What the server says of its windows and streams is obeyed: requests far longer than
// the window arrive whole, one at a time.
func TestServersLimitsAreObeyed(t *testing.T) {
	var open atomic.Int32
	addr := serve(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}, {ID: http2.SettingInitialWindowSize, Val: 100}}, func(_ int, p *peer) {
		settled := false
		got, window := map[uint32]int{}, map[uint32]int{}
		for {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				settled = settled || f.IsAck()
			case *http2.HeadersFrame:
				if window[f.StreamID] = 100; open.Add(1) > 1 && settled {
					t.Error("two streams at once")
				}
			case *http2.DataFrame:
				n := int(f.Length)
				got[f.StreamID] += n
				if window[f.StreamID] -= n; settled && window[f.StreamID] < 0 {
					t.Errorf("%d bytes beyond the window", -window[f.StreamID])
				}
				window[f.StreamID] += n
				_ = p.WriteWindowUpdate(0, uint32(n))
				_ = p.WriteWindowUpdate(f.StreamID, uint32(n))
				if f.StreamEnded() {
					open.Add(-1)
					p.answer(f.StreamID, fmt.Sprint(got[f.StreamID]))
				}
			}
		}
	})
	r := newRig(t)
	r.begin(addr, "x")
	r.ended() // the settings have been seen
	for range 5 {
		r.begin(addr, strings.Repeat("x", 1000))
	}
	for range 5 {
		if k := r.ended(); k.End != Answered || string(k.Answer) != "1000" {
			t.Errorf("ended %+v", k)
		}
	}
}

// A server that wants a connection to end answers what it has begun, and the calls after
// that go over another one.
func TestGoingAwayEndsWhatHasBegun(t *testing.T) {
	release := make(chan struct{})
	addr := serve(t, nil, func(n int, p *peer) {
		if n > 0 {
			echo(p, "second")
			return
		}
		first := p.next()
		_ = p.WriteGoAway(first, http2.ErrCodeNo, nil)
		<-release
		p.answer(first, "first")
		p.next()
	})
	r := newRig(t)
	one := r.begin(addr, "x")
	var two *Call
	for two == nil { // until the client has seen it
		if k := r.begin(addr, "y"); r.ended() == k && k.End == Answered {
			two = k
		}
	}
	close(release)
	if r.ended() != one || one.End != Answered || string(one.Answer) != "first" || string(two.Answer) != "second" {
		t.Errorf("ended %+v and %+v", one, two)
	}
}

// A connection on which a call was over without a sign of life is given up: others find
// a server that is well again.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	addr := serve(t, nil, func(n int, p *peer) {
		if n > 0 {
			echo(p, "again")
			return
		}
		for {
			if _, err := p.ReadFrame(); err != nil { // and says nothing
				return
			}
		}
	})
	r := newRig(t)
	var k *Call
	for end := time.Now().Add(patience); k == nil || k.End != Answered; {
		if time.Now().After(end) {
			t.Fatalf("no answer: %+v", k)
		}
		k = r.begin(addr, "x")
		time.Sleep(20 * time.Millisecond)
		r.Cancel(k, time.Now())
		r.Cancel(k, time.Now()) // and again, which does nothing
		r.ended()
	}
	if string(k.Answer) != "again" || len(r.over) != 0 {
		t.Errorf("answer %q; %d calls more have ended", k.Answer, len(r.over))
	}
}

// A server that asks for answers and reads none is left before they fill the memory.
func TestServerThatProvokesAnswersAndReadsNone(t *testing.T) {
	var sent bytes.Buffer
	pings := http2.NewFramer(&sent, nil)
	for range 3 * maxOut / 17 {
		if err := pings.WritePing(false, [8]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	c := newConn(newRig(t).Client, Endpoint{})
	reader := bufio.NewReaderSize(&sent, readSize)
	c.frames = http2.NewFramer(&c.out, reader)
	c.readAll(reader) // and nobody takes what is queued
	if n := len(c.out.b); n < maxOut || n > maxOut+100 || sent.Len() == 0 {
		t.Errorf("%d bytes wait to be written, want hardly more than %d; %d bytes were not read", n, maxOut, sent.Len())
	}
}

// A connection that takes nothing is closed after a while: what waits for it is over.
func TestConnectionThatTakesNothingIsClosed(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	addr := serve(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}}, func(_ int, p *peer) {
		_ = p.WriteWindowUpdate(0, 1<<31-1-initialWindow)
		<-ended // and reads nothing
	})
	defer close(ended)
	r := newRig(t)
	k := r.begin(addr, strings.Repeat("x", 64<<20)) // more than the kernel keeps
	begun := time.Now()
	if r.ended(); k.End != Lost || time.Since(begun) < writePatience/2 {
		t.Errorf("after %v ended %+v", time.Since(begun), k.End)
	}
}

// Connections that nobody needs any more are closed.
func TestUnusedConnectionsAreClosed(t *testing.T) {
	left := make(chan struct{})
	addr := serve(t, nil, func(_ int, p *peer) {
		echo(p, "one")
		close(left)
	})
	other := serve(t, nil, func(_ int, p *peer) { echo(p, "other") })
	r := newRig(t)
	start := func(addr string, at time.Time) {
		t.Helper()
		k := &Call{Path: "/a/b", Body: []byte("x"), Limit: 100}
		r.Start(Endpoint{Addr: addr}, k, at)
		r.Flush()
		if r.ended(); k.End != Answered {
			t.Fatalf("ended %+v", k)
		}
	}
	begun := time.Now()
	start(addr, begun)
	start(other, begun.Add(unusedFor))
	select {
	case <-left:
		t.Fatal("a connection was closed too soon")
	default:
	}
	start(other, begun.Add(2*unusedFor+time.Second))
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("a connection that nobody uses is still there")
	}
}

// An address with which no connection can be made is not tried with every call.
func TestAddressThatFailsIsLeftAlone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tried atomic.Int32
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			tried.Add(1)
			_ = nc.Close() // in the middle of the handshake
		}
	})
	defer accepting.Wait()
	defer ln.Close()
	r := newRig(t)
	begun := time.Now()
	for range 200 {
		k := &Call{Path: "/a/b", Limit: 100}
		r.Start(Endpoint{Addr: ln.Addr().String(), TLS: func() (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS12}, nil }}, k, time.Now())
		r.Flush()
		if r.ended(); k.End != Lost {
			t.Fatalf("ended %+v", k)
		}
	}
	for end := time.Now().Add(patience); tried.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // whoever accepts may be late
	}
	if n, most := int(tried.Load()), 2+int(time.Since(begun)/redialAfter); n > most || n == 0 {
		t.Errorf("tried %d times in %v, want at most %d", n, time.Since(begun), most)
	}
}

// A call that waits, for a connection or a stream, can be cancelled, and an address that
// is not there is not tried with every call.
func TestNobodyThere(t *testing.T) {
	r := newRig(t)
	for range 100 {
		r.begin("127.0.0.1:1", "x")
	}
	for range 100 {
		if k := r.ended(); k.End != Lost || !k.Started.IsZero() {
			t.Errorf("ended %+v", k)
		}
	}
	r.Close()
	if k := r.begin("127.0.0.1:1", "x"); r.ended() != k || k.End != Lost {
		t.Errorf("ended %+v", k)
	}
}

// Closing ends every call once, whatever it was doing.
func TestClosingEndsAllCalls(t *testing.T) {
	addr := serve(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 3}}, func(_ int, p *peer) {
		for p.next() != 0 {
		}
	})
	r := newRig(t)
	for range 10 {
		r.begin(addr, strings.Repeat("x", 100_000))
	}
	r.Close()
	for range 10 {
		if k := r.ended(); k.End != Lost {
			t.Errorf("ended %+v", k)
		}
	}
	if len(r.over) != 0 {
		t.Errorf("%d calls more have ended", len(r.over))
	}
}
