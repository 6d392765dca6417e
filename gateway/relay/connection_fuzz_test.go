package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzDownstream feeds foreign bytes to a client's connection. Whatever they are, the
// relay neither hangs nor panics, every call ends once, and nothing stays held.
func FuzzDownstream(f *testing.F) {
	var block encBuffer
	enc := hpack.NewEncoder(&block)
	for _, h := range tracedRequest {
		_ = enc.WriteField(h)
	}
	head := func(id uint32, flags http2.Flags) []byte {
		return append(appendFrameHeader(nil, len(block.b), http2.FrameHeaders, flags, id), block.b...)
	}
	whole, open := http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, http2.FlagHeadersEndHeaders
	body := append(appendFrameHeader(nil, 5, http2.FrameData, http2.FlagDataEndStream, 1), 0, 0, 0, 0, 0)
	f.Add(head(1, whole))
	f.Add(append(head(1, open), body...))
	f.Add(appendRSTStream(head(1, open), 1, http2.ErrCodeCancel))
	f.Add(appendWindowUpdate(head(1, open), 1, maxWindow))
	f.Add(append(head(1, 0), appendFrameHeader(nil, 0, http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1)...))
	f.Add(appendSettings(head(1, open), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &recorder{over: make(map[*Call]int)}
		r := New(Config{}, p)
		up := r.NewUpstream(UpstreamConfig{Addr: "nowhere", Dial: func(context.Context, string) (net.Conn, error) {
			return nil, errors.New("unreachable")
		}})
		p.opened = func(c *Call) Verdict {
			if len(c.Fields())%2 == 0 {
				return To(&Dispatch{Upstream: up, Replay: true})
			}
			c.Inspect = true
			return Wait()
		}
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() { defer close(served); r.serve(near, &pipeTransport{nc: near}) }()
		drained := make(chan struct{})
		go func() { defer close(drained); _, _ = io.Copy(io.Discard, far) }()
		_ = far.SetWriteDeadline(time.Now().Add(patience))
		_, err := far.Write(bytes.Join([][]byte{[]byte(http2.ClientPreface), appendSettings(nil), b}, nil))
		if isTimeout(err) {
			t.Fatal("the relay stopped reading")
		}
		_ = far.Close()
		<-served
		<-drained
		r.Close()
		if s := r.Stats(); s.Calls != 0 || s.BufferedBytes != 0 || s.ReplayBytes != 0 {
			t.Fatalf("held in the end: %+v", s)
		}
		for _, n := range p.over {
			if n != 1 {
				t.Fatalf("Over was called %d times", n)
			}
		}
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
