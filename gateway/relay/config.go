package relay

import (
	"crypto/tls"
	"log/slog"
	"runtime"
	"time"
)

// Config holds the relay's limits. Zero fields take the value of [Defaults].
type Config struct {
	// TLS, if set, is used for every accepted connection; it must offer "h2".
	TLS *tls.Config
	// Logger receives what operators should know of connections. It must not block: it is called by the readers of
	// connections. Default: discard.
	Logger *slog.Logger

	MaxStreams        uint32 // concurrent streams per downstream connection
	MaxHeaderBytes    int    // a request's or answer's header list, bytes as RFC 9113 6.5.2 counts them
	MaxHeaderFields   int
	MaxMessage        int   // one message of a request or an answer, bytes
	StreamWindow      int   // receive window of a stream, bytes; at least 65,535, which peers assume before they know it
	ConnWindow        int   // receive window of a connection, bytes; likewise
	ReplayPerCall     int   // request bytes kept for another attempt, per call
	ReplayTotal       int64 // and over all calls
	CapturePerCall    int   // bytes of a call's copy, request and answer
	CaptureTotal      int64 // and over all copies that have not been released
	IdentifyPerCall   int   // request bytes kept while the policy still waits for more
	BufferedPerConn   int64 // bytes waiting for a peer's window, per connection
	BufferedTotal     int64 // and over all connections
	WriteQueue        int   // bytes in a connection's write queue above which no DATA is added
	ControlQueue      int   // unwritten control frames before ENHANCE_YOUR_CALM
	EmptyFrames       int   // empty DATA frames without END_STREAM per stream
	EarlyResets       int   // client resets within a second of opening before over half of them close the connection
	MaxConns          int
	MaxConnsPerAddr   int
	HandshakeTimeout  time.Duration // TLS, preface, SETTINGS; also for a header block or frame once begun
	MaxHandshakes     int           // TLS handshakes at once
	IdleTimeout       time.Duration // a downstream connection without calls
	MaxAge            time.Duration // of a downstream connection, +-10 %, then GOAWAY
	StreamIdle        time.Duration // a call without a deadline and without bytes
	ConnectTimeout    time.Duration // of an upstream connection, SETTINGS included
	StreamsPerConn    int           // calls on an upstream connection above which another one is opened
	MaxUpstreamConns  int           // per upstream
	MaxWaiting        int           // calls waiting for a connection, per upstream
	BackoffMin        time.Duration // between attempts to connect
	BackoffMax        time.Duration
	UpstreamIdle      time.Duration // an upstream connection without calls
	MaxUpstreamStream uint32        // stream id at which an upstream connection retires

	// Loops is how many threads read the connections, on Linux. Default: half of GOMAXPROCS.
	// With fewer than one, as elsewhere, each connection has a goroutine that reads it.
	Loops int
}

// Defaults are the limits of a relay that is told nothing else.
func Defaults() Config {
	return Config{
		MaxStreams:        1000,
		MaxHeaderBytes:    16 << 10,
		MaxHeaderFields:   128,
		MaxMessage:        64 << 20,
		StreamWindow:      256 << 10,
		ConnWindow:        4 << 20,
		ReplayPerCall:     1 << 20,
		ReplayTotal:       256 << 20,
		CapturePerCall:    8 << 20,
		CaptureTotal:      128 << 20,
		IdentifyPerCall:   1 << 20,
		BufferedPerConn:   64 << 20,
		BufferedTotal:     256 << 20,
		WriteQueue:        256 << 10,
		ControlQueue:      1000,
		EmptyFrames:       100,
		EarlyResets:       500,
		MaxConns:          10000,
		MaxConnsPerAddr:   1000,
		HandshakeTimeout:  10 * time.Second,
		MaxHandshakes:     64,
		IdleTimeout:       15 * time.Minute,
		MaxAge:            30 * time.Minute,
		StreamIdle:        300 * time.Second,
		ConnectTimeout:    5 * time.Second,
		StreamsPerConn:    100,
		MaxUpstreamConns:  8,
		MaxWaiting:        10000,
		BackoffMin:        100 * time.Millisecond,
		BackoffMax:        10 * time.Second,
		UpstreamIdle:      15 * time.Minute,
		MaxUpstreamStream: 1<<31 - 1<<16,
		Loops:             runtime.GOMAXPROCS(0) / 2,
	}
}

// withDefaults fills zero fields.
func (c Config) withDefaults() Config {
	d := Defaults()
	set(&c.MaxStreams, d.MaxStreams)
	set(&c.MaxHeaderBytes, d.MaxHeaderBytes)
	set(&c.MaxHeaderFields, d.MaxHeaderFields)
	set(&c.MaxMessage, d.MaxMessage)
	set(&c.StreamWindow, d.StreamWindow)
	set(&c.ConnWindow, d.ConnWindow)
	set(&c.ReplayPerCall, d.ReplayPerCall)
	set(&c.ReplayTotal, d.ReplayTotal)
	set(&c.CapturePerCall, d.CapturePerCall)
	set(&c.CaptureTotal, d.CaptureTotal)
	set(&c.IdentifyPerCall, d.IdentifyPerCall)
	set(&c.BufferedPerConn, d.BufferedPerConn)
	set(&c.BufferedTotal, d.BufferedTotal)
	set(&c.WriteQueue, d.WriteQueue)
	set(&c.ControlQueue, d.ControlQueue)
	set(&c.EmptyFrames, d.EmptyFrames)
	set(&c.EarlyResets, d.EarlyResets)
	set(&c.MaxConns, d.MaxConns)
	set(&c.MaxConnsPerAddr, d.MaxConnsPerAddr)
	set(&c.HandshakeTimeout, d.HandshakeTimeout)
	set(&c.MaxHandshakes, d.MaxHandshakes)
	set(&c.IdleTimeout, d.IdleTimeout)
	set(&c.MaxAge, d.MaxAge)
	set(&c.StreamIdle, d.StreamIdle)
	set(&c.ConnectTimeout, d.ConnectTimeout)
	set(&c.StreamsPerConn, d.StreamsPerConn)
	set(&c.MaxUpstreamConns, d.MaxUpstreamConns)
	set(&c.MaxWaiting, d.MaxWaiting)
	set(&c.BackoffMin, d.BackoffMin)
	set(&c.BackoffMax, d.BackoffMax)
	set(&c.UpstreamIdle, d.UpstreamIdle)
	set(&c.MaxUpstreamStream, d.MaxUpstreamStream)
	set(&c.Loops, d.Loops)
	c.StreamWindow = max(c.StreamWindow, initialWindow)
	c.ConnWindow = max(c.ConnWindow, initialWindow)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func set[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}
