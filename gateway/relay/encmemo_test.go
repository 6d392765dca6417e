package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// typicalRequest is what a grpc-go client sends, as strings of their own.
func typicalRequest() []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: "/inference.GRPCInferenceService/ModelInfer"},
		{Name: ":authority", Value: "127.0.0.1:8001"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "grpc-go/1.85.0"},
		{Name: "te", Value: "trailers"},
	}
}

func newTestConn() *conn {
	r := &Relay{cfg: Defaults()}
	return newConn(r, &pipeTransport{}, &downstreamSide{}, "test")
}

// TestEncodeMemoStaysInStep encodes random fields, some that repeat, some new
// with table evictions, some never indexed, with table size changes in between, and
// decodes them: what arrives must be what was sent.
func TestEncodeMemoStaysInStep(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	c := newTestConn()
	var got []hpack.HeaderField
	dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f) })
	steady := typicalRequest()
	for i := range 20000 {
		c.beginBlock()
		var want []hpack.HeaderField
		for range 1 + rnd.IntN(8) {
			f := steady[rnd.IntN(len(steady))]
			switch rnd.IntN(20) {
			case 0:
				f = hpack.HeaderField{Name: fmt.Sprintf("x-%d", rnd.IntN(300)), Value: fmt.Sprint(rnd.Int())}
			case 1:
				f = hpack.HeaderField{Name: "x-request-id", Value: fmt.Sprint(rnd.Int()), Sensitive: true}
			}
			want = append(want, f)
			c.encode(f)
		}
		if rnd.IntN(50) == 0 {
			v := uint32(rnd.IntN(5000))
			c.setTableSize(v)
			dec.SetAllowedMaxDynamicTableSize(4096)
		}
		got = got[:0]
		if _, err := dec.Write(c.encBuf.b); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if err := dec.Close(); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if len(got) != len(want) {
			t.Fatalf("block %d: %d fields arrived, want %d", i, len(got), len(want))
		}
		for k := range got {
			if got[k].Name != want[k].Name || got[k].Value != want[k].Value {
				t.Fatalf("block %d field %d: got %v, want %v", i, k, got[k], want[k])
			}
		}
	}
}

func BenchmarkEncodeRequest(b *testing.B) {
	for _, memo := range []bool{false, true} {
		b.Run(fmt.Sprintf("memo=%v", memo), func(b *testing.B) {
			c := newTestConn()
			var plain bytes.Buffer
			enc := hpack.NewEncoder(&plain)
			fields := typicalRequest()
			b.ReportAllocs()
			for b.Loop() {
				if memo {
					c.beginBlock()
					for i := range fields {
						c.encode(fields[i])
					}
					continue
				}
				plain.Reset()
				for i := range fields {
					_ = enc.WriteField(fields[i])
				}
			}
		})
	}
}
