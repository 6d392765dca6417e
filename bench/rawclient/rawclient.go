// Package rawclient is an HTTP/2 client that reads only when told to. Ordinary
// clients read all the time; what a proxy does for those that do not can only
// be seen with one that behaves badly on purpose.
package rawclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// widestWindow is the largest flow-control window HTTP/2 knows, in bytes
	// (RFC 9113, section 6.9.1). With it, nothing but the socket holds a peer
	// back from sending.
	widestWindow = 1<<31 - 1

	// initialWindow is the window a connection starts with (RFC 9113, 6.9.2).
	initialWindow = 65535

	// MaxBody is the largest request body in bytes: one frame of the size every
	// server accepts.
	MaxBody = 16384
)

// Conn is one client connection. Its methods must not be called concurrently.
type Conn struct {
	conn    net.Conn
	scheme  string
	out     *bufio.Writer
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
}

// Dial connects, with TLS unless security is nil, and promises the peer the widest windows. The connection closes
// by [Conn.Close] only; ctx bounds the dialling. With TLS the handshake reads, and may find
// records that come right after it.
func Dial(ctx context.Context, address string, security *tls.Config) (*Conn, error) {
	conn, err := connect(ctx, address, security)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if security != nil {
		scheme = "https"
	}
	c := &Conn{conn: conn, scheme: scheme, out: bufio.NewWriter(conn), next: 1}
	c.framer = http2.NewFramer(c.out, bufio.NewReader(conn))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	_, err = c.out.WriteString(http2.ClientPreface)
	err = errors.Join(err,
		c.framer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: widestWindow}),
		c.framer.WriteWindowUpdate(0, widestWindow-initialWindow),
		c.out.Flush())
	if err != nil {
		return nil, fmt.Errorf("greet %s: %w", address, errors.Join(err, conn.Close()))
	}
	return c, nil
}

func connect(ctx context.Context, address string, security *tls.Config) (net.Conn, error) {
	if security == nil {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", address)
	}
	security = security.Clone()
	security.NextProtos = []string{http2.NextProtoTLS}
	dialer := tls.Dialer{Config: security}
	return dialer.DialContext(ctx, "tcp", address)
}

// SetDeadline bounds all later reads and writes.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Close closes the connection without a goodbye.
func (c *Conn) Close() error { return c.conn.Close() }

// Open starts a call and sends its only message, framed, of at most [MaxBody]
// bytes, without waiting for anything. All messages a connection sends before
// it first reads must fit into 65,535 bytes together.
func (c *Conn) Open(method string, body []byte, metadata ...hpack.HeaderField) (stream uint32, err error) {
	if len(body) > MaxBody {
		return 0, fmt.Errorf("request body: got %d bytes, want at most %d", len(body), MaxBody)
	}
	c.block.Reset()
	fields := append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: c.scheme},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: c.conn.RemoteAddr().String()},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, metadata...)
	for _, field := range fields {
		if err := c.encoder.WriteField(field); err != nil {
			return 0, fmt.Errorf("encode %s: %w", field.Name, err)
		}
	}
	stream = c.next
	c.next += 2
	err = errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true}),
		c.framer.WriteData(stream, true, body),
		c.out.Flush())
	if err != nil {
		return 0, fmt.Errorf("open stream %d: %w", stream, err)
	}
	return stream, nil
}

// Await reads until a call has ended with grpc-status 0, and returns an error if
// it ends otherwise. Frames of other calls are dropped.
func (c *Conn) Await(stream uint32) error {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("await stream %d: %w", stream, err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = errors.Join(c.framer.WriteSettingsAck(), c.out.Flush())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = errors.Join(c.framer.WritePing(true, f.Data), c.out.Flush())
			}
		case *http2.GoAwayFrame:
			err = fmt.Errorf("GOAWAY, %v", f.ErrCode)
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				err = fmt.Errorf("RST_STREAM, %v", f.ErrCode)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream && f.StreamEnded() {
				return c.ended(f)
			}
		}
		if err != nil {
			return fmt.Errorf("await stream %d: %w", stream, err)
		}
	}
}

// ended judges a call by its trailers.
func (c *Conn) ended(trailers *http2.MetaHeadersFrame) error {
	for _, field := range trailers.Fields {
		if field.Name == "grpc-status" && field.Value == "0" {
			return nil
		}
	}
	return fmt.Errorf("stream %d ended without grpc-status 0: %v", trailers.StreamID, trailers.Fields)
}
