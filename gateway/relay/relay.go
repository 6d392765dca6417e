package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay accepts downstream connections and relays their calls. Its methods may
// be called concurrently.
type Relay struct {
	cfg     Config
	policy  Policy
	started time.Time
	wheel   wheel

	replay  budget // request bytes kept for another attempt
	buffers budget // bytes that wait for a peer's window
	// captures counts the bytes of calls' copies, until their holders release them.
	captures     budget
	longReads    longReads
	loops        loops
	capturesLost atomic.Int64 // copies given up
	calls        atomic.Int64

	evictions chan struct{}
	ctx       context.Context // done once the relay closes
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu        sync.Mutex
	stopping  bool // no new goroutines
	draining  bool
	conns     map[*conn]struct{}
	perAddr   map[string]int
	accepted  int
	room      *sync.Cond // accepted has shrunk
	listeners map[net.Listener]struct{}
	upstreams map[*Upstream]struct{}
}

// New returns a relay that asks p. It runs until [Relay.Close].
func New(cfg Config, p Policy) *Relay {
	r := &Relay{
		cfg: cfg.withDefaults(), policy: p, started: time.Now(),
		evictions: make(chan struct{}, 1),
		conns:     make(map[*conn]struct{}),
		perAddr:   make(map[string]int),
		listeners: make(map[net.Listener]struct{}),
		upstreams: make(map[*Upstream]struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.room = sync.NewCond(&r.mu)
	r.wheel.relay = r
	r.replay.limit, r.buffers.limit, r.captures.limit = r.cfg.ReplayTotal, r.cfg.BufferedTotal, r.cfg.CaptureTotal
	r.spawn(r.sweeper)
	return r
}

// since and at turn times into numbers that fit an atomic, and back. They count from
// the relay's start, so that a clock that is set moves no deadline.
func (r *Relay) since(t time.Time) int64 { return int64(t.Sub(r.started)) }
func (r *Relay) at(n int64) time.Time    { return r.started.Add(time.Duration(n)) }

// spawn runs f in a goroutine that Close waits for.
func (r *Relay) spawn(f func()) {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		f()
	}()
}

// enter has Close wait for its caller, who is none of the relay's goroutines and may end calls: until
// wg.Done. It reports false once Close has begun, which ends everything itself.
func (r *Relay) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return false
	}
	r.wg.Add(1)
	return true
}

// Calls returns how many calls are under way.
func (r *Relay) Calls() int { return int(r.calls.Load()) }

// Stats are gauges of a relay.
type Stats struct {
	Calls         int   // under way
	Conns         int   // downstream connections
	ReplayBytes   int64 // memory of kept requests
	BufferedBytes int64 // memory of bytes that wait for a peer's window
	CaptureBytes  int64 // memory of calls' copies, those handed out too
	CapturesLost  int64 // copies given up because they grew too large; grows only
}

// Stats returns the gauges as they are now.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	n := r.accepted
	r.mu.Unlock()
	return Stats{
		Calls: r.Calls(), Conns: n, ReplayBytes: r.replay.used.Load(), BufferedBytes: r.buffers.used.Load(),
		CaptureBytes: r.captures.used.Load(), CapturesLost: r.capturesLost.Load(),
	}
}

var errServing = errors.New("relay: closed")

// Serve accepts connections from ln until ln fails or the relay drains or closes;
// then it returns nil.
func (r *Relay) Serve(ln net.Listener) error {
	r.mu.Lock()
	if r.stopping || r.draining {
		r.mu.Unlock()
		return errServing
	}
	r.listeners[ln] = struct{}{}
	r.mu.Unlock()
	handshakes := make(chan struct{}, r.cfg.MaxHandshakes)
	var delay time.Duration
	for {
		r.mu.Lock()
		for r.accepted >= r.cfg.MaxConns && !r.stopping && !r.draining {
			r.room.Wait() // accepting pauses: the rest waits in the kernel's queue
		}
		ending := r.stopping || r.draining
		r.mu.Unlock()
		if ending {
			return nil
		}
		nc, err := ln.Accept()
		if err != nil {
			r.mu.Lock()
			ending := r.stopping || r.draining
			r.mu.Unlock()
			if ending || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, for instance: wait, as net/http does.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			r.cfg.Logger.Warn("accepting failed", "error", err, "retry_in", delay)
			select {
			case <-time.After(delay):
			case <-r.ctx.Done():
				return nil
			}
			continue
		}
		delay = 0
		host, ok := r.admit(nc)
		if !ok {
			_ = nc.Close()
			continue
		}
		go func() {
			defer r.wg.Done()
			defer r.dismiss(host)
			r.accept(nc, handshakes)
		}()
	}
}

// admit counts a new connection, unless its address has too many. Close waits for
// what was admitted before it began.
func (r *Relay) admit(nc net.Conn) (host string, ok bool) {
	host = nc.RemoteAddr().String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.perAddr[host] >= r.cfg.MaxConnsPerAddr || r.stopping {
		return host, false
	}
	r.perAddr[host]++
	r.accepted++
	r.wg.Add(1)
	return host, true
}

func (r *Relay) dismiss(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted--
	if r.perAddr[host]--; r.perAddr[host] == 0 {
		delete(r.perAddr, host)
	}
	r.room.Signal()
}

