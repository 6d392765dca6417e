package relay

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// TestKeptRequestsKeepNobodyFromTheFirstAttempt fills the room for second chances
// with calls to a server that hangs: other calls go on, without one.
func TestKeptRequestsKeepNobodyFromTheFirstAttempt(t *testing.T) {
	r, addr := startRelayWith(t, Config{ReplayTotal: 1 << 20}, startInterop(t), &passPolicy{look: true})
	tc := testpb.NewTestServiceClient(dial(t, addr))
	// An open stream that sends and gets no answer keeps what it has sent.
	for range 20 {
		stream, err := tc.StreamingInputCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 10<<10)}}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the room is used up", func() bool { return r.Stats().ReplayBytes >= 1<<20 })
	for i := range 200 {
		_, err := tc.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 20<<10)}})
		if status.Code(err) != codes.OK {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	time.Sleep(10 * time.Millisecond)
	if n := r.Stats().ReplayBytes; n > 2<<20 {
		t.Errorf("%d bytes are kept, want at most twice the limit", n)
	}
}
