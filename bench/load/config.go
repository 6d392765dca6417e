package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Config says whom to call with what.
type Config struct {
	Address string      // host:port
	TLS     *tls.Config // nil: plaintext

	Connections int // 1 to MaxConnections
	Streams     int // concurrent calls per connection, 1 to MaxStreams

	Method   string      // "/package.Service/Method"
	Message  []byte      // the request's only message, with its gRPC framing; not changed while the client lives
	Metadata [][2]string // name, in lower case, and value, sent with every call in this order

	// Varied are sent with every call as well, with a value of its own.
	Varied []Varied

	// Timeout is how long a call may take, counted from its start. It then is reset and
	// counts as failed. Nothing is said of it to the server.
	Timeout time.Duration
}

// Varied is metadata whose value is drawn for every call: a number from From to To, such as a user's,
// between Prefix and Suffix.
type Varied struct {
	Name, Prefix, Suffix string // of less than 100 bytes each
	From, To             int    // at least 0
}

// Plan is one run.
type Plan struct {
	// Rate is the number of calls per second of the open loop; 0 is the closed loop.
	Rate     float64
	Arrivals Arrivals

	// For is how long calls are begun; those under way may then end. Requests, unless
	// 0, is how many are begun at most.
	For      time.Duration
	Requests uint64

	// Progress, unless nil, is called every second, by a goroutine of the run.
	Progress func(Progress)
}

// Bounds of a run, so that a slip of the finger is no attack.
const (
	MaxConnections = 10_000
	MaxStreams     = 1_000
	MaxRate        = 1_000_000
	// MaxFor also keeps stream ids from running out: 2^30 calls on a connection take
	// longer.
	MaxFor = time.Hour
)

// Validate reports the first setting that is out of bounds, by the name that `sluice bench` has for it.
func (c *Config) Validate() error {
	switch {
	case c.Connections < 1 || c.Connections > MaxConnections:
		return fmt.Errorf("connections: got %d, want 1 to %d", c.Connections, MaxConnections)
	case c.Streams < 1 || c.Streams > MaxStreams:
		return fmt.Errorf("streams: got %d, want 1 to %d", c.Streams, MaxStreams)
	case c.Timeout <= 0:
		return fmt.Errorf("timeout: got %v, want more than 0", c.Timeout)
	case len(c.Message) < messagePrefix:
		return errors.New("message: got no gRPC framing")
	}
	for _, m := range c.Metadata {
		if err := validateMetadata(m[0], m[1]); err != nil {
			return err
		}
	}
	return nil
}

// reserved are fields that every request has already, or that HTTP/2 has no use for (RFC 9113, 8.2.2).
var reserved = []string{"content-type", "te", "user-agent", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}

// validateMetadata refuses what a server would answer with a protocol error for each call.
func validateMetadata(name, value string) error {
	upper := func(r rune) bool { return r >= 'A' && r <= 'Z' }
	printable := func(b byte) bool { return b >= ' ' && b <= '~' }
	switch {
	case !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc([]rune(name), upper):
		return fmt.Errorf("metadata: got name %q, want small letters, digits, '-', '_' and '.'", name)
	case slices.Contains(reserved, name):
		return fmt.Errorf("metadata: got name %q, which the generator sets itself or HTTP/2 does not have", name)
	case slices.ContainsFunc([]byte(value), func(b byte) bool { return !printable(b) }):
		return fmt.Errorf("metadata: got value %q of %s, want printable ASCII; binary values are written in base64, under a name that ends in -bin", value, name)
	}
	return nil
}

// Validate reports the first setting that is out of bounds, by the name that `sluice bench` has for it.
func (p *Plan) Validate() error {
	switch {
	case !(p.Rate >= 0 && p.Rate <= MaxRate):
		return fmt.Errorf("rate: got %g, want 0 to %d calls per second", p.Rate, MaxRate)
	case p.For <= 0 || p.For > MaxFor:
		return fmt.Errorf("for: got %v, want more than 0 and at most %v", p.For, MaxFor)
	}
	return nil
}
