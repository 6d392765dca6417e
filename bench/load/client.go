package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
)

const (
	// dialPatience bounds one attempt to connect, up to the server's first frame.
	dialPatience = 10 * time.Second
	// dialsAtOnce keeps a thousand TLS handshakes from being one burst.
	dialsAtOnce = 64
	// redialPause is between two attempts to replace a lost connection.
	redialPause = 100 * time.Millisecond
)

// Client holds connections that are ready to make calls. One run at a time.
type Client struct {
	config     Config
	fields     []hpack.HeaderField
	epoch      time.Time
	conns      []*conn
	reconnects atomic.Uint64

	stop    context.CancelFunc
	running sync.WaitGroup
}

// Dial makes all connections; ctx bounds that alone. The caller has to close the client.
func Dial(ctx context.Context, config Config) (*Client, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Client{config: config, epoch: time.Now()}
	c.fields = c.requestFields()
	for range config.Connections {
		c.conns = append(c.conns, newConn(c))
	}
	sockets := make([]net.Conn, len(c.conns))
	group, dialing := errgroup.WithContext(ctx)
	group.SetLimit(dialsAtOnce)
	for i, k := range c.conns {
		group.Go(func() (err error) {
			sockets[i], err = c.connect(dialing, k)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		for _, s := range sockets {
			if s != nil {
				_ = s.Close() // nothing was sent that could be lost
			}
		}
		return nil, err
	}
	living, stop := context.WithCancel(context.Background())
	c.stop = stop
	for i, k := range c.conns {
		c.running.Go(func() { c.keep(living, k, sockets[i]) })
	}
	return c, nil
}

// Close closes all connections.
func (c *Client) Close() {
	c.stop()
	c.running.Wait()
}

// now is the time since the client was made.
func (c *Client) now() time.Duration { return time.Since(c.epoch) }

func (c *Client) requestFields() []hpack.HeaderField {
	scheme := "http"
	if c.config.TLS != nil {
		scheme = "https"
	}
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: c.config.Method},
		{Name: ":authority", Value: c.config.Address},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "sluice-bench"},
		{Name: "te", Value: "trailers"},
	}
	for _, m := range c.config.Metadata {
		fields = append(fields, hpack.HeaderField{Name: m[0], Value: m[1]})
	}
	return fields
}

// connect makes a socket for k and greets until the server has.
func (c *Client) connect(ctx context.Context, k *conn) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", c.config.Address)
	if err != nil {
		return nil, err
	}
	raw := socket
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			err = errors.Join(fmt.Errorf("connect to %s: %w", c.config.Address, err), ignoreClosed(socket.Close()))
		}
	}()
	if c.config.TLS != nil {
		if socket, err = encrypt(ctx, socket, c.config); err != nil {
			return nil, err
		}
	}
	if err := k.attach(socket); err != nil {
		return nil, err
	}
	for !k.greeted {
		if _, err := k.read(socket); err != nil {
			return nil, fmt.Errorf("no HTTP/2: %w", err)
		}
	}
	if k.maxStreams < uint32(c.config.Streams) {
		return nil, fmt.Errorf("it takes %d calls per connection at once, not %d", k.maxStreams, c.config.Streams)
	}
	return socket, nil
}

// ignoreClosed is about closing what may be closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// encrypt makes a TLS connection of a socket.
func encrypt(ctx context.Context, socket net.Conn, config Config) (net.Conn, error) {
	settings := config.TLS.Clone()
	settings.NextProtos = []string{"h2"}
	if settings.ServerName == "" {
		host, _, err := net.SplitHostPort(config.Address)
		if err != nil {
			return socket, err
		}
		settings.ServerName = host
	}
	secure := tls.Client(socket, settings)
	if err := secure.HandshakeContext(ctx); err != nil {
		return socket, err
	}
	if got := secure.ConnectionState().NegotiatedProtocol; got != "h2" {
		return socket, fmt.Errorf("the server chose protocol %q, want h2", got)
	}
	return secure, nil
}

// keep serves a connection and replaces it when it is lost, until ctx ends.
func (c *Client) keep(ctx context.Context, k *conn, socket net.Conn) {
	for {
		k.resume(socket, c.now())
		c.serve(ctx, k, socket)
		k.lose(c.now())
		for {
			if ctx.Err() != nil {
				return
			}
			next, err := c.connect(ctx, k)
			if err == nil {
				socket = next
				c.reconnects.Add(1)
				break
			}
			select { // the calls that are due meanwhile tell of it
			case <-ctx.Done():
			case <-time.After(redialPause):
			}
		}
	}
}

// serve reads and writes until the connection is lost or ctx ends.
func (c *Client) serve(ctx context.Context, k *conn, socket net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = socket.Close() }) // ends the reader, or comes after it
	var writer sync.WaitGroup
	writer.Go(func() { k.write(ctx, socket) })
	for {
		now, err := k.read(socket)
		if err != nil {
			break
		}
		k.fill(now)
	}
	cancel()
	writer.Wait()
}
