package telemetry

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"testing"
)

// Pieces that are compressed by themselves are, in any order and also for the second time, one stream of gzip, whose
// sums are right: the reader checks them.
func FuzzPacker(f *testing.F) {
	f.Add([]byte("a"), uint8(1), uint8(0))
	f.Add([]byte("model=\"m1\" 1\nmodel=\"m2\" 1\nmodel=\"m3\" 17\n"), uint8(13), uint8(2))
	f.Add(bytes.Repeat([]byte("0123456789"), 10_000), uint8(255), uint8(1))
	f.Add([]byte{}, uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, length, first uint8) {
		var got bytes.Buffer
		out := bufio.NewWriter(&got)
		p := newPacker(out)
		var pieces []*packed
		for i := range 3 {
			got.Reset()
			if err := p.begin(); err != nil {
				t.Fatal(err)
			}
			var want []byte
			step := int(length)*(i+1) + 1 // other pieces every time
			for n := 0; n*step < len(text) && n < 100; n++ {
				piece := text[n*step : min((n+1)*step, len(text))]
				want = append(want, piece...)
				var err error
				switch (n + int(first)) % 3 {
				case 0:
					err = p.keep(piece)
				case 1:
					err = p.write(piece)
				default:
					var k *packed
					if k, err = p.pack(piece); err == nil {
						pieces = append(pieces, k)
						err = p.add(k)
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range pieces { // those of the streams before are still good
				z, err := gzip.NewReader(bytes.NewReader(streamOf(t, k)))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(z)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, text...)
				if err := p.add(k); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.end(); err != nil {
				t.Fatal(err)
			}
			if err := out.Flush(); err != nil {
				t.Fatal(err)
			}
			z, err := gzip.NewReader(&got)
			if err != nil {
				t.Fatal(err)
			}
			z.Multistream(false) // some readers know one stream only
			text, err := io.ReadAll(z)
			if err != nil || !bytes.Equal(text, want) || got.Len() != 0 {
				t.Fatalf("%d bytes, %v, %d left; want %d", len(text), err, got.Len(), len(want))
			}
		}
	})
}

// streamOf is a stream of a single piece.
func streamOf(t *testing.T, k *packed) []byte {
	t.Helper()
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	p := newPacker(out)
	for _, step := range []func() error{p.begin, func() error { return p.add(k) }, p.end, out.Flush} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// What is kept is what the latest whole answer had; an answer that breaks off neither loses it nor adds to it for good.
func TestPackerKeepsTheLatestAnswer(t *testing.T) {
	out := bufio.NewWriter(io.Discard)
	p := newPacker(out)
	answer := func(from, to int, whole bool) {
		if err := p.begin(); err != nil {
			t.Fatal(err)
		}
		for i := from; i < to; i++ {
			if err := p.keep(fmt.Appendf(nil, "piece %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if whole {
			if err := p.end(); err != nil {
				t.Fatal(err)
			}
		}
	}
	answer(0, 100, true)
	before := make(map[textKey]*packed)
	for key, k := range p.kept {
		before[key] = k
	}
	if len(before) != 100 {
		t.Fatalf("%d pieces are kept, want 100", len(before))
	}
	answer(1000, 1050, false)
	answer(50, 110, true)
	same := 0
	for key, k := range p.kept {
		if before[key] == k {
			same++
		}
	}
	if len(p.kept) != 60 || len(p.used) != 0 || same != 50 {
		t.Errorf("%d pieces are kept, %d for nothing; %d were not compressed again; want 60, 0 and 50", len(p.kept), len(p.used), same)
	}
}
