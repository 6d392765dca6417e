package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// What makes a request malformed (RFC 9113, 8.2 and 8.3) resets its stream.
func TestMalformedRequests(t *testing.T) {
	good := []string{":method", "POST", ":scheme", "http", ":path", "/a/b", ":authority", "x", "content-type", "application/grpc"}
	without := func(name string) []string {
		var f []string
		for i := 0; i < len(good); i += 2 {
			if good[i] != name {
				f = append(f, good[i], good[i+1])
			}
		}
		return f
	}
	with := func(extra ...string) []string { return append(append([]string(nil), good...), extra...) }
	before := func(extra ...string) []string { return append(append([]string(nil), extra...), good...) }
	for _, c := range []struct {
		name   string
		fields []string
		ok     bool
	}{
		{"well-formed", good, true},
		{"no :authority", without(":authority"), true},
		{"no :method", without(":method"), false},
		{"no :scheme", without(":scheme"), false},
		{"no :path", without(":path"), false},
		{"empty :path", append(without(":path"), ":path", ""), false},
		{"duplicate :method", before(":method", "POST"), false},
		{"duplicate :path", before(":path", "/a/b"), false},
		{"duplicate :authority", before(":authority", "x"), false},
		{"unknown pseudo-field", before(":protocol", "websocket"), false},
		{"pseudo-field of an answer", before(":status", "200"), false},
		{"pseudo-field after a regular field", append([]string{"a", "b"}, good...), false},
		{"upper-case name", with("Upper", "x"), false},
		{"empty name", with("", "x"), false},
		{"space in a name", with("a b", "x"), false},
		{"colon in a name", with("a:b", "x"), false},
		{"control character in a name", with("a\x01", "x"), false},
		{"non-ASCII name", with("\xc3\xa4", "x"), false},
		{"line feed in a value", with("a", "x\ny"), false},
		{"carriage return in a value", with("a", "x\ry"), false},
		{"NUL in a value", with("a", "x\x00y"), false},
		{"leading space in a value", with("a", " x"), false},
		{"trailing tab in a value", with("a", "x\t"), false},
		{"empty value", with("a", ""), true},
		{"space inside a value", with("a", "x y"), true},
		{"bytes above ASCII in a value", with("a", "\xff\xfe"), true},
		{"every punctuation allowed in names", with("!#$%&'*+-.^_`|~09az", "x"), true},
		{"connection", with("connection", "close"), false},
		{"keep-alive", with("keep-alive", "1"), false},
		{"proxy-connection", with("proxy-connection", "x"), false},
		{"transfer-encoding", with("transfer-encoding", "chunked"), false},
		{"upgrade", with("upgrade", "x"), false},
		{"te: trailers", with("te", "trailers"), true},
		{"te: gzip", with("te", "gzip"), false},
		{"content-length of no digits", with("content-length", "1x"), false},
		{"negative content-length", with("content-length", "-1"), false},
		{"two content-lengths", with("content-length", "1", "content-length", "2"), false},
		{"the same content-length twice", with("content-length", "1", "content-length", "1"), true},
		{"content-length beyond numbers", with("content-length", strings.Repeat("9", 30)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := fieldList{maxBytes: 16 << 10, maxFields: 128}
			for i := 0; i < len(c.fields); i += 2 {
				l.add(hpack.HeaderField{Name: c.fields[i], Value: c.fields[i+1]})
			}
			if _, problem := parseRequest(&l); (problem == "") != c.ok {
				t.Errorf("problem %q, well-formed should be %v", problem, c.ok)
			}
		})
	}
}

// Callers that do not speak gRPC, or not well, are told in words.
func TestCallersToldWhatIsWrong(t *testing.T) {
	up := listenRaw(t, answering)
	for _, c := range []struct {
		name, http, code string
		fields           []string
	}{
		{"GET", "405", "13", []string{":method", "GET", ":scheme", "http", ":path", "/", "content-type", "application/grpc"}},
		{"JSON", "415", "13", []string{":method", "POST", ":scheme", "http", ":path", "/", "content-type", "application/json"}},
		{"no content-type", "415", "13", []string{":method", "POST", ":scheme", "http", ":path", "/"}},
		{"application/grpcx", "415", "13", []string{":method", "POST", ":scheme", "http", ":path", "/", "content-type", "application/grpcx"}},
		{"application/grpc+proto", "200", "0", []string{":method", "POST", ":scheme", "http", ":path", "/", "content-type", "application/grpc+proto"}},
		{"application/grpc;x", "200", "0", []string{":method", "POST", ":scheme", "http", ":path", "/", "content-type", "application/grpc;x"}},
		{"grpc-timeout of no number", "400", "13", []string{":method", "POST", ":scheme", "http", ":path", "/", "content-type", "application/grpc", "grpc-timeout", "soon"}},
		{"grpc-timeout of nine digits", "400", "13", []string{":method", "POST", ":scheme", "http", ":path", "/", "content-type", "application/grpc", "grpc-timeout", "123456789m"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{}, up.addr, nil)
			cl := dialRaw(t, g.addr)
			cl.headers(1, true, c.fields...)
			f := cl.next("the answer", isTrailers(1))
			if f.field(":status") != c.http || f.field("grpc-status") != c.code {
				t.Errorf("HTTP %s, status %s (%s), want %s and %s", f.field(":status"), f.field("grpc-status"), f.field("grpc-message"), c.http, c.code)
			}
		})
	}
}

