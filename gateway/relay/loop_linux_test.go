package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// descriptors returns how many files and sockets this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Loops give every descriptor back: of connections that end, of those that are never served,
// and their own.
func TestLoopsGiveDescriptorsBack(t *testing.T) {
	t.Run("plaintext", func(t *testing.T) { testDescriptorsComeBack(t, nil, nil) })
	server, client := testTLS(t)
	t.Run("TLS", func(t *testing.T) { testDescriptorsComeBack(t, server, client) })
}

func testDescriptorsComeBack(t *testing.T, server, client *tls.Config) {
	before := descriptors(t)
	r := New(Config{Loops: 2, TLS: server}, &recorder{over: make(map[*Call]int)})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(ln) }()
	dial := func() *rawPeer {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if client != nil {
			nc = tls.Client(nc, client)
		}
		c := newRawPeer(t, nc)
		c.begin()
		return c
	}
	for range 20 {
		dial().close()
	}
	idle := dial()
	for _, c := range r.snapshot() {
		if looped(c.t) == nil {
			t.Errorf("no loop reads a connection of type %T", c.t)
		}
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		nc, err := net.Dial("tcp", other.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.plain(nc)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.(*polled); !ok {
			t.Fatalf("got %T", p)
		}
		p.close() // as if the relay were closing
	}
	_ = other.Close()
	r.Close()
	<-served
	idle.close()
	waitFor(t, "all descriptors to be given back", func() bool { return descriptors(t) <= before })
}

// interest returns what a connection's loop is told of it, as the kernel has it.
func interest(t *testing.T, p *polled) int {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", p.loop.epoll))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		var fd, events int
		if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &fd, &events); n == 2 && fd == p.fd {
			return events &^ (unix.EPOLLERR | unix.EPOLLHUP) // always told
		}
	}
	t.Fatalf("descriptor %d is not watched:\n%s", p.fd, info)
	return 0
}

// Who waits for a socket to take more is told when it does, and is not kept waiting by the
// connection's end.
func TestLoopTellsWhoWaitsToWrite(t *testing.T) {
	r := New(Config{Loops: 1}, &recorder{})
	defer r.Close()
	near, far := socketPair(t)
	transport, err := r.plain(near)
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(r, transport, &downstreamSide{relay: r}, "far")
	c.preface = true
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.readLoop(r.newWorker())
	}()
	waitFor(t, "the connection to be served", func() bool {
		p := transport.(*polled)
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.served
	})
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than any socket holds
	wrote := make(chan error, 2)
	go func() { wrote <- c.t.write([][]byte{want[:5], want[5:]}) }()
	got := make([]byte, len(want))
	_ = far.SetReadDeadline(time.Now().Add(patience))
	for n := 0; n < len(got); {
		k, err := far.Read(got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if err := <-wrote; err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was written did not arrive, or otherwise: %v", err)
	}
	if got := interest(t, transport.(*polled)); got != watched {
		t.Errorf("the loop wants to know %#x, want %#x: it would be told again and again that there is room", got, watched)
	}
	go func() { wrote <- c.t.write([][]byte{want}) }()
	time.Sleep(10 * time.Millisecond) // until it waits, most likely
	c.fail(errServing)
	if err := <-wrote; err == nil {
		t.Error("writing to a connection that has ended went well")
	}
	<-ended
}

// Who waits for room since before the loop has the connection is told as well.
func TestLoopTellsWhoHasWaitedBefore(t *testing.T) {
	r := New(Config{Loops: 1}, &recorder{})
	defer r.Close()
	near, far := socketPair(t)
	transport, err := r.plain(near)
	if err != nil {
		t.Fatal(err)
	}
	p := transport.(*polled)
	c := newConn(r, transport, &downstreamSide{relay: r}, "far")
	c.preface = true
	want := make([]byte, 16<<20) // more than any socket holds
	wrote := make(chan error, 1)
	go func() { wrote <- c.t.write([][]byte{want}) }()
	waitFor(t, "the writer to wait", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.waits
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.readLoop(r.newWorker())
	}()
	_ = far.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.CopyN(io.Discard, far, int64(len(want))); err != nil {
		t.Errorf("%v after %d bytes of %d", err, n, len(want))
	}
	c.fail(errServing)
	<-ended
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// A connection that is reset as it comes may have ended, as its loop sees it, before the loop is
// told what to look for there: the loop is told of resets unasked.
func TestLoopHasLetGoBeforeItIsAsked(t *testing.T) {
	r := New(Config{Loops: 1}, &recorder{})
	defer r.Close()
	near, _ := socketPair(t)
	transport, err := r.plain(near)
	if err != nil {
		t.Fatal(err)
	}
	p := transport.(*polled)
	c := newConn(r, transport, &downstreamSide{relay: r}, "far")
	p.loop.remove(p)
	p.ended <- unix.ECONNRESET
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.readLoop(r.newWorker())
	}()
	select {
	case <-served:
	case <-time.After(patience):
		t.Fatal("the connection has not ended")
	}
	if !errors.Is(c.err, unix.ECONNRESET) || p.fd >= 0 {
		t.Errorf("ended for %v, descriptor %d, want %v and a closed one", c.err, p.fd, unix.ECONNRESET)
	}
}

