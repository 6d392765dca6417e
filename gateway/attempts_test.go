package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// rawServer answers every stream with what answer writes, as frames.
func rawServer(t testing.TB, answer func(f *http2.Framer, stream uint32) error) (addr string, streams *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams = new(atomic.Int64)
	var serving sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			serving.Go(func() {
				defer nc.Close()
				serveFrames(nc, streams, answer)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, nc := range conns {
			_ = nc.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return ln.Addr().String(), streams
}

func serveFrames(nc net.Conn, streams *atomic.Int64, answer func(*http2.Framer, uint32) error) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil {
		return
	}
	f := http2.NewFramer(nc, nc)
	if f.WriteSettings() != nil {
		return
	}
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() && f.WriteSettingsAck() != nil {
				return
			}
		case *http2.HeadersFrame:
			streams.Add(1)
			if answer(f, fr.StreamID) != nil {
				return
			}
		}
	}
}

func refusesStreams(f *http2.Framer, stream uint32) error {
	return f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
}

// goesAway names no stream as looked at, and ends the connection.
func goesAway(f *http2.Framer, _ uint32) error {
	return errors.Join(f.WriteGoAway(0, http2.ErrCodeNo, nil), io.EOF)
}

func hangsUp(*http2.Framer, uint32) error { return io.EOF }

func resets(f *http2.Framer, stream uint32) error {
	return f.WriteRSTStream(stream, http2.ErrCodeInternal)
}

func speaksNonsense(f *http2.Framer, stream uint32) error {
	return f.WriteData(stream, true, []byte("?"))
}

// Calls that a server never looked at go to another endpoint, and say so there.
func TestUnprocessedCallsGoElsewhere(t *testing.T) {
	for name, answer := range map[string]func(*http2.Framer, uint32) error{"refused": refusesStreams, "going away": goesAway} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, nil)
			bad, tried := rawServer(t, answer)
			r := start(t, routeTo(`, rename: {model: fraud_xgb}`, s.addr, bad))
			for range 20 {
				before := tried.Load()
				a := r.call(modelInfer, infer("fraud", ""))
				if a.code != codes.OK {
					t.Fatalf("got %v %q", a.code, a.message)
				}
				attempts, previous := "1", ""
				if tried.Load() > before {
					attempts, previous = "2", "1"
				}
				if got := a.one("sluice-attempts"); got != attempts {
					t.Errorf("sluice-attempts: got %q, want %q", got, attempts)
				}
				if got := s.last(t).one("grpc-previous-rpc-attempts"); got != previous {
					t.Errorf("grpc-previous-rpc-attempts: got %q, want %q", got, previous)
				}
				if !strings.Contains(string(s.last(t).body), "fraud_xgb") {
					t.Errorf("the second server got %x, want it renamed", s.last(t).body)
				}
			}
			if n := tried.Load(); n == 0 || n > 5 {
				t.Errorf("the endpoint that takes no calls was tried %d times of 20, want few", n)
			}
		})
	}
}

// On the only endpoint, a call that was never looked at is repeated once, for free.
func TestRepeatsAreLimited(t *testing.T) {
	bad, tried := rawServer(t, refusesStreams)
	r := start(t, routeTo("", bad))
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.Unavailable || a.info().GetReason() != "UPSTREAM_REFUSED" || a.one("sluice-attempts") != "2" || !a.retryInfo() {
		t.Errorf("got %v %q, %v, fields %v", a.code, a.message, a.details, a.header)
	}
	if n := tried.Load(); n != 2 {
		t.Errorf("the server was called %d times, want 2", n)
	}
	if n := r.taken(); n != 0 {
		t.Errorf("%d second attempts were paid for: this one is free", n)
	}
}

// What a server may have worked on is not repeated.
func TestFailedAttemptsAreNotRepeated(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*http2.Framer, uint32) error
		code   codes.Code
		reason string
		retry  bool
	}{
		{"lost", hangsUp, codes.Unavailable, "UPSTREAM_LOST", true},
		{"reset", resets, codes.Internal, "UPSTREAM_RESET", false},
		{"invalid", speaksNonsense, codes.Internal, "UPSTREAM_ANSWER_INVALID", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, nil)
			bad, tried := rawServer(t, c.answer)
			r := start(t, routeTo("", bad))
			a := r.call(modelInfer, infer("fraud", ""))
			if a.code != c.code || a.info().GetReason() != c.reason || a.retryInfo() != c.retry {
				t.Errorf("got %v %q, %v", a.code, a.message, a.details)
			}
			if a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" || a.info().GetMetadata()["sluice-version"] != "v7" {
				t.Errorf("got fields %v, %v", a.header, a.details)
			}
			if tried.Load() != 1 || len(s.calls()) != 0 {
				t.Errorf("sent %d times, and %d times elsewhere; want once", tried.Load(), len(s.calls()))
			}
		})
	}
}

// closedPort returns an address where nobody listens, nor anybody else will: it is held
// until the test ends, by a socket that is bound and refuses connections.
func closedPort(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	unix.CloseOnExec(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
}

// An endpoint that is not there costs no attempt, nor any call.
func TestCallsPassEndpointsThatAreNotThere(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo("", closedPort(t), closedPort(t), s.addr, closedPort(t)))
	for range 50 {
		if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK || a.one("sluice-attempts") != "1" {
			t.Fatalf("got %v %q after %s attempts", a.code, a.message, a.one("sluice-attempts"))
		}
	}
}

func TestNoEndpointIsThere(t *testing.T) {
	gone := closedPort(t)
	r := start(t, routeTo("", gone, closedPort(t)))
	a := r.call(modelInfer, infer("fraud", ""))
	if a.code != codes.Unavailable || a.info().GetReason() != "UPSTREAM_UNREACHABLE" || !a.retryInfo() {
		t.Errorf("got %v %q, %v", a.code, a.message, a.details)
	}
	if a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "0" {
		t.Errorf("got fields %v", a.header)
	}
	if !strings.Contains(a.message, "127.0.0.1:") || !strings.Contains(a.message, "refused") {
		t.Errorf("got %q, want the address and the cause", a.message)
	}
}

// A status of the gateway's ends a call that has been sent already, too: the server
// is told before it has the second message whole.
func TestNamesThatDifferLateEndTheCall(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	s := streams(t, func(_ http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		if _, err := io.ReadFull(r.Body, first); err != nil {
			t.Errorf("the first message: %v", err)
		}
		close(begun)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			close(gone)
		}
	})
	r := start(t, routeTo("", s))
	body, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, infer("fraud", ""))
		<-begun
		_, _ = io.Copy(w, infer("froud", ""))
	}()
	a := r.call(modelStreamInfer, body)
	_ = w.Close()
	if a.code != codes.InvalidArgument || a.info().GetReason() != "MODEL_CONFLICT" || a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" {
		t.Errorf("got %v %q, %v, fields %v", a.code, a.message, a.details, a.header)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the server still waits for the rest of the call")
	}
}
