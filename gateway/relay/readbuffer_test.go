package relay

import (
	"bytes"
	"slices"
	"testing"
)

// A connection that is sent more than it reads at once reads longer pieces, until there is
// nothing to read: while it waits it holds a short buffer at most, and nothing is lost.
func TestLongReads(t *testing.T) {
	near, far := socketPair(t)
	transport, err := newTransport(near)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{}, &recorder{})
	defer r.Close()
	c := newConn(r, transport, nil, "far")
	sent := make([]byte, 4*longReadChunk)
	for i := range sent {
		sent[i] = byte(i / 251)
	}
	go func() { _, _ = far.Write(sent) }()

	var got []byte
	longest := 0
	for len(got) < len(sent)-100 {
		if err := c.t.read(c); err != nil {
			t.Fatal(err)
		}
		// As frames are handled: all but the beginning of one that is not complete.
		n := c.rend - c.rpos
		left := min(n, 99)
		longest = max(longest, len(c.rbuf.b))
		got = append(got, c.rbuf.b[c.rpos:c.rend-left]...)
		c.rpos, c.rend = 0, copy(c.rbuf.b, c.rbuf.b[c.rend-left:c.rend])
	}
	if longest != longReadChunk {
		t.Errorf("the longest buffer had %d bytes, want %d", longest, longReadChunk)
	}
	read := make(chan error, 1)
	go func() { read <- c.t.read(c) }()
	waitFor(t, "the long buffer to be given back", func() bool { return r.longReads.out.Load() == 0 })
	if _, err := far.Write([]byte("end")); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if len(c.rbuf.b) != readChunk {
		t.Errorf("a few bytes are read into %d, want %d", len(c.rbuf.b), readChunk)
	}
	got = append(got, c.rbuf.b[c.rpos:c.rend]...)
	if !bytes.Equal(got, slices.Concat(sent, []byte("end"))) {
		t.Errorf("%d bytes were read, want %d and what came then, and the same", len(got), len(sent))
	}
}

// Long buffers are bounded over all connections; the others do with short ones.
func TestLongReadsAreBounded(t *testing.T) {
	var l longReads
	var held []*byteBuf
	for range maxLongReads {
		b := l.get()
		if b == nil || len(b.b) != longReadChunk {
			t.Fatalf("got %v after %d", b, len(held))
		}
		held = append(held, b)
	}
	if l.get() != nil {
		t.Errorf("more than %d are out", maxLongReads)
	}
	for _, b := range held {
		l.put(b)
	}
	if l.get() == nil {
		t.Error("nothing is lent although all were given back")
	}
}
