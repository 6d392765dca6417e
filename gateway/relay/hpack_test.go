package relay

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

func TestLiteralsDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z-]{1,300}`).Draw(t, "name")
		value := rapid.StringN(0, 400, 100_000).Draw(t, "value")
		var got []hpack.HeaderField
		d := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f) })
		if _, err := d.Write(appendLiteral(nil, name, value)); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Name != name || got[0].Value != value || !got[0].Sensitive {
			t.Fatalf("got %v", got)
		}
	})
}

// hpackRig is a call with a header block that can be repeated with an index.
func (p *rawPeer) indexed(id uint32, end bool) { p.request(id, end, "kept-in", "the-table") }

func (p *rawPeer) wantIndexed(what string) {
	p.t.Helper()
	f := p.next(what, func(f frame) bool { return f.typ == http2.FrameHeaders && f.field("kept-in") != "" })
	if got := f.field("kept-in"); got != "the-table" {
		p.t.Errorf("%s: kept-in = %q: the compression state is lost", what, got)
	}
}

// Blocks that nobody is interested in change the compression state all the same.
func TestCompressionStateSurvivesUnwantedBlocks(t *testing.T) {
	t.Run("from the client", func(t *testing.T) {
		for _, c := range []struct {
			name string
			send func(c *rawPeer)
		}{
			{"malformed", func(c *rawPeer) { c.request(1, true, "kept-in", "the-table", "UPPER", "case") }},
			{"above the limit of streams", func(c *rawPeer) {
				c.request(1, false)
				c.request(3, false)
				c.indexed(5, true)
				c.reset(1, http2.ErrCodeCancel)
			}},
			{"trailers of a reset stream", func(c *rawPeer) {
				c.request(1, false)
				c.reset(1, http2.ErrCodeCancel)
				c.request(3, false, "content-length", "0")
				c.data(3, []byte("x"), false) // resets it
				c.sync()
				c.headers(3, true, "kept-in", "the-table")
			}},
			{"not POST", func(c *rawPeer) {
				c.headers(1, true, ":method", "GET", ":scheme", "http", ":path", "/", "kept-in", "the-table")
			}},
			{"too large", func(c *rawPeer) {
				c.request(1, true, "kept-in", "the-table", "big", strings.Repeat("x", 20<<10))
			}},
			{"too large before it", func(c *rawPeer) {
				c.request(1, true, "big", strings.Repeat("x", 20<<10), "kept-in", "the-table")
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				up := listenRaw(t, nil)
				g := newRig(t, Config{MaxStreams: 2}, up.addr, nil)
				cl := dialRaw(t, g.addr)
				c.send(cl)
				cl.sync()
				cl.indexed(7, false)
				up.accept().wantIndexed("the next call")
			})
		}
	})
	t.Run("after GOAWAY", func(t *testing.T) {
		up := listenRaw(t, nil)
		g := newRig(t, Config{}, up.addr, nil)
		cl := dialRaw(t, g.addr)
		cl.request(1, false)
		s := up.accept()
		s.next("the call", isHeaders(1))
		d := g.connOf(cl)
		w := g.newWorker()
		d.mu.Lock()
		d.side.(*downstreamSide).last = true // as drain does after a second
		d.goAway(w, http2.ErrCodeNo, "")
		d.mu.Unlock()
		w.flush()
		cl.next("GOAWAY", isType(http2.FrameGoAway))
		cl.indexed(3, false) // crossed, and ignored
		cl.headers(1, true, "kept-in", "the-table")
		cl.sync()
		if f := s.next("the end of the first call's request", func(f frame) bool { return f.id == 1 && f.end }); f.typ != http2.FrameData {
			t.Errorf("the request ended with %v", f.typ)
		}
		s.trailersOnly(1, "0")
		cl.next("the first call's answer", isTrailers(1))
	})
	t.Run("from upstream", func(t *testing.T) {
		for _, c := range []struct {
			name string
			send func(s *rawPeer)
		}{
			{"after our reset", func(s *rawPeer) {
				s.reset(1, http2.ErrCodeCancel)
				s.headers(1, true, ":status", "200", "kept-in", "the-table", "grpc-status", "0")
			}},
			{"too large", func(s *rawPeer) {
				s.headers(1, true, ":status", "200", "big", strings.Repeat("x", 20<<10), "kept-in", "the-table")
			}},
			{"malformed", func(s *rawPeer) { s.headers(1, true, ":status", "200", "UPPER", "x", "kept-in", "the-table") }},
			{"informational", func(s *rawPeer) {
				s.headers(1, false, ":status", "103", "kept-in", "the-table")
				s.trailersOnly(1, "0")
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				up := listenRaw(t, nil)
				g := newRig(t, Config{}, up.addr, nil)
				cl := dialRaw(t, g.addr)
				s := g.call(cl, up, 1)
				c.send(s)
				cl.next("the first answer", isTrailers(1))
				cl.request(3, true)
				s.next("the second call", isHeaders(3))
				s.trailersOnly(3, "0", "kept-in", "the-table")
				cl.wantIndexed("the second answer")
			})
		}
	})
}

// The peer may shrink and grow the table that we compress with, at any time.
func TestPeerChangesTheTableSize(t *testing.T) {
	size := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingHeaderTableSize, Val: n} }
	up := listenRaw(t, nil)
	g := newRig(t, Config{}, up.addr, nil)
	cl := dialRaw(t, g.addr)
	id := uint32(1)
	var s *rawPeer
	for _, n := range []uint32{4096, 0, 4096, 100, 1 << 20, 0, 0, 4096} {
		for range 2 {
			cl.request(id, true, "same", "request", "x-request-id", fmt.Sprint(id))
			if s == nil {
				s = up.accept()
			}
			f := s.next("the call", isHeaders(id))
			if f.field("same") != "request" || f.field("x-request-id") != fmt.Sprint(id) {
				t.Errorf("the call arrived as %v", f.fields)
			}
			// A block may begin with a field that is not compressed.
			s.headers(id, false, ":status", "200", "content-type", "application/grpc", "same", "answer")
			cl.next("HEADERS", isHeaders(id))
			cl.settings(size(n))
			s.settings(size(n))
			cl.sync()
			s.sync()
			s.headers(id, true, "grpc-message", fmt.Sprint("message ", id), "grpc-status", "0", "same", "answer")
			f = cl.next("trailers", isTrailers(id))
			if f.field("grpc-message") != fmt.Sprint("message ", id) || f.field("same") != "answer" {
				t.Errorf("trailers arrived as %v", f.fields)
			}
			id += 2
		}
	}
}

// A header block may be split anywhere.
func TestContinuationSplitAtEveryByte(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	id := uint32(1)
	for cut := 0; ; cut++ {
		b := c.block(":method", "POST", ":scheme", "http", ":path", "/test.Service/Method", "content-type",
			"application/grpc", "te", "trailers", "a", "b")
		if cut > len(b) {
			break
		}
		c.write(func(fr *http2.Framer) error {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:cut], EndStream: true})
			return fr.WriteContinuation(id, true, b[cut:])
		})
		if got := c.next("the answer", isTrailers(id)).field("grpc-status"); got != "0" {
			t.Fatalf("cut at %d: status %s", cut, got)
		}
		id += 2
	}
}

// Between HEADERS and its CONTINUATION nothing else may come.
func TestFramesInsideAHeaderBlock(t *testing.T) {
	up := listenRaw(t, nil)
	for _, c := range []struct {
		name  string
		frame func(fr *http2.Framer) error
	}{
		{"DATA", func(fr *http2.Framer) error { return fr.WriteData(1, false, nil) }},
		{"PING", func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{}) }},
		{"HEADERS", func(fr *http2.Framer) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true})
		}},
		{"CONTINUATION of another stream", func(fr *http2.Framer) error { return fr.WriteContinuation(3, true, nil) }},
		{"unknown type", func(fr *http2.Framer) error { return fr.WriteRawFrame(0xbe, 0, 1, nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{}, up.addr, nil)
			cl := dialRaw(t, g.addr)
			cl.write(func(fr *http2.Framer) error {
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
				return c.frame(fr)
			})
			cl.toldOff(http2.ErrCodeProtocol)
		})
	}
	t.Run("CONTINUATION alone", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		cl := dialRaw(t, g.addr)
		cl.write(func(fr *http2.Framer) error { return fr.WriteContinuation(1, true, nil) })
		cl.toldOff(http2.ErrCodeProtocol)
	})
	t.Run("a block that does not decode", func(t *testing.T) {
		g := newRig(t, Config{}, up.addr, nil)
		cl := dialRaw(t, g.addr)
		cl.write(func(fr *http2.Framer) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff}, EndHeaders: true})
		})
		cl.toldOff(http2.ErrCodeCompression)
	})
}

// Values that are new with every call must not push out what repeats: after
// hundreds of calls a repeated field still costs one byte.
func TestVolatileFieldsAreNotIndexed(t *testing.T) {
	c, w := quietConn(t)
	d := hpack.NewDecoder(4096, nil)
	var l fieldList
	l.maxBytes, l.maxFields = 16<<10, 100
	size := 0
	for i := range 300 {
		l.reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":path", Value: "/inference.GRPCInferenceService/ModelInfer"},
			{Name: "user-agent", Value: "grpc-go/1.80.0"},
			{Name: "traceparent", Value: fmt.Sprintf("00-%032x-%016x-01", i, i)},
			{Name: "x-request-id", Value: fmt.Sprintf("%036x", i)},
			{Name: "grpc-timeout", Value: fmt.Sprintf("%dn", 90_000_000+i)},
		} {
			l.add(f)
		}
		c.beginBlock()
		for _, f := range l.fields {
			c.encode(f)
		}
		size = 0
		d.SetEmitFunc(func(f hpack.HeaderField) {
			switch f.Name {
			case "traceparent", "x-request-id", "grpc-timeout":
				if !f.Sensitive {
					t.Fatalf("%s may be indexed by the next hop", f.Name)
				}
				size += 3 + len(f.Name) + len(f.Value)
			}
		})
		size -= len(c.encBuf.b)
		if _, err := d.Write(c.encBuf.b); err != nil {
			t.Fatal(err)
		}
	}
	if size != -2 {
		t.Errorf("the fields that repeat take %d bytes, want 2", -size)
	}
	c.endBlock(w, 1, true)
	c.dirty = false
	w.touched = nil
}

// Long blocks leave as HEADERS with CONTINUATIONs that nothing comes between.
func TestLongBlocksAreSplit(t *testing.T) {
	c, w := quietConn(t)
	want := strings.Repeat("0123456789~", 5000)
	c.beginBlock()
	c.encode(hpack.HeaderField{Name: "long", Value: want, Sensitive: true})
	c.endBlock(w, 1, true)
	fr := http2.NewFramer(nil, bytes.NewReader(c.out.b))
	fr.SetMaxReadFrameSize(maxFrameLen)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.MaxHeaderListSize = 1 << 20
	f, err := fr.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	mh, ok := f.(*http2.MetaHeadersFrame)
	if !ok || !mh.StreamEnded() || len(mh.Fields) != 1 || mh.Fields[0].Value != want {
		t.Errorf("got %v", f)
	}
	c.dirty = false
	w.touched = nil
}
