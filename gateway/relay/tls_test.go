package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/test/bufconn"
)

// testTLS makes a server's and a client's configuration that trust each other.
func testTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	return newTLS()
}

func newTLS() (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"relay.test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}}
	client = &tls.Config{RootCAs: roots, ServerName: "relay.test", NextProtos: []string{"h2"}}
	return server, client
}

// dialBoth connects a gRPC client to whichever of the addresses works.
func dialBoth(t testing.TB, addrs ...string) *grpc.ClientConn {
	t.Helper()
	r := manual.NewBuilderWithScheme("relaytest")
	var state resolver.State
	for _, a := range addrs {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	r.InitialState(state)
	creds := insecure.NewCredentials()
	if hasTLS(addrs[0]) {
		_, client := suiteTLS()
		creds = credentials.NewTLS(client.Clone())
	}
	cc, err := grpc.NewClient("relaytest:///", grpc.WithResolvers(r), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// interopOver runs cases that move much, in both directions.
func interopOver(t *testing.T, cc *grpc.ClientConn) {
	t.Helper()
	tc := testpb.NewTestServiceClient(cc)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	interop.DoEmptyUnaryCall(ctx, tc)
	interop.DoLargeUnaryCall(ctx, tc)
	interop.DoPingPong(ctx, tc)
	interop.DoClientStreaming(ctx, tc)
	interop.DoServerStreaming(ctx, tc)
	big := &testpb.SimpleRequest{ResponseSize: 3 << 20, Payload: interop.ClientNewPayload(testpb.PayloadType_COMPRESSABLE, 3<<20)}
	for range 5 {
		r, err := tc.UnaryCall(ctx, big)
		if err != nil || len(r.Payload.Body) != 3<<20 {
			t.Fatalf("large call: %v", err)
		}
	}
}

func TestTLSOnBothSides(t *testing.T) {
	server, client := testTLS(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(server.Clone())))
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	g := newRigTo(t, Config{TLS: server}, UpstreamConfig{Addr: ln.Addr().String(), TLS: func() (*tls.Config, error) { return client, nil }}, nil)
	cc, err := grpc.NewClient(g.addr, grpc.WithTransportCredentials(credentials.NewTLS(client.Clone())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	interopOver(t, cc)
	waitFor(t, "all calls to be over", func() bool { return g.Calls() == 0 })
	g.windows()
}

func TestInMemoryUpstream(t *testing.T) {
	ln := bufconn.Listen(64 << 10)
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	g := newRigTo(t, Config{}, UpstreamConfig{Addr: "local",
		Dial: func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }}, nil)
	interopOver(t, dialBoth(t, g.addr))
	waitFor(t, "all calls to be over", func() bool { return g.Calls() == 0 })
	g.windows()
}

// net.Pipe has no buffer at all: every write waits for its reader.
func TestUnbufferedUpstream(t *testing.T) {
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	g := newRigTo(t, Config{}, UpstreamConfig{Addr: "pipe", Dial: ln.dial}, nil)
	interopOver(t, dialBoth(t, g.addr))
}

// pipeListener listens for net.Pipe connections.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-ctx.Done():
	case <-l.closed:
	}
	return nil, net.ErrClosed
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestTLSHandshakeTimeout(t *testing.T) {
	up := listenRaw(t, answering)
	server, _ := testTLS(t)
	g := newRig(t, Config{TLS: server, HandshakeTimeout: 200 * time.Millisecond, MaxHandshakes: 2}, up.addr, nil)
	for range 4 { // more than may shake hands at once
		nc, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		if _, err := nc.Read(make([]byte, 1)); err == nil {
			t.Error("the relay spoke first")
		}
	}
	waitFor(t, "the connections to be dropped", func() bool { return g.Stats().Conns == 0 })
}

func TestTLSWithoutH2IsRefused(t *testing.T) {
	up := listenRaw(t, answering)
	server, client := testTLS(t)
	server.NextProtos = []string{"h2", "http/1.1"}
	g := newRig(t, Config{TLS: server}, up.addr, nil)
	client.NextProtos = []string{"http/1.1"}
	nc, err := tls.Dial("tcp", g.addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetReadDeadline(time.Now().Add(patience))
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from a connection without h2", n)
	}
}

// A TLS client that does not read holds up nobody, and gets everything once it
// does.
func TestTLSClientThatStopsReading(t *testing.T) {
	server, client := testTLS(t)
	up := listenRaw(t, nil)
	p := &recorder{}
	other := &Dispatch{}
	p.opened = func(c *Call) Verdict {
		if c.Path() == "/test.Service/Method" {
			return To(other)
		}
		return To(&p.dispatch)
	}
	p.prepare = func(r *Relay) { other.Upstream = r.NewUpstream(UpstreamConfig{Addr: up.addr}) }
	g := newRig(t, Config{TLS: server}, startInterop(t), p)
	nc, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := newRawPeer(t, tls.Client(nc, client))
	c.credit = false
	c.raw([]byte(http2.ClientPreface))
	c.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	c.windowUpdate(0, maxWindow-initialWindow)
	c.start()
	c.sync()
	c.request(1, true)
	s := up.accept()
	s.next("the call", isHeaders(1))
	c.pause(true)
	s.answerHead(1)
	const total = 12 << 20
	go func() {
		sent := 0
		for sent < total {
			n := min(maxFrameLen, total-sent)
			if !s.allow(1, n) {
				return
			}
			s.data(1, make([]byte, n), false)
			sent += n
		}
		s.trailers(1, "0")
	}()
	cc, err := grpc.NewClient(g.addr, grpc.WithTransportCredentials(credentials.NewTLS(client.Clone())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	interopOver(t, cc)
	c.pause(false)
	c.body(1, total)
	c.next("trailers", isTrailers(1))
}
