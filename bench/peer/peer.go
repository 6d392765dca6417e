// Package peer knows the ways a request can reach the backend: Sluice, other
// proxies, or none. Each peer says how it wants to be started and nothing is
// started here, so that its configuration can be read before it is trusted.
//
// Where a site has certificates, peers end TLS there and go on in plaintext. All get the same terms: as many workers
// as the site says, HTTP/2 with prior knowledge on both sides, kept upstream connections, flow-control windows of
// the size Sluice uses, room for as many streams per connection as any load
// here opens, no limit on body sizes or on requests per connection, and no
// access log. Where a peer departs from that, its file says why.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os/exec"
	"regexp"

	"sluice/bench/process"
)

const (
	// streamWindow and connectionWindow are flow-control windows in bytes,
	// given to every peer that can set them.
	streamWindow     = 256 << 10
	connectionWindow = 4 << 20

	// maxStreams is the number of concurrent streams a connection may have.
	maxStreams = 1000

	// cipherSuite is that of TLS 1.3 which every peer ends connections with: what Go, BoringSSL and nghttpx
	// choose by themselves, and OpenSSL if it is told to.
	cipherSuite = "TLS_AES_128_GCM_SHA256"

	// unlimited stands for "more requests than any run sends" where a proxy
	// would otherwise close a connection after its thousandth request.
	unlimited = 1_000_000_000
)

// ErrMissing says that a peer's program is not installed.
var ErrMissing = errors.New("not installed")

// Peer is one way to the backend. Locate is called once, before Launch.
type Peer interface {
	// Name returns the name used in flags and tables.
	Name() string
	// Locate finds the program and returns its version. The error wraps
	// ErrMissing if the program is not there.
	Locate(ctx context.Context) (version string, err error)
	// Launch says how to start the peer.
	Launch(Site) Launch
}

// Site is where a peer is to run.
type Site struct {
	Folder  string // absolute; the peer's own
	Listen  string // host:port to accept on
	Backend string // host:port to forward to; it takes plaintext, but TLS behind a peer that is [Opaque]
	Copies  string // host:port for copies of calls, which nobody counts
	TLS     *TLS   // what to accept connections with; nil: plaintext

	// Workers is how many worker processes or threads a peer has, and how many threads may run at once of those
	// that are written in Go. With 0, peers have one worker, and those in Go, which have no such setting of their
	// own, what Go and their own defaults give them.
	Workers int
}

// workers is the number of workers of peers that have such a setting.
func (s Site) workers() int { return max(1, s.Workers) }

// goEnv is what a program in Go has in its environment for its number of workers.
func (s Site) goEnv() []string {
	if s.Workers == 0 {
		return nil
	}
	return []string{fmt.Sprintf("GOMAXPROCS=%d", s.Workers)}
}

// TLSTerms says why a connection is not on the terms that all peers get, nil if it is.
func TLSTerms(state tls.ConnectionState) error {
	if got := tls.CipherSuiteName(state.CipherSuite); state.Version != tls.VersionTLS13 || got != cipherSuite {
		return fmt.Errorf("got %s with %s, want %s with %s as all have it", tls.VersionName(state.Version), got, tls.VersionName(tls.VersionTLS13), cipherSuite)
	}
	return nil
}

// TLS names PEM files.
type TLS struct {
	Cert, Key string
	Both      string // certificate and key in one file
}

// Opaque is implemented by peers that may pass TLS on without ending it.
type Opaque interface {
	// Opaque reports whether this one does.
	Opaque() bool
}

// Launch is what to start. Without a command there is nothing to start and
// requests go to the backend itself.
type Launch struct {
	Files   []File
	Command *process.Command
}

// File is a file that must exist in the site's folder before the start.
type File struct{ Name, Content string }

// versionOf runs a program and returns the part of its output that pattern's
// first group matches.
func versionOf(ctx context.Context, pattern, program string, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s: %w", program, ErrMissing)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, output)
	}
	found := regexp.MustCompile(pattern).FindSubmatch(output)
	if found == nil {
		return "", fmt.Errorf("%s: no version in %q", program, output)
	}
	return string(found[1]), nil
}
