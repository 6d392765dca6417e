package relay

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
)

// BenchmarkPassage is the whole way of calls through the relay, from a client's socket to a server's and back, by every
// kind of connection a client may have: 32 requests are written at once and all answers awaited. Client
// and server are no more than they must be, and allocate nothing.
func BenchmarkPassage(b *testing.B) {
	secure, trust := testTLS(b)
	for _, kind := range []struct {
		name   string
		config Config
		trust  *tls.Config
	}{
		{"loop", Config{Loops: 1}, nil},
		{"goroutines", Config{Loops: -1}, nil},
		{"tls", Config{TLS: secure}, trust},
	} {
		for _, size := range []int{400, 4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/bytes=%d", kind.name, size), func(b *testing.B) {
				c := newPassage(b, kind.config, kind.trust)
				const calls = 32
				body := make([]byte, size)
				for range 10 { // what is pooled or remembered is there then
					c.round(calls, body)
				}
				b.SetBytes(int64(calls * size))
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					c.round(calls, body)
				}
				reportCPU(b, before)
			})
		}
	}
}

// straight sends every call to one upstream, keeping its request for another attempt.
type straight struct{ dispatch Dispatch }

func (p *straight) Opened(*Call) Verdict                             { return To(&p.dispatch) }
func (p *straight) Body(_ *Call, b []byte, _ bool) ([]byte, Verdict) { return b, Wait() }
func (p *straight) Failed(*Call, Outcome) Verdict                    { return Pass() }
func (p *straight) Due(*Call) Verdict                                { return Wait() }
func (p *straight) Over(*Call, Outcome)                              {}
func (p *straight) Dropped(*Call, Outcome)                           {}
func (p *straight) Status(_ *Call, _ OutcomeKind, code uint32, msg string) *Status {
	return &Status{Code: code, Message: msg}
}

// passageClient is a client of a relay in front of a server that answers every request with a few bytes.
type passageClient struct {
	b       *testing.B
	nc      net.Conn
	block   []byte // of a request, only indexes
	next    uint32 // stream
	out, in []byte
}

func newPassage(b *testing.B, config Config, trust *tls.Config) *passageClient {
	b.Helper()
	server := listen(b)
	served := make(chan error, 1)
	go func() { served <- serveAll(server) }()
	p := &straight{}
	r := New(config, p)
	p.dispatch = Dispatch{Upstream: r.NewUpstream(UpstreamConfig{Addr: server.Addr().String()}), Replay: true}
	front := listen(b)
	relayed := make(chan error, 1)
	go func() { relayed <- r.Serve(front) }()

	nc, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	if trust != nil {
		nc = tls.Client(nc, trust)
	}
	b.Cleanup(func() {
		_ = nc.Close()
		r.Close()
		if err := errors.Join(<-relayed, server.Close(), <-served); err != nil {
			b.Error(err)
		}
	})
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil { // so that a bug is no hang
		b.Fatal(err)
	}
	c := &passageClient{b: b, nc: nc, next: 1, in: make([]byte, 0, 256<<10)}
	c.out = append(c.out, http2.ClientPreface...)
	c.out = appendFrameHeader(c.out, 0, http2.FrameSettings, 0, 0)
	first := c.encode()
	c.out = appendFrameHeader(c.out, len(first), http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, c.next)
	c.out = append(c.out, first...)
	c.next += 2
	c.flush(1)
	return c
}

// encode returns the block of a first request and remembers that of all others.
func (c *passageClient) encode() []byte {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	var blocks [2][]byte
	for i := range blocks {
		buf.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/a.Service/Method"},
			{Name: ":authority", Value: "models.example"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
		} {
			_ = enc.WriteField(f) // a buffer takes everything
		}
		blocks[i] = bytes.Clone(buf.Bytes())
	}
	c.block = blocks[1]
	return blocks[0]
}

// round makes calls, all at once, and waits until they have ended. They fit into the windows that the relay keeps open.
func (c *passageClient) round(calls int, body []byte) {
	for range calls {
		c.out = appendFrameHeader(c.out, len(c.block), http2.FrameHeaders, http2.FlagHeadersEndHeaders, c.next)
		c.out = append(c.out, c.block...)
		for rest := body; len(rest) > 0; {
			n := min(len(rest), maxFrameLen)
			var f http2.Flags
			if n == len(rest) {
				f = http2.FlagDataEndStream
			}
			c.out = append(appendFrameHeader(c.out, n, http2.FrameData, f, c.next), rest[:n]...)
			rest = rest[n:]
		}
		c.next += 2
	}
	c.flush(calls)
}

// flush writes and reads until so many streams have ended.
func (c *passageClient) flush(streams int) {
	if _, err := c.nc.Write(c.out); err != nil {
		c.b.Fatal(err)
	}
	c.out = c.out[:0]
	taken := 0
	for streams > 0 {
		var err error
		c.in, err = readFrames(c.nc, c.in, func(h frameHeader, _ []byte) {
			switch {
			case h.typ == http2.FrameData:
				taken += h.length
			case h.typ == http2.FrameRSTStream || h.typ == http2.FrameGoAway:
				c.b.Fatalf("got %v on stream %d", h.typ, h.stream)
			case h.typ == http2.FrameHeaders && h.flags.Has(http2.FlagHeadersEndStream):
				streams--
			}
		})
		if err != nil {
			c.b.Fatal(err)
		}
	}
	c.out = appendCredit(c.out, taken)
}

// appendCredit gives back what was taken of a connection's window.
func appendCredit(b []byte, taken int) []byte {
	if taken == 0 {
		return b
	}
	return binary.BigEndian.AppendUint32(appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, 0), uint32(taken))
}