// What breaks the protocol of a connection ends it, and no other.
func TestConnectionErrors(t *testing.T) {
	up := listenRaw(t, answering)
	for _, c := range []struct {
		name string
		send func(c *rawPeer)
		code http2.ErrCode
	}{
		{"HEADERS on stream 0", func(c *rawPeer) { c.request(0, true) }, http2.ErrCodeProtocol},
		{"HEADERS on an even stream", func(c *rawPeer) { c.request(2, true) }, http2.ErrCodeProtocol},
		{"HEADERS on a closed stream", func(c *rawPeer) { c.request(5, true); c.request(3, true) }, http2.ErrCodeStreamClosed},
		{"DATA on stream 0", func(c *rawPeer) { c.data(0, nil, true) }, http2.ErrCodeProtocol},
		{"DATA on an idle stream", func(c *rawPeer) { c.data(7, nil, true) }, http2.ErrCodeProtocol},
		{"RST_STREAM on an idle stream", func(c *rawPeer) { c.reset(7, 0) }, http2.ErrCodeProtocol},
		{"RST_STREAM on stream 0", func(c *rawPeer) { c.reset(0, 0) }, http2.ErrCodeProtocol},
		{"WINDOW_UPDATE on an idle stream", func(c *rawPeer) { c.windowUpdate(7, 1) }, http2.ErrCodeProtocol},
		{"WINDOW_UPDATE of 0", func(c *rawPeer) { c.windowUpdate(0, 0) }, http2.ErrCodeProtocol},
		{"PUSH_PROMISE", func(c *rawPeer) {
			c.write(func(fr *http2.Framer) error {
				return fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
			})
		}, http2.ErrCodeProtocol},
		{"SETTINGS on a stream", func(c *rawPeer) { c.raw(appendFrameHeader(nil, 0, http2.FrameSettings, 0, 1)) }, http2.ErrCodeProtocol},
		{"SETTINGS of five bytes", func(c *rawPeer) { c.raw(append(appendFrameHeader(nil, 5, http2.FrameSettings, 0, 0), 0, 0, 0, 0, 0)) }, http2.ErrCodeFrameSize},
		{"SETTINGS acknowledgement with a payload", func(c *rawPeer) {
			c.raw(append(appendFrameHeader(nil, 6, http2.FrameSettings, http2.FlagSettingsAck, 0), 0, 0, 0, 0, 0, 0))
		}, http2.ErrCodeFrameSize},
		{"ENABLE_PUSH of 2", func(c *rawPeer) { c.settings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }, http2.ErrCodeProtocol},
		{"MAX_FRAME_SIZE too small", func(c *rawPeer) { c.settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100}) }, http2.ErrCodeProtocol},
		{"PING of seven bytes", func(c *rawPeer) { c.raw(append(appendFrameHeader(nil, 7, http2.FramePing, 0, 0), make([]byte, 7)...)) }, http2.ErrCodeFrameSize},
		{"PING on a stream", func(c *rawPeer) { c.raw(append(appendFrameHeader(nil, 8, http2.FramePing, 0, 1), make([]byte, 8)...)) }, http2.ErrCodeProtocol},
		{"GOAWAY too short", func(c *rawPeer) {
			c.raw(append(appendFrameHeader(nil, 4, http2.FrameGoAway, 0, 0), make([]byte, 4)...))
		}, http2.ErrCodeFrameSize},
		{"frame too large", func(c *rawPeer) { c.raw(appendFrameHeader(nil, maxFrameLen+1, http2.FrameData, 0, 1)) }, http2.ErrCodeFrameSize},
		{"padding beyond the frame", func(c *rawPeer) {
			c.request(1, false)
			c.raw(append(appendFrameHeader(nil, 2, http2.FrameData, http2.FlagDataPadded, 1), 5, 0))
		}, http2.ErrCodeProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, Config{}, up.addr, nil)
			bystander := dialRaw(t, g.addr)
			cl := dialRaw(t, g.addr)
			c.send(cl)
			cl.toldOff(c.code)
			if got := bystander.statusOf(1); got != "0" {
				t.Errorf("another client's call: status %s", got)
			}
		})
	}
}

func TestUnknownFramesAreIgnored(t *testing.T) {
	up := listenRaw(t, answering)
	g := newRig(t, Config{}, up.addr, nil)
	c := dialRaw(t, g.addr)
	c.raw(append(appendFrameHeader(nil, 3, 0xbe, 0xff, 0), 1, 2, 3))
	c.write(func(fr *http2.Framer) error { return fr.WritePriority(9, http2.PriorityParam{StreamDep: 3}) })
	c.settings(http2.Setting{ID: 0x99, Val: 7})
	if got := c.statusOf(1); got != "0" {
		t.Errorf("status %s", got)
	}
}

