package client

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// peer is one connection of a server that a test plays frame by frame.
type peer struct {
	*http2.Framer
	t     testing.TB
	block bytes.Buffer
	enc   *hpack.Encoder
}

// serve plays a server: its n-th connection, from 0, is played by play. It returns the
// server's address.
func serve(t testing.TB, settings []http2.Setting, play func(n int, p *peer)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var playing sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	playing.Go(func() {
		for n := 0; ; n++ {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, nc)
			mu.Unlock()
			playing.Go(func() {
				defer nc.Close()
				preface := make([]byte, len(http2.ClientPreface))
				if _, err := io.ReadFull(nc, preface); err != nil {
					return
				}
				p := &peer{Framer: http2.NewFramer(nc, nc), t: t}
				p.enc = hpack.NewEncoder(&p.block)
				if p.WriteSettings(settings...) == nil {
					play(n, p)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, nc := range open {
			_ = nc.Close()
		}
		mu.Unlock()
		playing.Wait()
	})
	return ln.Addr().String()
}

// next returns the stream whose request has just ended; 0 if the connection has.
func (p *peer) next() uint32 {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return f.StreamID
			}
		case *http2.DataFrame:
			if n := f.Length; n > 0 {
				_ = p.WriteWindowUpdate(0, n)
				_ = p.WriteWindowUpdate(f.StreamID, n)
			}
			if f.StreamEnded() {
				return f.StreamID
			}
		}
	}
}

// fields sends fields, in two frames so that continuations are met, too.
func (p *peer) fields(stream uint32, end bool, pairs ...string) {
	p.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	b := p.block.Bytes()
	half := len(b) / 2
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b[:half], EndStream: end})
	_ = p.WriteContinuation(stream, true, b[half:])
}

// answer sends a whole answer.
func (p *peer) answer(stream uint32, body string) {
	p.fields(stream, false, ":status", "200", "content-type", "application/grpc")
	_ = p.WriteDataPadded(stream, false, []byte(body), make([]byte, 7))
	p.fields(stream, true, "grpc-status", "0")
}

// rig is a client whose calls that are over can be waited for.
type rig struct {
	*Client
	t    testing.TB
	over chan *Call
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, over: make(chan *Call, 10_000)}
	r.Client = New("test", func(calls []*Call) {
		for _, k := range calls {
			r.over <- k
		}
	})
	t.Cleanup(r.Close)
	return r
}

// begin begins a call.
func (r *rig) begin(addr, body string) *Call {
	k := &Call{Path: "/a/b", Body: []byte(body), Limit: 1 << 20}
	r.Start(Endpoint{Addr: addr}, k, time.Now())
	r.Flush()
	return k
}

// ended returns the next call that is over.
func (r *rig) ended() *Call {
	r.t.Helper()
	select {
	case k := <-r.over:
		return k
	case <-time.After(patience):
		r.t.Fatal("no call has ended")
		return nil
	}
}
