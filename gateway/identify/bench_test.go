package identify_test

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice/gateway/identify"
	"sluice/proto/inference"
)

const inferPath = "/inference.GRPCInferenceService/ModelInfer"

// inferRequest is one framed ModelInferRequest with a raw tensor of size bytes.
func inferRequest(tb testing.TB, size int) []byte {
	tb.Helper()
	return frame(marshal(tb, &inference.ModelInferRequest{
		ModelName: "fraud",
		Id:        "request-1",
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{1, int64(size / 4)}},
		},
		RawInputContents: [][]byte{make([]byte, size)},
	}))
}

func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func BenchmarkLookup(b *testing.B) {
	for _, path := range []string{inferPath, "/grpc.testing.TestService/UnaryCall"} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := identify.Lookup(path); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkIdentify is what a call costs from its path to its model's name, the
// rest of its messages included.
func BenchmarkIdentify(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		request := inferRequest(b, size)
		for _, piece := range []int{len(request), 16 << 10, 1 << 10} {
			b.Run(fmt.Sprintf("body=%d/piece=%d", size, piece), func(b *testing.B) {
				var s identify.Scanner
				b.SetBytes(int64(len(request)))
				b.ReportAllocs()
				for b.Loop() {
					m, _ := identify.Lookup(inferPath)
					s.Reset(m, identify.Options{})
					for at := 0; at < len(request); at += piece {
						end := min(at+piece, len(request))
						if _, err := s.Feed(request[at:end], end == len(request)); err != nil {
							b.Fatal(err)
						}
					}
					if n, ok := s.Known(); !ok || !bytes.Equal(n.Model, []byte("fraud")) {
						b.Fatalf("Known() = %q, %v", n.Model, ok)
					}
				}
			})
		}
	}
}

// BenchmarkManySmallFields is the worst a caller can do to the scanner: nothing
// to skip, a field every two bytes.
func BenchmarkManySmallFields(b *testing.B) {
	request := frame(append([]byte("\x0a\x05fraud"), bytes.Repeat([]byte{0x18, 1}, 32<<10)...))
	m, _ := identify.Lookup(inferPath)
	var s identify.Scanner
	b.SetBytes(int64(len(request)))
	b.ReportAllocs()
	for b.Loop() {
		s.Reset(m, identify.Options{})
		if _, err := s.Feed(request, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGzip(b *testing.B) {
	request := inferRequest(b, 4<<10)
	packed := pack(b, "gzip", request[5:])
	m, _ := identify.Lookup(inferPath)
	var s identify.Scanner
	b.SetBytes(int64(len(request)))
	b.ReportAllocs()
	for b.Loop() {
		s.Reset(m, identify.Options{Encoding: "gzip"})
		if _, err := s.Feed(packed, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	rename, err := identify.NewRewrite(identify.ScopeModelName, identify.Rename{Model: "fraud_xgb", Version: "7"})
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			request := inferRequest(b, size)
			out := make([]byte, 0, 2*len(request))
			var w identify.Rewriter
			b.SetBytes(int64(len(request)))
			b.ReportAllocs()
			for b.Loop() {
				w.Reset(rename)
				out = w.Append(out[:0], request)
			}
		})
	}
}
