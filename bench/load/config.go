package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Config says whom to call with what.
type Config struct {
	Address string      // host:port
	TLS     *tls.Config // nil: plaintext

	Connections int // 1 to MaxConnections
	Streams     int // concurrent calls per connection, 1 to MaxStreams

	Method   string      // "/package.Service/Method"
	Message  []byte      // the request's only message, with its gRPC framing; not changed while the client lives
	Metadata [][2]string // name and value, sent with every call

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

func (c *Config) validate() error {
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
	return nil
}

func (p *Plan) validate() error {
	switch {
	case !(p.Rate >= 0 && p.Rate <= MaxRate):
		return fmt.Errorf("rate: got %g, want 0 to %d calls per second", p.Rate, MaxRate)
	case p.For <= 0 || p.For > MaxFor:
		return fmt.Errorf("time: got %v, want more than 0 and at most %v", p.For, MaxFor)
	}
	return nil
}
