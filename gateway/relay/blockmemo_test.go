package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// heard is a side that keeps what the last header block said, and spoils the list, as
// whoever strips fields from trailers does.
type heard struct {
	downstreamSide
	said decoded
}

func (h *heard) headers(_ *worker, _ *conn, _ uint32, _ bool, f *fieldList) error {
	h.said = f.decoded
	h.said.fields = slices.Clone(f.fields)
	for i := range f.fields {
		f.fields[i] = hpack.HeaderField{Name: "spoilt"}
	}
	return nil
}

// TestRememberedBlocksSayWhatTheDecoderSays sends random blocks, most of which repeat, with fields
// that change the compression table in between and changes of its size, to a connection and to a
// decoder that remembers nothing.
func TestRememberedBlocksSayWhatTheDecoderSays(t *testing.T) {
	c := newTestConn()
	h := new(heard)
	c.side = h
	w := &worker{relay: c.relay}
	var want []hpack.HeaderField
	plain := hpack.NewDecoder(4096, func(f hpack.HeaderField) { want = append(want, f) })
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	request := typicalRequest()
	blocks := [][]hpack.HeaderField{
		request, request[:6], {{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}},
		{{Name: "grpc-status", Value: "0"}}, {{Name: "grpc-status", Value: "0"}, {Name: "grpc-status", Value: "0"}},
		{{Name: "x-a", Value: "1"}, {Name: ":path", Value: "/misplaced"}}, {{Name: "x-b", Value: " padded"}},
	}
	rnd := rand.New(rand.NewPCG(9, 10))
	recalled := 0
	for i := range 20000 {
		buf.Reset()
		want = want[:0]
		if rnd.IntN(200) == 0 {
			enc.SetMaxDynamicTableSize(uint32(rnd.IntN(4096)))
		}
		fields := blocks[rnd.IntN(len(blocks))]
		switch rnd.IntN(40) {
		case 0:
			fields = append(slices.Clip(fields), hpack.HeaderField{Name: fmt.Sprintf("x-%d", rnd.IntN(300)), Value: fmt.Sprint(rnd.Int())})
		case 1:
			fields = append(slices.Clip(fields), hpack.HeaderField{Name: "x-key", Value: fmt.Sprint(rnd.Int()), Sensitive: true})
		}
		for _, f := range fields {
			_ = enc.WriteField(f)
		}
		known := slices.ContainsFunc(c.blocks.known[:], func(k knownBlock) bool { return k.again && bytes.Equal(k.block, buf.Bytes()) })
		if known {
			recalled++
		}
		if _, err := plain.Write(buf.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := plain.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.decode(w, buf.Bytes(), false); err != nil {
			t.Fatal(err)
		}
		fresh := &fieldList{maxBytes: c.fields.maxBytes, maxFields: c.fields.maxFields}
		for _, f := range want {
			fresh.add(f)
		}
		if got := h.said; !slices.Equal(got.fields, fresh.fields) || got.problem != fresh.problem || got.size != fresh.size ||
			got.pseudo != fresh.pseudo || got.tooBig != fresh.tooBig {
			t.Fatalf("block %d, %x, recalled %v:\n%+v, want\n%+v", i, buf.Bytes(), known, got, fresh.decoded)
		}
	}
	if recalled < 1000 {
		t.Errorf("%d of 20,000 blocks were recalled: this shows nothing", recalled)
	}
	t.Logf("%d blocks were recalled", recalled)
}

// Bytes with their first bit set are not always indexes: they may belong to one before.
func TestOnlyIndexes(t *testing.T) {
	for _, c := range []struct {
		block []byte
		want  bool
	}{
		{nil, true}, {[]byte{0x82, 0xbe}, true}, {[]byte{0xff, 0x00}, true}, {[]byte{0xff, 0x80, 0x01, 0x82}, true},
		{[]byte{0x82, 0x40, 0x81, 0x81, 0x81, 0x81}, false}, {[]byte{0x3f, 0xe1, 0x1f}, false}, {[]byte{0x10}, false},
		{[]byte{0xff, 0x80, 0x01, 0x40, 0x82}, false},
	} {
		if got := onlyIndexes(c.block); got != c.want {
			t.Errorf("%x: %v, want %v", c.block, got, c.want)
		}
	}
}
