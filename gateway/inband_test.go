package gateway

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
)

var (
	broken  = &pb.ModelStreamInferResponse{ErrorMessage: "out of memory"}
	healthy = &pb.ModelStreamInferResponse{InferResponse: &pb.ModelInferResponse{
		// What looks like an error inside of a tensor is none.
		ModelName: "fraud", RawOutputContents: [][]byte{bytes.Repeat([]byte{0x0a, 1, 'x'}, 3000)},
	}}
)

// scan feeds an answer in pieces of the given sizes, in turn, and says how many of its
// messages failed and how many were good.
func scan(answer []byte, sizes ...int) (failed, good int) {
	var s errorScanner
	for i := 0; len(answer) > 0; i++ {
		p := answer[:min(len(answer), sizes[i%len(sizes)])]
		answer = answer[len(p):]
		for len(p) > 0 {
			n, f := s.feed(p)
			p = p[n:]
			switch f {
			case messageFailed:
				failed++
			case messageGood:
				good++
			case messageUnknown:
			}
		}
	}
	return failed, good
}

func framed(t testing.TB, all ...proto.Message) []byte {
	t.Helper()
	b, err := io.ReadAll(message(all...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inGroup makes fields those of a group that nobody knows.
func inGroup(fields []byte) []byte {
	b := protowire.AppendTag(nil, 20, protowire.StartGroupType)
	return protowire.AppendTag(append(b, fields...), 20, protowire.EndGroupType)
}

// However an answer is cut, the same is found in it.
func TestErrorsInStreamsAreFoundInPieces(t *testing.T) {
	t.Parallel()
	late := framed(t, healthy)
	late = append(late[:0:0], frame(0, append(late[5:], framed(t, broken)[5:]...))...) // the error behind the tensors
	unknown := protowire.AppendTag(nil, 9, protowire.Fixed32Type)
	unknown = protowire.AppendFixed32(unknown, 1)
	unknown = protowire.AppendTag(unknown, 10, protowire.Fixed64Type)
	unknown = protowire.AppendFixed64(unknown, 1)
	unknown = protowire.AppendTag(unknown, 11, protowire.VarintType)
	unknown = protowire.AppendVarint(unknown, 1<<60)
	empty := protowire.AppendTag(nil, 1, protowire.BytesType)
	empty = protowire.AppendVarint(empty, 0)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name         string
		answer       []byte
		failed, good int
	}{
		{"good", framed(t, healthy, healthy), 0, 2},
		{"error", framed(t, broken), 1, 0},
		{"good, error, good", framed(t, healthy, broken, healthy), 1, 2},
		{"error behind tensors", late, 1, 0},
		{"fields from the future", frame(0, append(unknown, framed(t, broken)[5:]...)), 1, 0},
		{"empty message", frame(0, nil), 0, 1},
		{"empty error", frame(0, empty), 0, 1},
		{"compressed", append(frame(1, framed(t, broken)[5:]), framed(t, healthy)...), 0, 1},
		{"no protobuf", append(frame(0, bytes.Repeat([]byte{0xff}, 40)), framed(t, broken)...), 1, 0},
		{"cut off in a field", frame(0, framed(t, healthy)[5:1000]), 0, 0},
		{"cut off in a number", frame(0, []byte{0x08, 0x80}), 0, 0},
		{"group without an end", frame(0, protowire.AppendTag(nil, 20, protowire.StartGroupType)), 0, 0},
		{"longer than the message", frame(0, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), 5)), 0, 0},
		{"in a group", frame(0, inGroup(framed(t, broken)[5:])), 0, 1},
		{"behind a group", frame(0, append(inGroup(nil), framed(t, broken)[5:]...)), 1, 0},
	} {
		for range 50 {
			sizes := []int{1 + rnd.IntN(9), 1 + rnd.IntN(3000), 1 + rnd.IntN(5)}
			if failed, good := scan(c.answer, sizes...); failed != c.failed || good != c.good {
				t.Errorf("%s, in pieces of %v: %d failed and %d good, want %d and %d", c.name, sizes, failed, good, c.failed, c.good)
			}
		}
	}
}

