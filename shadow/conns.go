package shadow

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// writePatience is how long a connection may take nothing of what is written to it.
// Then it is closed, and what waited in it is free: calls end by their deadlines, but
// what they left to write would pile up behind a server that hangs.
const writePatience = 3 * time.Second

// keptFor is how long after the end of a call its buffer may still be written: until
// the connection has either gone on or been closed. grpc-go does not give back every
// buffer that it drops, so nothing is kept longer.
const keptFor = 2 * writePatience

// conns are connections by address, one each. Those that are not asked for any more
// are closed. Safe for concurrent use.
type conns struct {
	mu     sync.Mutex
	byAddr map[string]*conn
	closed bool
	swept  time.Time
}

type conn struct {
	*grpc.ClientConn
	used time.Time

	mu    sync.Mutex
	ended uint64                 // connections to the address
	kept  map[*lease]*time.Timer // of calls that are over, with buffers that it may still write
}

// endings is how many connections to the address have ended.
func (c *conn) endings() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// keep takes a lease for as long as its buffer may be written. It reports false if a
// connection has ended since there were so many endings.
func (c *conn) keep(l *lease, endings uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != endings {
		return false
	}
	c.kept[l] = time.AfterFunc(keptFor, func() {
		if c.forget(l) {
			l.mirror.free(l.size)
		}
	})
	return true
}

// forget gives a lease back, if it has not been freed with the connection.
func (c *conn) forget(l *lease) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	timer, ok := c.kept[l]
	if ok {
		timer.Stop()
		delete(c.kept, l)
	}
	return ok
}

// broken is told when a connection to the address has ended: whatever waited to be
// written is free.
func (c *conn) broken() {
	c.mu.Lock()
	c.ended++
	kept := c.kept
	c.kept = make(map[*lease]*time.Timer)
	c.mu.Unlock()
	for l, timer := range kept {
		timer.Stop()
		l.mirror.free(l.size)
	}
}

// unusedFor is how long a connection is kept for nobody.
const unusedFor = 5 * time.Minute

func newConns() *conns { return &conns{byAddr: make(map[string]*conn), swept: time.Now()} }

// to returns the connection to an endpoint.
func (p *conns) to(e Endpoint, now time.Time) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, grpc.ErrClientConnClosing //nolint:staticcheck // its successor is a status, and this one is never looked at
	}
	p.sweep(now)
	c := p.byAddr[e.Addr]
	if c == nil {
		c = &conn{kept: make(map[*lease]*time.Timer)}
		var err error
		if c.ClientConn, err = dial(e, c.broken); err != nil {
			return nil, err
		}
		p.byAddr[e.Addr] = c
	}
	c.used = now
	return c, nil
}

// sweep closes what has not been used for long; p.mu is held.
func (p *conns) sweep(now time.Time) {
	if now.Sub(p.swept) < unusedFor {
		return
	}
	p.swept = now
	for addr, c := range p.byAddr {
		if now.Sub(c.used) > unusedFor {
			delete(p.byAddr, addr)
			_ = c.Close()
		}
	}
}

func (p *conns) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.byAddr {
		_ = c.Close()
	}
}

// dial makes a connection that connects when it is needed. ended is told when one has
// ended.
func dial(e Endpoint, ended func()) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if e.TLS != nil {
		creds = freshTLS{e.TLS}
	}
	return grpc.NewClient("passthrough:///"+e.Addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return &impatient{Conn: nc, ended: ended}, nil
		}),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})),
		// Windows that grow by themselves would be memory that nobody has counted.
		grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithUserAgent("sluice-shadow"))
}

// Receive windows in bytes.
const (
	streamWindow = 64 << 10
	connWindow   = 1 << 20
)

// impatient is a connection that breaks when the other side reads nothing.
type impatient struct {
	net.Conn
	once  sync.Once
	ended func()
}

func (c *impatient) Write(b []byte) (int, error) {
	err := c.SetWriteDeadline(time.Now().Add(writePatience))
	n := 0
	if err == nil {
		n, err = c.Conn.Write(b)
	}
	if err != nil {
		_ = c.Close() // grpc-go would go on reading
	}
	return n, err
}

func (c *impatient) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.ended)
	return err
}

// freshTLS asks for its configuration with every new connection, so that certificates
// can change. The server is known by its certificate; the authority of a call is a
// name that callers use, with a suffix, and proves nothing.
type freshTLS struct {
	config func() (*tls.Config, error)
}

func (f freshTLS) ClientHandshake(ctx context.Context, authority string, nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	c, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, nc)
	if err != nil {
		return nil, nil, err
	}
	return c, anyAuthority{info}, nil
}

func (f freshTLS) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(nil).ServerHandshake(nc) // never a server
}

func (f freshTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (f freshTLS) Clone() credentials.TransportCredentials { return f }

// OverrideServerName is part of an interface; the configuration names the server.
func (f freshTLS) OverrideServerName(string) error { return nil }

type anyAuthority struct{ credentials.AuthInfo }

func (anyAuthority) ValidateAuthority(string) error { return nil }
