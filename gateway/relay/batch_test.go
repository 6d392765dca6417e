package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// lending fills a batch with random bytes, some of its own, some lent, and returns them.
func lending(rnd *rand.Rand, b *batch, q *chunks, total *budget) []byte {
	var want []byte
	for range rnd.IntN(100) {
		p := make([]byte, rnd.IntN(3*lendFrom))
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		want = append(want, p...)
		if rnd.IntN(2) == 0 {
			b.b = append(b.b, p...)
			continue
		}
		from := q.end()
		q.append(p, total)
		q.eachSince(from, b.lend)
	}
	return want
}

// A batch is written in order and whole, however little a socket takes at once, and though
// whoever lent to it has let go.
func TestBatchIsWrittenInOrderByParts(t *testing.T) {
	near, far := socketPair(t)
	_ = near.(*net.TCPConn).SetWriteBuffer(16 << 10)
	transport, err := newTransport(near)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 20 {
		b, total := newBatch(), &budget{limit: 1 << 30}
		var q chunks
		want := lending(rnd, b, &q, total)
		if b.len() != len(want) {
			t.Fatalf("batch %d: len says %d, want %d", i, b.len(), len(want))
		}
		q.free(total)
		got := make(chan []byte, 1)
		go func() {
			p := make([]byte, len(want))
			_ = far.SetReadDeadline(time.Now().Add(patience))
			n, _ := io.ReadFull(far, p)
			got <- p[:n]
		}()
		pieces := b.appendTo(nil)
		for len(pieces) > 0 {
			n, full, err := transport.tryWrite(pieces)
			if err != nil {
				t.Fatal(err)
			}
			if pieces = after(pieces, n); full != (len(pieces) > 0) {
				t.Fatalf("batch %d: full is %v with %d pieces left", i, full, len(pieces))
			}
			if full {
				time.Sleep(time.Millisecond)
			}
		}
		if g := <-got; !bytes.Equal(g, want) {
			t.Fatalf("batch %d: %d bytes arrived, want %d, and the same", i, len(g), len(want))
		}
		b.release()
	}
}

// What a batch has been lent is not used for anything else before it is written.
func TestLentChunkIsNotReusedBeforeItIsWritten(t *testing.T) {
	b, total := newBatch(), &budget{limit: 1 << 30}
	var q chunks
	q.append(bytes.Repeat([]byte("a"), lendFrom), total)
	q.eachSince(chunkPlace{}, b.lend)
	lent := q.head
	q.free(total)
	if total.used.Load() != 0 {
		t.Errorf("%d bytes are still charged to whoever has let go", total.used.Load())
	}
	if n := lent.holders.Load(); n != 1 {
		t.Errorf("%d hold the chunk, want the batch alone", n)
	}
	for range 100 { // none of these may be it
		var other chunks
		other.append([]byte("b"), total)
		if other.head == lent {
			t.Fatal("a lent chunk was given out again")
		}
	}
	b.release()
	if n := lent.holders.Load(); n != 0 {
		t.Errorf("%d hold the chunk after it was written", n)
	}
}

// Requests of all sizes arrive as they were sent while they are kept, lent and repeated.
func TestKeptRequestsArriveWhole(t *testing.T) {
	up := listenRaw(t, nil)
	p := &recorder{}
	p.failed = func(c *Call, o Outcome) Verdict {
		if o.Kind == Unprocessed && c.Replayable() {
			return To(&p.dispatch)
		}
		return Pass()
	}
	g := newRig(t, Config{ReplayPerCall: 200_000}, up.addr, p)
	c := dialRaw(t, g.addr)
	rnd := rand.New(rand.NewPCG(7, 8))
	id := uint32(1)
	var server *rawPeer
	for _, size := range []int{0, 1, lendFrom - 1, lendFrom, 4096, 16384, 16385, 65536, 150_000, 230_000} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rnd.Uint32())
		}
		c.request(id, false)
		c.sendAll(id, body)
		c.data(id, nil, true)
		if server == nil {
			server = up.accept()
		}
		for attempt := range 2 {
			f := server.next("the request", anyHeaders)
			var got []byte
			for end := f.end; !end; {
				d := server.next("its body", func(d frame) bool { return d.typ == http2.FrameData && d.id == f.id })
				got, end = append(got, d.data...), d.end
			}
			if !bytes.Equal(got, body) {
				t.Fatalf("%d bytes, attempt %d: %d arrived, want the same", size, attempt, len(got))
			}
			if attempt == 0 && size <= 200_000 {
				server.reset(f.id, http2.ErrCodeRefusedStream)
				continue
			}
			server.trailersOnly(f.id, "0")
			break
		}
		c.next("the answer", isTrailers(id))
		id += 2
	}
}

// What an ended connection was lent and has not written is let go of at once, also if its writer
// is under way then.
func TestEndedConnectionLetsGoOfWhatItWasLent(t *testing.T) {
	for _, writing := range []bool{false, true} {
		near, _ := socketPair(t)
		transport, err := newTransport(near)
		if err != nil {
			t.Fatal(err)
		}
		r := New(Config{}, &recorder{})
		defer r.Close()
		c := newConn(r, transport, nil, "far")
		lender := newChunk(&largeChunks)
		c.outBuf().lend(lender.b[:lendFrom], lender)
		c.writing = writing
		c.fail(net.ErrClosed)
		if writing {
			if n := lender.holders.Load(); n != 2 {
				t.Fatalf("%d hold the chunk while the writer may still be at it, want 2", n)
			}
			c.writer([][]byte{{1}}, newBatch())
		}
		if n := lender.holders.Load(); n != 1 {
			t.Errorf("writing %t: %d hold the chunk, want its owner alone", writing, n)
		}
		lender.release()
	}
}

// TestAnswerToAnEndedConnection: what calls still have to say to a client that is gone, until they
// learn of it, is not put behind what had been said to it, which is let go of.
func TestAnswerToAnEndedConnection(t *testing.T) {
	near, _ := socketPair(t)
	transport, err := newTransport(near)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{}, &recorder{})
	defer r.Close()
	c, w := newConn(r, transport, nil, "far"), r.newWorker()
	s := &stream{conn: c, id: 1, sendWin: maxWindow}
	c.sendWin = maxWindow
	send := func(n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if got := c.writeData(w, s, make([]byte, n), false, nil); got != n {
			t.Errorf("%d of %d bytes are taken", got, n)
		}
	}
	send(3)
	send(c.peerFrame) // begins a second frame
	c.fail(net.ErrClosed)
	send(5)
	send(5)
	want := append(appendFrameHeader(nil, 10, http2.FrameData, 0, 1), make([]byte, 10)...)
	if !bytes.Equal(c.out.b, want) {
		t.Errorf("%d bytes wait, want one frame of two pieces", len(c.out.b))
	}
}
