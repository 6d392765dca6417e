package e2e

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"sluice/gateway"
	"sluice/sample"
)

// presented returns the serial number of the certificate that a new connection gets.
func presented(t testing.TB, addr string, ca *authority) (int64, error) {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.pool, ServerName: serverName, NextProtos: []string{"h2"}})
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	return nc.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestCertificatesAreReloaded(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	first := ca.issue(t, certFile, keyFile)
	v1 := startBackend(t, "v1")
	g := startGateway(t, routeTo(v1.addr), func(c *gateway.Config) { c.TLSCert, c.TLSKey = certFile, keyFile })

	old := dial(t, g.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ca.pool, ServerName: serverName})))
	l := startLoad(model, 2, old)
	if got, err := presented(t, g.addr, ca); err != nil || got != first {
		t.Fatalf("at first: got certificate %d, %v; want %d", got, err, first)
	}

	second := ca.issue(t, certFile, keyFile)
	soon(t, g.addr, ca, second)

	writeFile(t, certFile, "no certificate")
	eventually(t, 10*time.Second, "the log says what is wrong", func() error {
		if got, err := presented(t, g.addr, ca); err != nil || got != second {
			t.Fatalf("with a broken file: got certificate %d, %v; want the last good one, %d", got, err, second)
		}
		return g.log.has("level=ERROR", "cannot be reloaded, the last good one stays", "tls: failed to find any PEM data")
	})

	third := ca.issue(t, certFile, keyFile)
	soon(t, g.addr, ca, third)

	var p peer.Peer
	if a := infer(within(t, 10*time.Second), old, sample.NewRequest(model, heldBack()[0].Measurements), grpc.Peer(&p)); a.err != nil {
		t.Fatalf("on the first connection: %v", a.err)
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); !ok || info.State.PeerCertificates[0].SerialNumber.Int64() != first {
		t.Errorf("the first client has another connection by now: %v", p.AuthInfo)
	}
	t.Logf("%d calls on the first connection meanwhile", l.stop(t))
}

// soon waits until new connections get the certificate. Files are looked at once
// a second at most.
func soon(t *testing.T, addr string, ca *authority, want int64) {
	t.Helper()
	eventually(t, 10*time.Second, "new connections get the new certificate", func() error {
		got, err := presented(t, addr, ca)
		if err == nil && got != want {
			err = fmt.Errorf("got certificate %d, want %d", got, want)
		}
		return err
	})
}

// The gateway checks a model server's certificate, and reads the authority's again.
func TestServersCertificateIsChecked(t *testing.T) {
	right, wrong := newAuthority(t), newAuthority(t)
	certFile, keyFile := right.files(t)
	creds, err := credentials.NewServerTLSFromFile(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	v1 := startBackend(t, "v1", grpc.Creds(creds))
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	copyFile(t, wrong.file, caFile)
	g := startGateway(t, fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, endpoints: [%q], tls: {ca_file: %q, server_name: %s}}]
    weights: {v1: 1}
`, model, v1.addr, caFile, serverName))
	cc := dial(t, g.addr)
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	checkRefusal(t, infer(within(t, 10*time.Second), cc, req).err, codes.Unavailable, "UPSTREAM_UNREACHABLE", "certificate signed by unknown authority")
	copyFile(t, right.file, caFile)
	eventually(t, 20*time.Second, "the right authority is trusted", func() error {
		return infer(within(t, 10*time.Second), cc, req).err
	})
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, string(text))
}
