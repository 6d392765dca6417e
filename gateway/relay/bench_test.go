package relay

import (
	"bytes"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// tracedRequest is what grpc-go sends for a unary inference call behind a tracing
// proxy.
var tracedRequest = []hpack.HeaderField{
	{Name: ":method", Value: "POST"},
	{Name: ":scheme", Value: "http"},
	{Name: ":path", Value: "/inference.GRPCInferenceService/ModelInfer"},
	{Name: ":authority", Value: "models.example:8001"},
	{Name: "content-type", Value: "application/grpc"},
	{Name: "user-agent", Value: "grpc-go/1.80.0"},
	{Name: "te", Value: "trailers"},
	{Name: "grpc-timeout", Value: "14998711u"},
	{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	{Name: "x-request-id", Value: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
}

// TestCallFitsItsSizeClass keeps a call, of which every request makes one, from growing into the
// next size that the runtime allocates unnoticed. Sizes are those of 64-bit machines.
func TestCallFitsItsSizeClass(t *testing.T) {
	const class = 1024
	if size := unsafe.Sizeof(Call{}); size > class {
		t.Errorf("a call takes %d bytes, want at most %d: 1,152 are allocated instead, and cleared", size, class)
	}
}

func BenchmarkFrameHeader(b *testing.B) {
	p := appendFrameHeader(nil, 4096, http2.FrameData, http2.FlagDataEndStream, 12345)
	b.ReportAllocs()
	for b.Loop() {
		if h := parseFrameHeader(p); h.length != 4096 {
			b.Fatal(h)
		}
	}
}

// BenchmarkRequestHeaders decodes a request's block and encodes it for the other
// side, both tables warm.
func BenchmarkRequestHeaders(b *testing.B) {
	in, _ := quietConn(b)
	out, w := quietConn(b)
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	block := func() []byte {
		buf.Reset()
		for _, f := range tracedRequest {
			f.Sensitive = volatile(f.Name)
			_ = enc.WriteField(f)
		}
		return buf.Bytes()
	}
	decode := func(p []byte) {
		in.fields.reset()
		if _, err := in.dec.Write(p); err != nil {
			b.Fatal(err)
		}
		if err := in.dec.Close(); err != nil {
			b.Fatal(err)
		}
	}
	decode(block())
	p := bytes.Clone(block()) // everything that repeats is in the table now
	b.ReportAllocs()
	for b.Loop() {
		decode(p)
		if _, problem := parseRequest(&in.fields); problem != "" {
			b.Fatal(problem)
		}
		out.beginBlock()
		for i := range in.fields.fields {
			out.encode(in.fields.fields[i])
		}
		out.endBlock(w, 1, false)
		out.out.b = out.out.b[:0]
	}
	out.dirty, w.touched = false, nil
}

func BenchmarkWriteData(b *testing.B) {
	for _, n := range []int{400, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			c, w := quietConn(b)
			s := quietStream(c, 1, maxWindow)
			p := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				c.sendWin, s.sendWin = maxWindow, maxWindow
				if got := c.writeData(w, s, p, false, nil); got != n {
					b.Fatal(got)
				}
				c.out.b = c.out.b[:0]
				c.tail.stream = 0
			}
			c.dirty, w.touched = false, nil
		})
	}
}

func BenchmarkChunks(b *testing.B) {
	for _, n := range []int{400, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			var q chunks
			total := &budget{limit: 1 << 40}
			p := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				q.append(p, total)
				for q.n > 0 {
					q.pop(len(q.front()), total)
				}
			}
		})
	}
}

func BenchmarkWheelArmAndCancel(b *testing.B) {
	r := New(Config{}, &recorder{over: make(map[*Call]int)})
	defer r.Close()
	c := expiring(r, time.Hour)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.wheel.arm(c, now, c.deadline)
		r.wheel.cancel(c)
	}
}
