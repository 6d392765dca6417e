package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

func frameMessage(n int) []byte {
	b := make([]byte, messagePrefix+n)
	binary.BigEndian.PutUint32(b[1:], uint32(n))
	return b
}

// TestMessageMeterInPieces cuts bodies at random: what is too long is found
// wherever its prefix is cut, and nothing else is.
func TestMessageMeterInPieces(t *testing.T) {
	const limit = 50
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var body []byte
		want := uint32(0)
		for range rnd.IntN(6) {
			n := rnd.IntN(limit + 2) // limit + 1 is too long
			body = append(body, frameMessage(n)...)
			if n > limit && want == 0 {
				want = uint32(n)
			}
		}
		var m messageMeter
		got := uint32(0)
		for rest := body; len(rest) > 0 && got == 0; {
			k := 1 + rnd.IntN(len(rest))
			got = m.feed(rest[:k], limit)
			rest = rest[k:]
		}
		if got != want {
			t.Fatalf("found a message of %d bytes, want %d", got, want)
		}
	}
}

// TestMessagesOverTheLimitEndTheCall sends and asks for messages of the limit and
// above it.
func TestMessagesOverTheLimitEndTheCall(t *testing.T) {
	r, addr := startRelay(t, Config{MaxMessage: 100 << 10}, startInterop(t))
	tc := testpb.NewTestServiceClient(dial(t, addr))
	for _, c := range []struct {
		name        string
		ask, answer int
		want        codes.Code
	}{
		{"within", 90 << 10, 90 << 10, codes.OK},
		{"request above", 110 << 10, 10, codes.ResourceExhausted},
		{"answer above", 10, 110 << 10, codes.ResourceExhausted},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tc.UnaryCall(t.Context(), &testpb.SimpleRequest{
				ResponseSize: int32(c.answer), Payload: &testpb.Payload{Body: make([]byte, c.ask)},
			}, grpc.MaxCallRecvMsgSize(1<<20))
			if status.Code(err) != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	waitFor(t, "no calls", func() bool { return r.Calls() == 0 })
}

func BenchmarkMessageMeter(b *testing.B) {
	body := frameMessage(4096)
	b.ReportAllocs()
	for b.Loop() {
		var m messageMeter
		if m.feed(body, 64<<20) != 0 {
			b.Fatal("too long")
		}
	}
}
