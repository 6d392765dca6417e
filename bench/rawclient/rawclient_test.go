package rawclient

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/bench/payload"
	"sluice/bench/rawcodec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers with one message of a megabyte, or refuses the method /a/Refused.
func server(t *testing.T, arrived chan<- string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawcodec.Codec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		if err := stream.RecvMsg(&rawcodec.Message{}); err != nil {
			return err
		}
		arrived <- method
		if method == "/a/Refused" {
			return status.Error(codes.NotFound, "no such model")
		}
		return stream.SendMsg(&rawcodec.Message{Body: make([]byte, 1<<20)})
	}))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// dial connects with ten seconds for everything.
func dial(t *testing.T, address string) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCallsAreAwaitedOneAfterTheOther(t *testing.T) {
	c := dial(t, server(t, make(chan string, 3)))
	request, err := payload.Request(payload.Model, MaxBody)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		stream, err := c.Open("/a/Method", request)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Await(stream); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCallsGoOverTLS(t *testing.T) {
	// httptest has a certificate and a pool that trusts it.
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "grpc-status, grpc-message")
		w.Header().Set("grpc-status", "0")
		if r.TLS == nil || r.ProtoMajor != 2 {
			w.Header().Set("grpc-status", "13")
		}
	}))
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	trust := secure.Client().Transport.(*http.Transport).TLSClientConfig
	c, err := Dial(t.Context(), secure.Listener.Addr().String(), trust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Open("/a/Method", make([]byte, 5))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Await(stream); err != nil {
		t.Errorf("Await = %v", err)
	}
	if c, err := Dial(t.Context(), secure.Listener.Addr().String(), &tls.Config{}); err == nil {
		c.Close()
		t.Error("a certificate that nobody trusts was accepted")
	}
}

func TestAwaitTellsARefusal(t *testing.T) {
	c := dial(t, server(t, make(chan string, 1)))
	stream, err := c.Open("/a/Refused", make([]byte, 5))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Await(stream); err == nil || !strings.Contains(err.Error(), "no such model") {
		t.Errorf("Await = %v, want the server's refusal", err)
	}
}

func TestCallsArriveThoughNothingIsRead(t *testing.T) {
	const calls = 50
	arrived := make(chan string, calls)
	c := dial(t, server(t, arrived))
	for range calls {
		if _, err := c.Open("/a/Method", make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range calls {
		select {
		case <-arrived:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d calls arrived", i, calls)
		}
	}
}

func TestOpenRefusesABodyThatNeedsCredit(t *testing.T) {
	c := dial(t, server(t, nil))
	if _, err := c.Open("/a/Method", make([]byte, MaxBody+1)); err == nil {
		t.Error("Open succeeded, want an error")
	}
}
