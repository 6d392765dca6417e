package gateway

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
)

// gzipped makes a compressed message.
func gzipped(t testing.TB, m proto.Message) io.Reader {
	t.Helper()
	p, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(frame(1, b.Bytes()))
}

// A message that has to be read goes on uncompressed, however large it turns out.
func TestCompressedMessagesAreReadAndRenamed(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo(`, rename: {model: fraud_xgb}`, s.addr))
	for _, size := range []int{0, 100, 300 << 10, 3 << 20} {
		m := &pb.ModelInferRequest{ModelName: "fraud", RawInputContents: [][]byte{make([]byte, size)}}
		a := r.call(modelInfer, gzipped(t, m), "grpc-encoding", "gzip")
		if a.code != codes.OK {
			t.Errorf("%d bytes: got %v %q", size, a.code, a.message)
			continue
		}
		var got pb.ModelInferRequest
		s.last(t).message(t, 0, &got)
		if got.GetModelName() != "fraud_xgb" || len(got.GetRawInputContents()[0]) != size {
			t.Errorf("%d bytes: the server got model_name %q and %d bytes", size, got.GetModelName(), len(got.GetRawInputContents()[0]))
		}
	}
	if n := r.director.held.Load(); n != 0 {
		t.Errorf("%d bytes are held after all calls", n)
	}
}

func TestCompressedMessagesThatNeedNotBeReadPassUntouched(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo(`, rename: {model: fraud_xgb}`, s.addr))
	sent, err := io.ReadAll(gzipped(t, &pb.ModelInferRequest{ModelName: "whatever"}))
	if err != nil {
		t.Fatal(err)
	}
	a := r.call("/shop.Till/Ring", bytes.NewReader(sent), "grpc-encoding", "zstd", "sluice-model", "fraud")
	if a.code != codes.OK || !bytes.Equal(s.last(t).body, sent) {
		t.Errorf("got %v %q; the server got %x, want %x", a.code, a.message, s.last(t).body, sent)
	}
}

// Compressed messages are held back until they are complete: what all of them may
// hold together is bounded.
func TestHeldMessagesAreBounded(t *testing.T) {
	r := start(t, routeTo("", serve(t, nil).addr))
	r.director.held.Store(maxHeld)
	a := r.call(modelInfer, bytes.NewReader([]byte{1, 0, 0, 1, 0, 9}), "grpc-encoding", "gzip")
	if a.code != codes.ResourceExhausted || a.info().GetReason() != "BUFFERS_FULL" || !a.retryInfo() {
		t.Errorf("got %v %q, %v", a.code, a.message, a.details)
	}
	if got := r.director.held.Load(); got != maxHeld {
		t.Errorf("%d bytes are held after the refusal, want %d as before", got, maxHeld)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.OK {
		t.Errorf("an uncompressed call beside it: got %v %q", a.code, a.message)
	}
	r.director.held.Store(0)
	if a := r.call(modelInfer, gzipped(t, &pb.ModelInferRequest{ModelName: "fraud"}), "grpc-encoding", "gzip"); a.code != codes.OK {
		t.Errorf("once there is room: got %v %q", a.code, a.message)
	}
}

// Bytes given up with a call are counted back.
func TestHeldMessagesAreGivenBackWithTheirCall(t *testing.T) {
	r := start(t, routeTo("", serve(t, nil).addr))
	a := r.call(modelInfer, bytes.NewReader([]byte{1, 0, 0, 1, 0, 9}), "grpc-encoding", "gzip") // cut off
	if a.code != codes.InvalidArgument {
		t.Errorf("got %v %q, want INVALID_ARGUMENT", a.code, a.message)
	}
	if n := r.director.held.Load(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}