func TestParseTimeout(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"1H", time.Hour, true}, {"2M", 2 * time.Minute, true}, {"3S", 3 * time.Second, true},
		{"4m", 4 * time.Millisecond, true}, {"5u", 5 * time.Microsecond, true}, {"99999999n", 99999999, true},
		{"0n", 0, true}, {"99999999H", maxTimeout, true}, {"00000001S", time.Second, true},
		{"", 0, false}, {"1", 0, false}, {"S", 0, false}, {"1s", 0, false}, {"-1S", 0, false}, {"+1S", 0, false},
		{"123456789n", 0, false}, {"1.5S", 0, false}, {" 1S", 0, false}, {"1SS", 0, false},
	} {
		if got, ok := parseTimeout(c.in); got != c.want || ok != c.ok {
			t.Errorf("parseTimeout(%q) = %v, %v; want %v, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

// A timeout that is passed on is never shorter than what remains, and hardly
// longer.
func TestFormattedTimeoutsRoundUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(0, 62).Draw(t, "bits")
		d := min(time.Duration(rapid.Int64Range(0, 1<<bits).Draw(t, "d")), maxTimeout)
		s := string(appendTimeout(nil, d))
		if len(s) < 2 || len(s) > 9 {
			t.Fatalf("appendTimeout(%d) = %q: one to eight digits and a unit are allowed", d, s)
		}
		back, ok := parseTimeout(s)
		if !ok || back < d {
			t.Fatalf("appendTimeout(%d) = %q, which is %d", d, s, back)
		}
		if float64(back-d) > 1e-4*float64(d) {
			t.Fatalf("appendTimeout(%d) = %q, which is %d: too coarse", d, s, back)
		}
	})
}

func TestFormatTimeoutOfNothing(t *testing.T) {
	for _, d := range []time.Duration{0, -1, -time.Hour} {
		if got := string(appendTimeout(nil, d)); got != "0n" {
			t.Errorf("appendTimeout(%v) = %q, want 0n", d, got)
		}
	}
}

// decodeMessage undoes percent-encoding as gRPC's protocol says (PROTOCOL-HTTP2,
// Status-Message).
func decodeMessage(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '%' && i+2 < len(s) {
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err == nil {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func TestMessagesSurvivePercentEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		msg := rapid.String().Draw(t, "message")
		s := percentEncode(msg)
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' {
				t.Fatalf("%q holds the byte %#x", s, s[i])
			}
		}
		if got := decodeMessage(s); got != msg {
			t.Fatalf("%q became %q", msg, got)
		}
	})
}

// Invalid UTF-8 becomes the replacement character; it is never sent raw.
func TestInvalidUTF8InMessages(t *testing.T) {
	if got := percentEncode("a\xffb"); got != "a%EF%BF%BDb" {
		t.Errorf("got %q", got)
	}
}

// The header list is measured as RFC 9113, 6.5.2 says, and the decoder's state is
// right whatever was discarded.
func TestFieldListLimits(t *testing.T) {
	l := fieldList{maxBytes: 100, maxFields: 2}
	l.add(hpack.HeaderField{Name: "a", Value: "b"}) // 34
	l.add(hpack.HeaderField{Name: "c", Value: "d"}) // 68
	if l.tooBig {
		t.Error("68 of 100 bytes and 2 of 2 fields are too big")
	}
	l.add(hpack.HeaderField{Name: "", Value: ""})
	if !l.tooBig || len(l.fields) != 2 {
		t.Errorf("a third field of two: too big %v, %d fields kept", l.tooBig, len(l.fields))
	}
	l.reset()
	l.add(hpack.HeaderField{Name: "a", Value: strings.Repeat("x", 68)})
	if !l.tooBig {
		t.Error("101 of 100 bytes are not too big")
	}
}

// FuzzRequest feeds foreign header blocks to a connection.
func FuzzRequest(f *testing.F) {
	var enc encBuffer
	e := hpack.NewEncoder(&enc)
	for _, h := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":path", Value: "/a"}, {Name: ":scheme", Value: "http"}, {Name: "x", Value: "y"}} {
		_ = e.WriteField(h)
	}
	f.Add(enc.b)
	f.Add([]byte{0x82, 0x40, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l fieldList
		l.maxBytes, l.maxFields = 1000, 20
		d := hpack.NewDecoder(4096, l.add)
		if _, err := d.Write(b); err != nil {
			return
		}
		if d.Close() != nil {
			return
		}
		r, problem := parseRequest(&l)
		if problem == "" && (r.path == "" || r.contentLength < -1 || r.timeout < 0) {
			t.Fatalf("accepted %+v", r)
		}
		if a, problem := parseAnswer(&l); problem == "" && a.httpStatus > 999 {
			t.Fatalf("accepted %+v", a)
		}
	})
}
