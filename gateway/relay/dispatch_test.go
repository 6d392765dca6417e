package relay

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// forgetful is a policy that reuses its dispatches as soon as their calls are over.
type forgetful struct {
	*recorder
	up *Upstream
}

func (p *forgetful) Opened(c *Call) Verdict {
	d := &Dispatch{Upstream: p.up, Replay: true}
	c.Data = d
	return To(d)
}

func (p *forgetful) Over(c *Call, o Outcome) {
	*c.Data.(*Dispatch) = Dispatch{}
	p.recorder.Over(c, o)
}

// Calls that are cancelled in the moment in which they get the slot they waited for
// give it back to where it belongs, though their policy has forgotten them.
func TestDispatchMayBeReusedOnceItsCallIsOver(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{
		Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1}, ReadHeaderTimeout: patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "0") }),
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()
	defer func() { _ = hs.Close(); <-served }()

	p := &recorder{over: make(map[*Call]int)}
	fp := &forgetful{recorder: p}
	r := New(Config{MaxUpstreamConns: 2}, fp)
	g := &rig{Relay: r, t: t, policy: p}
	fp.up = r.NewUpstream(UpstreamConfig{Addr: ln.Addr().String()})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving := make(chan error, 1)
	go func() { serving <- r.Serve(front) }()

	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			tr := &http.Transport{Protocols: protocols}
			defer tr.CloseIdleConnections()
			var calls sync.WaitGroup
			for range 400 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(5000))*time.Microsecond)
				calls.Go(func() {
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+front.Addr().String()+"/a.B/C", strings.NewReader(""))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Content-Type", "application/grpc")
					if resp, err := tr.RoundTrip(req); err == nil {
						_ = resp.Body.Close()
					}
				})
				if rand.IntN(8) == 0 {
					time.Sleep(100 * time.Microsecond)
				}
			}
			calls.Wait()
		})
	}
	clients.Wait()
	g.settled()
	r.Close()
	if err := <-serving; err != nil {
		t.Error(err)
	}
}