// triton is a route to a server of a kind whose breaker opens at the second failure.
func triton(kind, addr string) string {
	return routeTo(", server: "+kind, addr) + "    breaker: {consecutive: 2, open_for: 1h, max_open_for: 1h}\n"
}

// saying answers a stream with messages and then waits for the client's end.
func saying(all ...proto.Message) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, m := range all {
			_, _ = io.Copy(w, message(m))
			w.(http.Flusher).Flush()
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}
}

// An error in a stream of Triton's is a failure of its version, as soon as it is read and
// however the stream ends; the client gets it as it came.
func TestErrorsInStreamsCountAgainstTheirVersion(t *testing.T) {
	t.Parallel()
	r := start(t, triton("triton", streams(t, saying(healthy, broken, broken))))
	var open [2]*io.PipeWriter
	var clients sync.WaitGroup
	end := sync.OnceFunc(func() {
		for _, w := range open {
			_ = w.Close()
		}
		clients.Wait()
	})
	defer end()
	for i := range open {
		body, w := io.Pipe()
		open[i] = w
		clients.Go(func() {
			if a, err := r.try(t.Context(), modelStreamInfer, io.MultiReader(infer("fraud", ""), body)); err != nil || a.code != codes.OK ||
				!bytes.Equal(a.body, framed(t, healthy, broken, broken)) {
				t.Errorf("got %v, %v", a, err)
			}
		})
	}
	// Both streams are still open. Each counts once, whatever it repeats.
	guard, _ := r.director.guardOf("fraud v7")
	r.until(t, "the version is cut off", func() bool { return !guard.Breaker().Ready(time.Now()) })
	if s := guard.Status(time.Now()); s.Counts.Failures != 2 {
		t.Errorf("two streams have failed, and counted are %d", s.Counts.Failures)
	}
	if a := r.call(modelStreamInfer, infer("fraud", "")); a.info().GetReason() != "BREAKER_OPEN" {
		t.Errorf("got %v %q", a.code, a.message)
	}
	end()
	want(t, r.metrics(t), "sluice_attempts_total", map[string]float64{
		`{kind="primary",model="fraud",outcome="failure",reason="OK",version="v7"}`: 2,
	})
}

// Elsewhere the same bytes mean nothing: other servers, other methods, good messages.
func TestOnlyTritonsStreamsHoldErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, kind, path string
		answer           []proto.Message
	}{
		{"another server", "generic", modelStreamInfer, []proto.Message{broken}},
		{"another method", "triton", modelInfer, []proto.Message{broken}},
		{"good answers", "triton", modelStreamInfer, []proto.Message{healthy, healthy}},
	} {
		r := start(t, triton(c.kind, streams(t, saying(c.answer...))))
		for range 4 {
			if a := r.call(c.path, infer("fraud", "")); a.code != codes.OK {
				t.Errorf("%s: got %v %q", c.name, a.code, a.message)
			}
		}
	}
}

// A stream that probes a version decides with its first message, not with the header
// fields that come before whatever it says.
func TestFirstMessageOfAStreamEndsTheProbe(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	ill.Store(true)
	r := start(t, strings.ReplaceAll(triton("triton", streams(t, func(w http.ResponseWriter, r *http.Request) {
		m := healthy
		if ill.Load() {
			m = broken
		}
		saying(m)(w, r)
	})), "1h", "200ms"))
	guard, _ := r.director.guardOf("fraud v7")
	openings := func() int { return guard.Status(time.Now()).Openings }
	for range 2 {
		r.call(modelStreamInfer, infer("fraud", ""))
	}
	r.until(t, "a probe has failed", func() bool {
		r.call(modelStreamInfer, infer("fraud", ""))
		return openings() > 1
	})
	ill.Store(false)
	body, w := io.Pipe()
	done := make(chan struct{})
	defer func() {
		_ = w.Close()
		<-done
	}()
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			if a, err := r.try(t.Context(), modelStreamInfer, io.MultiReader(infer("fraud", ""), body)); err == nil && a.code == codes.OK {
				return
			}
			time.Sleep(20 * ms)
		}
	}()
	r.until(t, "an open stream has brought the version back", func() bool { return guard.Status(time.Now()).State.String() == "closed" })
}