// serveAll answers on all connections until the listener is closed, and returns what went wrong.
func serveAll(ln net.Listener) error {
	var group errgroup.Group
	for {
		nc, err := ln.Accept()
		if err != nil {
			return errors.Join(ended(err), group.Wait())
		}
		group.Go(func() error { return answerAll(nc) })
	}
}

// answerAll answers every request as soon as it has ended, until the connection does.
func answerAll(nc net.Conn) error {
	defer nc.Close()
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	block := func(f hpack.HeaderField) []byte {
		buf.Reset()
		f.Sensitive = true // never in the table, so that it may be sent again and again
		_ = enc.WriteField(f)
		return bytes.Clone(buf.Bytes())
	}
	header := append(block(hpack.HeaderField{Name: ":status", Value: "200"}), block(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})...)
	trailer := block(hpack.HeaderField{Name: "grpc-status", Value: "0"})
	message := append([]byte{0, 0, 0, 0, 100}, make([]byte, 100)...)

	// Windows of 2 GiB, and for the connection what is taken of it.
	out := appendFrameHeader(nil, 6, http2.FrameSettings, 0, 0)
	out = append(out, 0, byte(http2.SettingInitialWindowSize), 0x7f, 0xff, 0xff, 0xff)
	out = appendCredit(out, 0x7f000000)
	if _, err := nc.Write(out); err != nil {
		return err
	}
	in := make([]byte, 0, 256<<10)
	if _, err := io.ReadFull(nc, in[:len(http2.ClientPreface)]); err != nil {
		return ended(err)
	}
	for {
		var err error
		out = out[:0]
		taken := 0
		in, err = readFrames(nc, in, func(h frameHeader, _ []byte) {
			if h.typ == http2.FrameSettings && !h.flags.Has(http2.FlagSettingsAck) {
				out = appendFrameHeader(out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
			}
			if h.typ == http2.FrameData {
				taken += h.length
			}
			if h.typ != http2.FrameData && h.typ != http2.FrameHeaders || !h.flags.Has(http2.FlagDataEndStream) {
				return
			}
			out = append(appendFrameHeader(out, len(header), http2.FrameHeaders, http2.FlagHeadersEndHeaders, h.stream), header...)
			out = append(appendFrameHeader(out, len(message), http2.FrameData, 0, h.stream), message...)
			out = append(appendFrameHeader(out, len(trailer), http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, h.stream), trailer...)
		})
		if err != nil {
			return ended(err)
		}
		if _, err := nc.Write(appendCredit(out, taken)); err != nil {
			return ended(err)
		}
	}
}

// ended passes on what is no way for a connection to end.
func ended(err error) error {
	var netErr net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &netErr) {
		return nil
	}
	return err
}

// readFrames reads once, behind what is there of a frame, and calls f for every whole frame. It returns the rest.
func readFrames(nc net.Conn, in []byte, f func(frameHeader, []byte)) ([]byte, error) {
	n, err := nc.Read(in[len(in):cap(in)])
	in = in[:len(in)+n]
	b := in
	for len(b) >= frameHeaderLen {
		h := parseFrameHeader(b)
		if len(b) < frameHeaderLen+h.length {
			break
		}
		f(h, b[frameHeaderLen:frameHeaderLen+h.length])
		b = b[frameHeaderLen+h.length:]
	}
	return in[:copy(in[:cap(in)], b)], err
}

// cpuTime is what this process has used of the processors, in user and in system mode.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// reportCPU reports what operations have used of the processors since then, all threads together. With more threads than one, time on the clock is also
// what they wait for each other, which depends on what else the machine does.
func reportCPU(b *testing.B, since time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpuTime(b)-since)/float64(b.N), "cpu-ns/op")
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// BenchmarkBorrowAndLend takes a request into what is kept of it, makes what waits for a window borrow it, and the write
// queue borrow it from there, until everybody has let go.
func BenchmarkBorrowAndLend(b *testing.B) {
	for _, n := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			var kept, waiting chunks
			total := &budget{limit: 1 << 40}
			p := make([]byte, min(n, maxFrameLen))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				for i := 0; i < n; i += len(p) {
					from := kept.end()
					kept.append(p, total)
					kept.eachSince(from, func(p []byte, of *chunk) { waiting.put(p, of, total) })
				}
				out := newBatch()
				for waiting.n > 0 {
					piece := waiting.front()
					out.lend(piece, waiting.head)
					waiting.pop(len(piece), total)
				}
				kept.free(total)
				if out.len() != n {
					b.Fatalf("%d bytes are lent, want %d", out.len(), n)
				}
				out.release()
			}
		})
	}
}

// BenchmarkGatheredWrite writes frames whose payload is lent, header by header and piece by piece, to a socket at once, and reads them.
func BenchmarkGatheredWrite(b *testing.B) {
	for _, frames := range []int{1, 4} {
		b.Run(fmt.Sprintf("frames=%d", frames), func(b *testing.B) {
			near, far := socketPair(b)
			if err := near.(*net.TCPConn).SetWriteBuffer(1 << 20); err != nil {
				b.Fatal(err)
			}
			t, err := newTransport(near)
			if err != nil {
				b.Fatal(err)
			}
			header, payload := make([]byte, frameHeaderLen), make([]byte, maxFrameLen)
			var pieces [][]byte
			in := make([]byte, frames*(len(header)+len(payload)))
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				pieces = pieces[:0]
				for range frames {
					pieces = append(pieces, header, payload)
				}
				if n, full, err := t.tryWrite(pieces); n < len(in) || full || err != nil {
					b.Fatalf("%d of %d bytes written, full %v, %v", n, len(in), full, err)
				}
				if _, err := io.ReadFull(far, in); err != nil {
					b.Fatal(err)
				}
			}
			reportCPU(b, before)
		})
	}
}