// Where no descriptor is left for a loop's copy, a goroutine reads the connection.
func TestWithoutDescriptorsAGoroutineReads(t *testing.T) {
	r := New(Config{Loops: 1}, &recorder{})
	defer r.Close()
	near, _ := socketPair(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	scarce := limit
	scarce.Cur = 4 // what is open stays so
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &scarce); err != nil {
		t.Fatal(err)
	}
	got, err := r.plain(near)
	if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); back != nil {
		t.Fatal(back)
	}
	if _, ok := got.(*fdTransport); err != nil || !ok {
		t.Errorf("got %T, %v; want a transport that a goroutine reads", got, err)
	}
}

// A peer that asks for new keys and says nothing else is answered all the same.
func TestLoopsAnswerNewKeysAtOnce(t *testing.T) {
	server, client := testTLS(t)
	r := New(Config{Loops: 1, TLS: server}, &recorder{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(ln) }()
	defer func() { r.Close(); <-served }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	below := shakeHands(t, nc, client, true)
	newRawPeer(t, below).begin()
	below.send(func(k *recordKeys) []byte { return k.sealUpdate(true, false) })
	waitFor(t, "the answer", func() bool { return below.updated() == 1 })
}

// lookingSide looks at a connection when it lets go of its streams, before it lingers.
type lookingSide struct {
	downstreamSide
	look func()
}

func (s *lookingSide) gone(w *worker, c *conn, streams []*stream) {
	s.look()
	s.downstreamSide.gone(w, c, streams)
}

// A fault in what comes with the end of the handshake is answered as any other: the client may go on sending
// for a while, so that it reads why.
func TestFaultsBehindTheHandshakeLinger(t *testing.T) {
	server, client := testTLS(t)
	r := New(Config{Loops: 1, TLS: server}, &recorder{})
	defer r.Close()
	near, far := socketPair(t)
	go func() {
		p := shakeHands(t, far, client, true)
		_, _ = p.Write([]byte("GET / HTTP/1.1\r\n\r\n")) // with its last flight
	}()
	transport, err := r.handshake(near)
	if err != nil {
		t.Fatal(err)
	}
	looked := false
	side := &lookingSide{downstreamSide{relay: r}, func() {
		p := looped(transport)
		p.mu.Lock()
		defer p.mu.Unlock()
		if looked = true; p.fd < 0 {
			t.Error("the connection is closed already")
		}
	}}
	c := newConn(r, transport, side, "far")
	c.preface = true
	c.readLoop(r.newWorker())
	if !looked {
		t.Error("the fault did not end the connection")
	}
}

// A client that sends records of one byte and new keys has its turn ended after so many of them, whatever is still there;
// then the loop keeps it in its list, and the next turn goes on there. The test takes the loop's place.
func TestTurnsEndAfterSoManyRecords(t *testing.T) {
	server, client := testTLS(t)
	r := New(Config{Loops: 1, TLS: server}, &recorder{})
	l, err := newLoop(r)
	if err != nil {
		t.Fatal(err)
	}
	close(l.done) // it does not run
	r.loops.all = []*loop{l}
	defer r.Close()

	near, far := socketPair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		tr, err := r.handshake(near)
		if err != nil {
			t.Error(err)
			return
		}
		r.serve(near, tr)
	}()
	below := shakeHands(t, far, client, true)
	var sealed []byte
	send := below.cut
	below.cut = func(b []byte) { sealed = append(sealed, b...) }
	c := newRawPeer(t, below)
	c.raw([]byte(http2.ClientPreface))
	c.settings()
	send(sealed)
	var p *polled
	waitFor(t, "the loop to have the connection", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, added := range l.conns {
			p = added
		}
		return p != nil
	})
	w := r.newWorker()
	turn := func() {
		l.early, p.early = nil, false
		p.turn(w)
		w.flush()
	}
	in := &p.tls.wire.in
	waitFor(t, "what the connection begins with to be handled", func() bool { turn(); return !p.c.preface && in.dry() && in.buf == nil })

	sealed = nil
	below.recordLen = func() int { return 1 }
	below.before = func() (b []byte) {
		for range 3 {
			b = append(b, below.out.sealUpdate(false, false)...)
		}
		return b
	}
	c.raw(bytes.Repeat([]byte{0, 0, 5, byte(http2.FramePriority), 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}, 20))
	var ends []int
	var at recordCursor
	for pos := 0; pos < len(sealed); ends = append(ends, pos) {
		pos += at.pass(sealed[pos:])
	}
	send(sealed)
	waitFor(t, "all of it to be there", func() bool {
		n, err := unix.IoctlGetInt(p.fd, unix.TIOCINQ)
		return err == nil && n == len(sealed)
	})
	for done := 0; done < len(ends); {
		turn()
		done = min(done+recordsAtOnce, len(ends))
		pos := len(sealed)
		if in.buf != nil {
			pos = in.pos
		}
		if pos != ends[done-1] {
			t.Fatalf("a turn ended at byte %d, want %d, after %d records of %d", pos, ends[done-1], done, len(ends))
		}
		if kept := len(l.early) == 1; kept != (done < len(ends)) || kept != p.early {
			t.Errorf("after %d records of %d the loop kept %d connections for another turn", done, len(ends), len(l.early))
		}
	}

	c.start()
	c.close()
	waitFor(t, "the connection to be gone", func() bool {
		l.mu.Lock()
		gone := len(l.conns) == 0
		l.mu.Unlock()
		if !gone {
			turn()
		}
		return gone
	})
	<-served
}
