package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"sluice/loopback"
)

// certificate makes one for 127.0.0.1, and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	s := serve(t, echo, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	config := configured(t, s)
	config.TLS = &tls.Config{RootCAs: pool}
	if r := run(t, config, Plan{For: time.Minute, Requests: 200}); r.OK != 200 {
		t.Errorf("%d of 200 calls, %v", r.OK, r.Failures)
	}
	config.TLS = &tls.Config{}
	var unknown x509.UnknownAuthorityError
	if _, err := Dial(t.Context(), config); !errors.As(err, &unknown) {
		t.Errorf("Dial without the authority = %v, want it unknown", err)
	}
}

func TestNobodyThereIsAnErrorThatSaysWhere(t *testing.T) {
	address, err := loopback.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	config := configured(t, &server{address: address})
	if _, err := Dial(t.Context(), config); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("Dial = %v, want an error that names %s", err, address)
	}
}

func TestAServerThatSpeaksNoHTTP2IsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			socket, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = socket.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			defer socket.Close()
		}
	}()
	config := configured(t, &server{address: listener.Addr().String()})
	if _, err := Dial(t.Context(), config); err == nil || !strings.Contains(err.Error(), "no HTTP/2") {
		t.Errorf("Dial = %v, want an error that says so", err)
	}
}

func TestFewerStreamsThanAskedForAreAnError(t *testing.T) {
	s := serve(t, echo, grpc.MaxConcurrentStreams(3))
	if _, err := Dial(t.Context(), configured(t, s)); err == nil || !strings.Contains(err.Error(), "takes 3 calls per connection at once, not 4") {
		t.Errorf("Dial = %v, want both numbers", err)
	}
}

// TestConnectionsThatGoAwayAreReplaced has a server that ends each connection after a
// while: no call may be lost by that.
func TestConnectionsThatGoAwayAreReplaced(t *testing.T) {
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		sleep(stream.Context(), time.Millisecond)
		return echo(n, stream)
	}, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 100 * time.Millisecond, MaxConnectionAgeGrace: time.Minute}))
	for name, rate := range map[string]float64{"closed": 0, "open": 1000} {
		r := run(t, configured(t, s), Plan{Rate: rate, For: time.Second})
		delete(r.Failures, outcomeNotBegun) // eight streams may be too few for the rate, on a busy machine
		if len(r.Failures) > 0 || r.OK == 0 || r.Reconnects == 0 {
			t.Errorf("%s: %d answered, %v, %d new connections, want no failure", name, r.OK, r.Failures, r.Reconnects)
		}
	}
}

func TestLostConnectionsAreReplaced(t *testing.T) {
	var sockets []net.Conn
	first := make(chan net.Conn, 8)
	s := serve(t, func(n int64, stream grpc.ServerStream) error {
		if n == 50 {
			for len(first) > 0 {
				sockets = append(sockets, <-first)
			}
			for _, k := range sockets {
				k.Close()
			}
			return nil
		}
		return echo(n, stream)
	})
	config := configured(t, &server{address: forward(t, s.address, first)})
	r := run(t, config, Plan{For: time.Minute, Requests: 200})
	if r.Failures[outcomeLost] == 0 || r.OK < 180 || r.Calls() != 200 || r.Reconnects != 2 {
		t.Errorf("%d answered, %v, %d new connections, want some lost, the others answered, 2", r.OK, r.Failures, r.Reconnects)
	}
}

// forward listens, tells of the connections it takes and passes their bytes on.
func forward(t *testing.T, to string, taken chan<- net.Conn) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			down, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				t.Error(err)
				return
			}
			taken <- down
			context.AfterFunc(ctx, func() { down.Close(); up.Close() })
			go pipe(up, down)
			go pipe(down, up)
		}
	}()
	t.Cleanup(func() {
		cancel()
		listener.Close()
		<-ended
	})
	return listener.Addr().String()
}

// pipe copies until one of the two ends, and ends both.
func pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
