package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"sluice/routing"
)

// statEvery is how often files are looked at for changes, at most: handshakes
// come in bursts.
const statEvery = time.Second

// watched is a value read from files, read again when they have changed. A new
// state that cannot be read leaves the last good one in use. Safe for concurrent
// use.
type watched[T any] struct {
	files []string
	read  func() (T, error)

	mu      sync.Mutex
	checked time.Time
	stamp   string
	value   T
	loaded  bool
	err     error // of the last attempt
}

// get returns the value; err tells that what is in the files now could not be
// used. With loaded false there never was a value.
func (f *watched[T]) get() (value T, loaded bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if !f.checked.IsZero() && now.Sub(f.checked) < statEvery {
		return f.value, f.loaded, f.err
	}
	f.checked = now
	stamp := stampOf(f.files)
	if f.loaded && f.err == nil && stamp == f.stamp {
		return f.value, true, nil
	}
	v, err := f.read()
	f.err = err
	if err == nil {
		f.value, f.loaded, f.stamp = v, true, stamp
	}
	return f.value, f.loaded, f.err
}

// stampOf tells states of files apart without reading them.
func stampOf(files []string) string {
	s := ""
	for _, name := range files {
		if fi, err := os.Stat(name); err == nil {
			s += fmt.Sprintf("%d %d\n", fi.ModTime().UnixNano(), fi.Size())
		} else {
			s += "missing\n"
		}
	}
	return s
}

// serverTLS returns the configuration of the data port, whose certificate is
// read again when its files change. It fails if there is none to start with.
func serverTLS(certFile, keyFile string, warn func(error)) (*tls.Config, error) {
	files := &watched[*tls.Certificate]{files: []string{certFile, keyFile}, read: func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &c, err
	}}
	if _, _, err := files.get(); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return &tls.Config{
		NextProtos: []string{"h2"},
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, _, err := files.get()
			if err != nil {
				warn(fmt.Errorf("certificate not reloaded, the last good one stays: %w", err))
			}
			return c, nil
		},
	}, nil
}

// clientTLS is the configuration of connections to a version's endpoints.
type clientTLS struct{ files watched[*tls.Config] }

func newClientTLS(t routing.TLS, host string) *clientTLS {
	c := &clientTLS{}
	for _, f := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if f != "" {
			c.files.files = append(c.files.files, f)
		}
	}
	c.files.read = func() (*tls.Config, error) { return readClientTLS(t, host) }
	return c
}

// config returns the configuration for a new connection; the last good one if
// the files cannot be read now.
func (c *clientTLS) config() (*tls.Config, error) {
	cfg, loaded, err := c.files.get()
	if !loaded {
		return nil, err
	}
	return cfg, nil
}

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
