package load

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"sluice/bench/payload"
	"sluice/bench/rawcodec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a gRPC server that counts the calls it has begun.
type server struct {
	address string
	begun   atomic.Int64
	grpc    *grpc.Server
}

// serve answers every call with what answer does.
func serve(t *testing.T, answer func(n int64, stream grpc.ServerStream) error, options ...grpc.ServerOption) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: listener.Addr().String()}
	s.grpc = grpc.NewServer(append(options, grpc.ForceServerCodecV2(rawcodec.Codec{}),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			n := s.begun.Add(1)
			var m rawcodec.Message
			if err := stream.RecvMsg(&m); err != nil {
				return err
			}
			return answer(n, stream)
		}))...)
	ended := make(chan error, 1)
	go func() { ended <- s.grpc.Serve(listener) }()
	t.Cleanup(func() {
		s.grpc.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return s
}

const answerSize = 100

// echo sends an answer of answerSize bytes.
func echo(_ int64, stream grpc.ServerStream) error {
	return stream.SendMsg(&rawcodec.Message{Body: make([]byte, answerSize)})
}

// configured is a small client of s.
func configured(t *testing.T, s *server) Config {
	t.Helper()
	request, err := payload.Request(payload.Model, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Address: s.address, Connections: 2, Streams: 4,
		Method: payload.InferMethod, Message: request, Timeout: 20 * time.Second,
	}
}

// dial connects and closes with the test.
func dial(t *testing.T, config Config) *Client {
	t.Helper()
	c, err := Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// run runs a plan that must not fail.
func run(t *testing.T, config Config, plan Plan) *Result {
	t.Helper()
	r, err := dial(t, config).Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sleep sleeps as long as a call's context lets it.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