// accept does the TLS handshake, off the readers, and serves the connection.
func (r *Relay) accept(nc net.Conn, handshakes chan struct{}) {
	if r.cfg.TLS == nil {
		t, err := r.plain(nc)
		if err == nil {
			r.serve(nc, t)
		}
		return
	}
	_ = nc.SetDeadline(time.Now().Add(r.cfg.HandshakeTimeout)) // an error shows in the handshake
	select {
	case handshakes <- struct{}{}:
	case <-r.ctx.Done():
		_ = nc.Close()
		return
	}
	t, err := r.handshake(nc)
	<-handshakes
	if err != nil {
		r.cfg.Logger.Debug("TLS handshake failed", "peer", nc.RemoteAddr().String(), "error", err)
		_ = nc.Close()
		return
	}
	r.serve(nc, t)
}

func (r *Relay) handshake(nc net.Conn) (transport, error) {
	w := &wire{Conn: nc}
	tc := tls.Server(w, r.cfg.TLS)
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.HandshakeTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if p := tc.ConnectionState().NegotiatedProtocol; p != "h2" {
		return nil, fmt.Errorf("relay: client negotiated %q, want h2", p)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return r.newTLSTransport(tc, w)
}

// plain returns the transport of a connection's bytes as they are, and takes it over.
func (r *Relay) plain(nc net.Conn) (transport, error) {
	t, err := r.loops.adopt(nc, r)
	if t != nil {
		return t, nil
	}
	if err != nil {
		r.cfg.Logger.Debug("no loop reads this connection, but a goroutine", "peer", nc.RemoteAddr().String(), "error", err)
	}
	if t, err = newTransport(nc); err != nil {
		_ = nc.Close()
	}
	return t, err
}

func (r *Relay) isDraining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

func (r *Relay) addConn(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *Relay) removeConn(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// snapshot returns the connections of the moment.
func (r *Relay) snapshot() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*conn, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	return all
}

// Drain stops accepting, tells every client to open no more calls here, and waits
// until all calls have ended and their answers are written, or ctx is done.
func (r *Relay) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.draining = true
	for ln := range r.listeners {
		_ = ln.Close()
	}
	r.room.Broadcast()
	r.mu.Unlock()
	if r.enter() {
		w := r.newWorker()
		for _, c := range r.snapshot() {
			if s, ok := c.side.(*downstreamSide); ok {
				s.drain(w, c)
			}
		}
		w.flush()
		r.wg.Done()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !r.drained() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// drained reports whether no downstream connection is left that is not merely
// waiting for its client to close it.
func (r *Relay) drained() bool {
	for _, c := range r.snapshot() {
		s, ok := c.side.(*downstreamSide)
		if !ok {
			continue
		}
		c.mu.Lock()
		done := c.closed || (s.last && len(c.streams) == 0 && !c.writing && c.queued() == 0)
		c.mu.Unlock()
		if !done {
			return false
		}
	}
	return true
}

// Close ends everything at once and waits for the relay's goroutines.
func (r *Relay) Close() {
	r.mu.Lock()
	if r.stopping {
		r.mu.Unlock()
		r.wg.Wait()
		r.loops.stop()
		return
	}
	r.stopping = true
	r.cancel()
	for ln := range r.listeners {
		_ = ln.Close()
	}
	ups := make([]*Upstream, 0, len(r.upstreams))
	for u := range r.upstreams {
		ups = append(ups, u)
	}
	r.room.Broadcast()
	r.mu.Unlock()
	for _, u := range ups {
		u.shut(true)
	}
	for _, c := range r.snapshot() {
		c.fail(errServing)
	}
	r.wg.Wait()
	r.loops.stop()
}

// sweepEvery is how often connections are looked at for what time brings about.
const sweepEvery = 250 * time.Millisecond

func (r *Relay) sweeper() {
	w := r.newWorker()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.evictions:
			w.now = time.Now()
			r.evictSome(w)
		case w.now = <-tick.C:
			for _, c := range r.snapshot() {
				c.sweep(w)
			}
		}
		w.flush()
	}
}

// sweep ends connections that are stuck and gives idle ones' last credit back.
func (c *conn) sweep(w *worker) {
	why := ""
	switch s := c.side.(type) {
	case *downstreamSide:
		s.sweep(w, c)
	case *upstreamSide:
		s.sweep(w, c)
	}
	if p := c.partial.Load(); p != 0 && w.now.Sub(c.relay.at(p)) > c.relay.cfg.HandshakeTimeout {
		why = "a frame or handshake was not completed in time"
	}
	c.mu.Lock()
	if !c.stuck.IsZero() && w.now.Sub(c.stuck) > c.relay.cfg.StreamIdle {
		why = "the peer does not read"
	}
	if !c.finished.IsZero() && w.now.Sub(c.finished) > lingerTime {
		why = "no longer needed"
	}
	if len(c.streams) == 0 && c.recvCredit > 0 && c.seenFirst && !c.closing && !c.closed {
		c.giveConn(w) // at rest every window is whole
	}
	c.mu.Unlock()
	if why != "" {
		c.relay.cfg.Logger.Debug("connection closed", "peer", c.name, "reason", why)
		c.fail(errors.New(why))
	}
}
