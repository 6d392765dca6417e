package e2e

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sluice/sample"
)

// rawClient speaks HTTP/2 frame by frame, so that it can say what no gRPC client would.
type rawClient struct {
	t      *testing.T
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	next   uint32
}

func newRawClient(t *testing.T, addr string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c := &rawClient{t: t, framer: http2.NewFramer(nc, nc), next: 1}
	c.enc = hpack.NewEncoder(&c.block)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// outcome is how the server ended a stream: by an answer's last fields, or by a reset.
type outcome struct {
	fields map[string]string
	reset  http2.ErrCode
}

// do sends a request of the given fields and body and waits for its end.
func (c *rawClient) do(fields []string, body []byte) outcome {
	c.t.Helper()
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	id := c.next
	c.next += 2
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: body == nil,
	}); err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		if err := c.framer.WriteData(id, true, body); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.await(id)
}

func (c *rawClient) await(id uint32) outcome {
	c.t.Helper()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			c.t.Fatalf("stream %d: %v", id, err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == id && f.StreamEnded() {
				o := outcome{fields: map[string]string{}}
				for _, field := range f.Fields {
					o.fields[field.Name] = field.Value
				}
				return o
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id && f.ErrCode != http2.ErrCodeNo {
				return outcome{reset: f.ErrCode}
			}
		case *http2.GoAwayFrame:
			c.t.Fatalf("stream %d: GOAWAY %v %q", id, f.ErrCode, f.DebugData())
		}
	}
}

const inferPath = "/" + inferenceService + "/ModelInfer"

// grpcFields are the fields of a call of ModelInfer, changed: a name followed by
// its value, which replaces the usual one; an empty value removes it.
func grpcFields(change ...string) []string {
	fields := []string{":method", "POST", ":scheme", "http", ":path", inferPath, ":authority", "test",
		"content-type", "application/grpc", "te", "trailers"}
	for i := 0; i < len(change); i += 2 {
		found := false
		for j := 0; j < len(fields); j += 2 {
			if fields[j] != change[i] {
				continue
			}
			found = true
			if fields[j+1] = change[i+1]; change[i+1] == "" {
				fields = append(fields[:j], fields[j+2:]...)
			}
			break
		}
		if !found {
			fields = append(fields, change[i], change[i+1])
		}
	}
	return fields
}

// encode returns the first header block of a connection.
func encode(fields []string) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a bytes.Buffer never fails
	}
	return block.Bytes()
}

// message puts a gRPC message's prefix before it.
func message(flag byte, body string) []byte {
	b := append([]byte{flag}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	return append(b, body...)
}

func TestMalformedCallsEndClearlyAndAlone(t *testing.T) {
	v1 := startBackend(t, "v1")
	g := startGateway(t, routeTo(v1.addr))
	cc := dial(t, g.addr)
	// All of them on one connection: none may cost the others anything.
	raw := newRawClient(t, g.addr)
	const (
		invalidArgument = "3"
		unimplemented   = "12"
		internal        = "13"
		exhausted       = "8"
	)
	for _, c := range []struct {
		name   string
		fields []string
		body   []byte
		status string // grpc-status
		text   string // in grpc-message
		http   string
		reset  http2.ErrCode
	}{
		{"protobuf that is none", grpcFields(), message(0, "\xff\xff\xff\xff"), invalidArgument, "message", "200", 0},
		{"a field longer than its message", grpcFields(), message(0, "\x0a\x7fpenguins"), invalidArgument, "message", "200", 0},
		{"a message cut off", grpcFields(), message(0, "\x0a\x08penguins")[:9], invalidArgument, "missing", "200", 0},
		{"a prefix cut off", grpcFields(), []byte{0, 0}, invalidArgument, "missing", "200", 0},
		{"no message", grpcFields(), nil, invalidArgument, "names no model", "200", 0},
		{"a compressed flag of 7", grpcFields(), message(7, "\x0a\x08penguins"), internal, "flag 7", "200", 0},
		{"compressed without a codec", grpcFields(), message(1, "\x0a\x08penguins"), internal, "grpc-encoding", "200", 0},
		{"gzip that is none", grpcFields("grpc-encoding", "gzip"), message(1, "penguins"), invalidArgument, "gzip", "200", 0},
		{"an unknown codec", grpcFields("grpc-encoding", "zpaq"), message(1, "penguins"), unimplemented, "zpaq", "200", 0},
		{"a message above the limit", grpcFields(), []byte{0, 0xff, 0xff, 0xff, 0xff, 0x0a}, exhausted, "at most", "200", 0},
		{"a path without a method", grpcFields(":path", "/penguins"), nil, unimplemented, "/package.Service/Method", "200", 0},
		{"a path of dots", grpcFields(":path", "/../inference.GRPCInferenceService/ModelInfer"), message(0, "\x0a\x08penguins"), unimplemented, "no route lists", "200", 0},
		{"two models in metadata", append(grpcFields("sluice-model", "a"), "sluice-model", "b"), nil, invalidArgument, "sluice-model", "200", 0},
		{"GET", grpcFields(":method", "GET"), nil, internal, "POST", "405", 0},
		{"another content-type", grpcFields("content-type", "application/json"), nil, internal, "application/grpc", "415", 0},
		{"no content-type", grpcFields("content-type", ""), nil, internal, "application/grpc", "415", 0},
		{"headers above the limit", grpcFields("x-filler", strings.Repeat("a", 17<<10)), nil, exhausted, "header", "431", 0},
		{"a hop-by-hop field", grpcFields("connection", "close"), nil, "", "", "", http2.ErrCodeProtocol},
		{"te that is not trailers", grpcFields("te", "gzip"), nil, "", "", "", http2.ErrCodeProtocol},
		{"an upper-case name", grpcFields("X-User", "a"), nil, "", "", "", http2.ErrCodeProtocol},
		{"an unknown pseudo-field", append([]string{":protocol", "websocket"}, grpcFields()...), nil, "", "", "", http2.ErrCodeProtocol},
		{"a late pseudo-field", append(grpcFields(), ":path", "/a/b"), nil, "", "", "", http2.ErrCodeProtocol},
		{"no path", grpcFields(":path", ""), nil, "", "", "", http2.ErrCodeProtocol},
		{"a wrong content-length", grpcFields("content-length", "3"), message(0, "\x0a\x08penguins"), "", "", "", http2.ErrCodeProtocol},
		{"a timeout that is none", grpcFields("grpc-timeout", "soon"), nil, internal, "grpc-timeout", "400", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw.t = t
			got := raw.do(c.fields, c.body)
			if got.reset != c.reset || got.fields["grpc-status"] != c.status || got.fields[":status"] != c.http {
				t.Errorf("got HTTP status %q, grpc-status %q, reset %v; want %q, %q, %v",
					got.fields[":status"], got.fields["grpc-status"], got.reset, c.http, c.status, c.reset)
			}
			if !strings.Contains(got.fields["grpc-message"], c.text) {
				t.Errorf("grpc-message: got %q, want %q in it", got.fields["grpc-message"], c.text)
			}
			if a := infer(within(t, 5*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
				t.Errorf("another client's call after it: %v", a.err)
			}
		})
	}
}
