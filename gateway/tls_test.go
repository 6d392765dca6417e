package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/routing"
)

// authority signs certificates for fraud.test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().AddDate(50, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate with its key, PEM.
func (a *authority) issue(t testing.TB, serial int64) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"fraud.test"}, NotAfter: time.Now().AddDate(50, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// write replaces a file, so that it is seen to have changed.
func write(t testing.TB, file string, content []byte) {
	t.Helper()
	before, err := os.Stat(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		later := before.ModTime().Add(time.Second)
		if err := os.Chtimes(file, later, later); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	write(t, file, []byte("1"))
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		reads := 0
		f := &watched[string]{
			what: "the value", log: slog.New(slog.NewTextHandler(log, nil)), files: []string{file},
			read: func() (string, error) {
				reads++
				b, err := os.ReadFile(file)
				if strings.HasPrefix(string(b), "bad") {
					err = errors.New("not usable")
				}
				return string(b), err
			},
		}
		expect := func(want string) {
			t.Helper()
			if got, err := f.get(); got != want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
		expect("1")
		write(t, file, []byte("2"))
		expect("1") // looked at within the second
		time.Sleep(statEvery)
		expect("2")
		time.Sleep(time.Hour)
		expect("2")
		if reads != 2 {
			t.Errorf("read %d times, want twice: once per content", reads)
		}

		write(t, file, []byte("bad"))
		for range 5 {
			time.Sleep(statEvery)
			expect("2")
		}
		if got := strings.Count(log.String(), "last good one stays"); got != 1 {
			t.Errorf("said %d times, want once:\n%s", got, log)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(statEvery)
		expect("2")
		write(t, file, []byte("3"))
		time.Sleep(statEvery)
		expect("3")
		if got := strings.Count(log.String(), "the value is reloaded"); got != 2 {
			t.Errorf("its return was said %d times, want once for 2 and once for 3:\n%s", got, log)
		}
	})
}

func TestFilesThatNeverWereUsable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	synctest.Test(t, func(t *testing.T) {
		f := &watched[string]{files: []string{file}, log: slog.New(slog.DiscardHandler), read: func() (string, error) {
			b, err := os.ReadFile(file)
			return string(b), err
		}}
		if _, err := f.get(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want that the file is missing", err)
		}
		write(t, file, []byte("1"))
		time.Sleep(statEvery)
		if got, err := f.get(); got != "1" || err != nil {
			t.Errorf("got %q, %v once the file is there", got, err)
		}
	})
}

// A certificate and its key are two files and change one after the other.
func TestServerCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	a := newAuthority(t)
	cert, key := a.issue(t, 7)
	log := slog.New(slog.DiscardHandler)
	if _, err := serverTLS(certFile, keyFile, log); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("no certificate to start with: got %v", err)
	}
	write(t, certFile, cert)
	write(t, keyFile, key)
	synctest.Test(t, func(t *testing.T) {
		cfg, err := serverTLS(certFile, keyFile, log)
		if err != nil {
			t.Fatal(err)
		}
		expect := func(serial int64) {
			t.Helper()
			c, err := cfg.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Leaf.SerialNumber.Int64(); got != serial {
				t.Errorf("got certificate %d, want %d", got, serial)
			}
		}
		expect(7)
		cert, key := a.issue(t, 8)
		write(t, certFile, cert)
		time.Sleep(statEvery)
		expect(7) // the key is not its own
		write(t, keyFile, key)
		time.Sleep(statEvery)
		expect(8)
	})
}

// handshake connects a client to a server with a certificate of a's.
func handshake(t testing.TB, client *tls.Config, a *authority, clientCA *authority) error {
	t.Helper()
	cert, key := a.issue(t, 1)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	if clientCA != nil {
		server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		server.ClientCAs.AddCert(clientCA.cert)
	}
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		defer far.Close()
		done <- tls.Server(far, server).HandshakeContext(ctx)
	}()
	err = tls.Client(near, client).HandshakeContext(ctx)
	_ = near.Close()
	if serverErr := <-done; err == nil {
		err = serverErr
	}
	return err
}

func TestUpstreamCertificatesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	settings := routing.TLS{
		CAFile: filepath.Join(dir, "ca.crt"), ServerName: "fraud.test",
		CertFile: filepath.Join(dir, "client.crt"), KeyFile: filepath.Join(dir, "client.key"),
	}
	first, second := newAuthority(t), newAuthority(t)
	replace := func(a *authority) {
		cert, key := a.issue(t, 2)
		write(t, settings.CAFile, a.pem)
		write(t, settings.CertFile, cert)
		write(t, settings.KeyFile, key)
	}
	replace(first)
	c := newClientTLS(settings, "192.0.2.1", slog.New(slog.DiscardHandler))
	expect := func(good, bad *authority) {
		t.Helper()
		cfg, err := c.config()
		if err != nil {
			t.Fatal(err)
		}
		if err := handshake(t, cfg, good, good); err != nil {
			t.Errorf("the authority in the files: %v", err)
		}
		if err := handshake(t, cfg, bad, nil); err == nil {
			t.Error("another authority's server was accepted")
		}
		if err := handshake(t, cfg, good, bad); err == nil {
			t.Error("a server that wants another authority's client accepted ours")
		}
	}
	expect(first, second)
	replace(second)
	c.files.checked = time.Time{} // a second has passed
	expect(second, first)
	write(t, settings.CAFile, []byte("nothing"))
	c.files.checked = time.Time{}
	expect(second, first)
}

func TestUpstreamTLSSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	nothing := filepath.Join(dir, "nothing")
	write(t, nothing, []byte("nothing"))
	for _, c := range []struct {
		settings routing.TLS
		want     string
	}{
		{routing.TLS{CAFile: filepath.Join(dir, "missing")}, "ca_file: open "},
		{routing.TLS{CAFile: nothing}, "no PEM certificate"},
		{routing.TLS{CertFile: nothing, KeyFile: nothing}, "cert_file " + nothing},
	} {
		if _, err := newClientTLS(c.settings, "fraud.test", slog.New(slog.DiscardHandler)).config(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want it to contain %q", c.settings, err, c.want)
		}
	}
	for host, c := range map[string]routing.TLS{"fraud.test": {}, "other.test": {ServerName: "other.test"}} {
		cfg, err := readClientTLS(c, "fraud.test")
		if err != nil || cfg.ServerName != host {
			t.Errorf("%+v: got server name %q, %v; want %q", c, cfg.ServerName, err, host)
		}
	}
}
