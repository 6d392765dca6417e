package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"

	"sluice/routing"
)

// serverTLS returns the configuration of the data port, whose certificate is
// read again when its files change. It fails if there is none to start with.
func serverTLS(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	files := &watched[*tls.Certificate]{
		what: "certificate of the data address", log: log,
		files: []string{certFile, keyFile},
		read: func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(certFile, keyFile)
			return &c, err
		},
	}
	if _, err := files.get(); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return &tls.Config{
		NextProtos:     []string{"h2"},
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.get() },
	}, nil
}

// clientTLS is the configuration of connections to a version's endpoints.
type clientTLS struct{ files watched[*tls.Config] }

func newClientTLS(t routing.TLS, host string, log *slog.Logger) *clientTLS {
	c := &clientTLS{}
	for _, f := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if f != "" {
			c.files.files = append(c.files.files, f)
		}
	}
	c.files.read = func() (*tls.Config, error) { return readClientTLS(t, host) }
	c.files.what, c.files.log = "TLS configuration for "+host, log
	return c
}

// config returns the configuration for a new connection.
func (c *clientTLS) config() (*tls.Config, error) { return c.files.get() }

func readClientTLS(t routing.TLS, host string) (*tls.Config, error) {
	cfg := &tls.Config{
		NextProtos:         []string{"h2"},
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify, //nolint:gosec // what the route asks for, by that name
	}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s: no PEM certificate in it", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file %s with key_file %s: %w", t.CertFile, t.KeyFile, err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}
