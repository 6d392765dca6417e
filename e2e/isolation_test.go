package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluice/gateway"
	pb "sluice/proto/inference"
	"sluice/sample"
)

// startBulk runs grpc-go's test service, whose answers are as long as one likes.
func startBulk(t testing.TB) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	testpb.RegisterTestServiceServer(server, interop.NewTestServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("test service: %v", err)
		}
	})
	return lis.Addr().String()
}

// flood asks for so many messages of 64 KiB.
func flood(messages int) *testpb.StreamingOutputCallRequest {
	req := &testpb.StreamingOutputCallRequest{}
	for range messages {
		req.ResponseParameters = append(req.ResponseParameters, &testpb.ResponseParameters{Size: 64 << 10})
	}
	return req
}

// oneUpstreamConnection makes all calls to an endpoint share a connection.
func oneUpstreamConnection(c *gateway.Config) { c.Relay.MaxUpstreamConns = 1 }

// startEmptyCalls makes empty calls one after the other until the returned
// function is called, which tells how long the slowest took.
func startEmptyCalls(t *testing.T, cc grpc.ClientConnInterface) (stop func() (calls int, slowest time.Duration)) {
	t.Helper()
	var stopped atomic.Bool
	var calls int
	var slowest time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stopped.Load() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			started := time.Now()
			_, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{})
			cancel()
			if err != nil {
				t.Errorf("empty call: %v", err)
				return
			}
			calls++
			slowest = max(slowest, time.Since(started))
		}
	}()
	return func() (int, time.Duration) {
		stopped.Store(true)
		<-done
		return calls, slowest
	}
}

func TestHungVersionDelaysNobodyElse(t *testing.T) {
	const hung = 100
	good, bad := startBackend(t, "v1"), startBackend(t, "v2")
	bad.turn(t, sample.Behaviour{Hang: true})
	g := startGateway(t, split(good, bad, 1, 0))
	cc := dial(t, g.addr) // one connection for all of them

	// Half of the hung calls are streams that send until nobody takes any more.
	hanging, release := context.WithCancel(within(t, time.Minute, "sluice-version", "v2"))
	var calls sync.WaitGroup
	for i := range hung {
		calls.Go(func() {
			var err error
			if i%2 == 0 {
				err = infer(hanging, cc, sample.NewRequest(model, heldBack()[0].Measurements)).err
			} else {
				err = fill(hanging, cc)
			}
			if status.Code(err) != codes.Canceled {
				t.Errorf("hung call %d: got %v, want it to last until it is cancelled", i, err)
			}
		})
	}
	eventually(t, 10*time.Second, "every hung call has begun", func() error {
		if n := bad.Counters().Begun; n != hung {
			return fmt.Errorf("%d have", n)
		}
		return nil
	})
	l := startLoad(model, 4, cc)
	time.Sleep(time.Second)
	t.Logf("%d calls beside %d hung ones", l.stop(t), hung)
	if n := bad.Counters().InFlight(); n != hung {
		t.Errorf("%d calls hang, want all %d", n, hung)
	}
	release()
	calls.Wait()
}

// fill sends over a stream until the call ends.
func fill(ctx context.Context, cc grpc.ClientConnInterface) error {
	stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(ctx)
	if err != nil {
		return err
	}
	rows := make([]sample.Measurements, 1024)
	req := sample.NewRequest(model, rows...) // 16 KiB
	for stream.Send(req) == nil {
	}
	_, err = stream.Recv()
	return err
}

// Clients that leave their streams unread keep their windows closed; those that
// leave their connection unread do not even take frames. All share one connection
// to the server with one who reads.
func TestClientsThatStopReadingDelayNobodyElse(t *testing.T) {
	const unreadStreams, unreadConns = 50, 50
	g := startGateway(t, interopRoute(startBulk(t), ""), oneUpstreamConnection)

	ctx, cancel := context.WithCancel(within(t, time.Minute))
	// A window that stays: grpc-go's own grows on a fast connection until it takes all that nobody reads.
	lazy := dial(t, g.addr, grpc.WithInitialWindowSize(64<<10))
	for range unreadStreams {
		stream, err := testpb.NewTestServiceClient(lazy).StreamingOutputCall(ctx, flood(100))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil { // it has begun
			t.Fatal(err)
		}
	}
	for range unreadConns {
		leaveUnread(t, g.addr)
	}
	eventually(t, 10*time.Second, "every unread call is under way", func() error {
		if n := g.Stats().Calls; n != unreadStreams+unreadConns {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	stop := startEmptyCalls(t, dial(t, g.addr))
	stopLazy := startEmptyCalls(t, lazy) // a client may leave one stream unread and go on with others
	time.Sleep(time.Second)
	for _, s := range []func() (int, time.Duration){stop, stopLazy} {
		calls, slowest := s()
		t.Logf("%d calls beside unread ones, the slowest %v; %+v", calls, slowest.Round(time.Millisecond), g.Stats())
		if calls == 0 || slowest > patience {
			t.Errorf("%d calls, the slowest %v; want at most %v", calls, slowest, patience)
		}
	}
	if n := g.Stats().Calls; n != unreadStreams+unreadConns {
		t.Errorf("%d unread calls are left of %d", n, unreadStreams+unreadConns)
	}
	cancel()
}

// leaveUnread opens a connection, asks for a flood over all windows and never
// reads a byte. The connection lasts until the test ends.
func leaveUnread(t testing.TB, addr string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil { // the kernel shall not read for it
		t.Fatal(err)
	}
	body, err := proto.Marshal(flood(1000))
	if err != nil {
		t.Fatal(err)
	}
	if err := askUnread(nc, message(0, string(body))); err != nil {
		t.Fatal(err)
	}
}

// askUnread sends one call of StreamingOutputCall with windows as large as they get.
func askUnread(w io.Writer, body []byte) error {
	if _, err := io.WriteString(w, http2.ClientPreface); err != nil {
		return err
	}
	const most = 1<<31 - 1
	framer := http2.NewFramer(w, nil)
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: most}); err != nil {
		return err
	}
	if err := framer.WriteWindowUpdate(0, most-65535); err != nil {
		return err
	}
	block := encode(grpcFields(":path", "/grpc.testing.TestService/StreamingOutputCall"))
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}); err != nil {
		return err
	}
	return framer.WriteData(1, true, body)
}

// A slow reader gets what it reads, at its own pace, and not beyond its deadline.
func TestSlowReaderBesideFastOnes(t *testing.T) {
	g := startGateway(t, interopRoute(startBulk(t), ""), oneUpstreamConnection)
	slow := dial(t, g.addr)
	const deadline = 2 * time.Second
	started := time.Now()
	stream, err := testpb.NewTestServiceClient(slow).StreamingOutputCall(within(t, deadline), flood(1000))
	if err != nil {
		t.Fatal(err)
	}
	stop := startEmptyCalls(t, dial(t, g.addr))
	stopShared := startEmptyCalls(t, slow)
	received := 0
	for {
		if _, err = stream.Recv(); err != nil {
			break
		}
		received++
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(started)
	if status.Code(err) != codes.DeadlineExceeded || took > deadline+patience {
		t.Errorf("the slow stream ended after %v with %v, want DEADLINE_EXCEEDED after %v", took, err, deadline)
	}
	if received < 5 {
		t.Errorf("the slow reader got %d messages", received)
	}
	for _, s := range []func() (int, time.Duration){stop, stopShared} {
		if calls, slowest := s(); calls == 0 || slowest > patience {
			t.Errorf("%d calls beside it, the slowest %v; want at most %v", calls, slowest, patience)
		}
	}
}
