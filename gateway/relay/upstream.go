package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// UpstreamConfig says how to reach one address.
type UpstreamConfig struct {
	// Addr is dialled, and names the upstream in logs and errors.
	Addr string
	// TLS, if set, encrypts. It is asked for every new connection, so that
	// certificates can change; what it returns must offer "h2" and, as HTTP/2 wants it, not
	// renegotiate.
	TLS func() (*tls.Config, error)
	// Dial replaces the network; default: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Upstream is a pool of connections to one address. It grows while the calls on
// its connections are many, reconnects with jittered backoff, and lets calls wait
// for a connection within their deadlines. Safe for concurrent use.
type Upstream struct {
	relay  *Relay
	cfg    UpstreamConfig
	scheme string

	failing   atomic.Bool  // what Failing says
	recovered atomic.Int64 // what Recovered says, as Unix time in nanoseconds

	mu       sync.Mutex
	conns    []*upstreamSide // ready, taking streams
	dialing  int
	head     *attempt // waiting for a connection
	tail     *attempt
	waiting  int
	failures int // consecutive
	lastErr  error
	pausing  bool // between attempts to connect
	retry    *time.Timer
	retired  bool
}

// upstreamSide is the client side of a connection.
type upstreamSide struct {
	u *Upstream
	c *conn

	connected *time.Timer // ends the connection if no SETTINGS come

	// Guarded by u.mu.
	ready  bool
	active int // slots taken
	max    int // SETTINGS_MAX_CONCURRENT_STREAMS
	idle   time.Time
}

// NewUpstream returns a pool without connections; the first call opens one.
func (r *Relay) NewUpstream(cfg UpstreamConfig) *Upstream {
	u := &Upstream{relay: r, cfg: cfg, scheme: "http"}
	if cfg.TLS != nil {
		u.scheme = "https"
	}
	if cfg.Dial == nil {
		u.cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	r.mu.Lock()
	r.upstreams[u] = struct{}{}
	r.mu.Unlock()
	return u
}

// Addr returns the address that the upstream was made for.
func (u *Upstream) Addr() string { return u.cfg.Addr }

// TLS returns how connections are encrypted, nil for plaintext.
func (u *Upstream) TLS() func() (*tls.Config, error) { return u.cfg.TLS }

// Failing reports that there is no connection and the last attempt to get one
// failed. It costs one load.
func (u *Upstream) Failing() bool { return u.failing.Load() }

// Recovered returns when Failing was last over, as Unix time in nanoseconds; 0 if it
// never was. It costs one load.
func (u *Upstream) Recovered() int64 { return u.recovered.Load() }

// noteFailing keeps what Failing says; u.mu is held.
func (u *Upstream) noteFailing() { u.failing.Store(len(u.conns) == 0 && u.failures > 0) }

// Conns returns how many connections take calls now.
func (u *Upstream) Conns() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

// Waiting returns how many attempts wait for a connection.
func (u *Upstream) Waiting() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.waiting
}

// Retire takes no more calls and closes connections as they become idle.
func (u *Upstream) Retire() { u.leave(false) }

// Close ends every connection, and with it the calls on it.
func (u *Upstream) Close() { u.leave(true) }

var errRetired = errors.New("upstream is no longer in use")

// leave is shut unless the relay closes, which shuts all upstreams.
func (u *Upstream) leave(now bool) {
	if u.relay.enter() {
		defer u.relay.wg.Done()
		u.shut(now)
	}
}

func (u *Upstream) shut(now bool) {
	u.mu.Lock()
	u.retired = true
	if u.retry != nil {
		u.retry.Stop()
	}
	u.conns = nil
	u.noteFailing()
	waiting := u.takeWaiting()
	u.mu.Unlock()
	w := u.relay.newWorker()
	for _, c := range u.relay.snapshot() { // those that have left the pool too
		if s, ok := c.side.(*upstreamSide); !ok || s.u != u {
			continue
		}
		c.mu.Lock()
		c.noNew = true
		c.mu.Unlock()
		if now {
			c.fail(errRetired)
		}
	}
	for _, a := range waiting {
		a.call.unplaced(w, a, errRetired)
	}
	w.flush()
	u.relay.mu.Lock()
	delete(u.relay.upstreams, u)
	u.relay.mu.Unlock()
}

var errTooManyWaiting = errors.New("too many calls wait for a connection")

// acquire reserves a slot on a connection, opening one more if those there are
// busy. With (nil, nil) the attempt waits; it is placed or failed later.
func (u *Upstream) acquire(_ *worker, a *attempt) (*conn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired {
		return nil, errRetired
	}
	best := u.choose()
	if best == nil || best.active >= u.relay.cfg.StreamsPerConn {
		u.grow()
	}
	if best != nil {
		best.active++
		return best.c, nil
	}
	if len(u.conns) == 0 && u.failures > 0 {
		// Until an attempt to connect succeeds, nobody waits for the next one to fail.
		return nil, fmt.Errorf("no connection to %s: %w", u.cfg.Addr, u.lastErr)
	}
	if u.waiting >= u.relay.cfg.MaxWaiting {
		return nil, errTooManyWaiting
	}
	a.waiting = true
	a.prev, a.next = u.tail, nil
	if u.tail != nil {
		u.tail.next = a
	} else {
		u.head = a
	}
	u.tail = a
	u.waiting++
	return nil, nil
}

// choose returns the connection with the fewest calls that has a slot, of as many connections as calls need. Those that a
// peak has opened beyond are left alone until they are idle for long enough to be closed: frames of calls that share a
// connection leave and come by one system call. u.mu is held.
func (u *Upstream) choose() *upstreamSide {
	need := 1
	for _, s := range u.conns {
		need += s.active
	}
	var best *upstreamSide
	for _, s := range u.conns {
		if best != nil && need <= 0 {
			break
		}
		need -= min(s.max, u.relay.cfg.StreamsPerConn)
		if s.active < s.max && (best == nil || s.active < best.active) {
			best = s
		}
	}
	return best
}

// grow opens one more connection, one at a time; while attempts fail, the backoff
// decides. u.mu is held.
func (u *Upstream) grow() {
	if u.dialing > 0 || u.pausing || u.retired || len(u.conns) >= u.relay.cfg.MaxUpstreamConns {
		return
	}
	u.dial()
}

func (u *Upstream) dial() {
	u.dialing++
	u.relay.spawn(u.connect)
}

// takeWaiting empties the queue; u.mu is held.
func (u *Upstream) takeWaiting() []*attempt {
	var all []*attempt
	for u.head != nil {
		all = append(all, u.pop())
	}
	return all
}

func (u *Upstream) pop() *attempt {
	a := u.head
	u.unlink(a)
	return a
}

func (u *Upstream) unlink(a *attempt) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		u.head = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		u.tail = a.prev
	}
	a.next, a.prev, a.waiting = nil, nil, false
	u.waiting--
}

// abandon takes an attempt out of the queue.
func (u *Upstream) abandon(a *attempt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a.waiting {
		u.unlink(a)
	}
}

// discard gives back a slot on a connection that takes no more streams, and
// takes it out of the pool: its reader, which does that as well, may be the very
// caller.
func (u *Upstream) discard(w *worker, c *conn) {
	c.side.(*upstreamSide).leavePool()
	u.release(w, c)
}

// release gives a slot back and passes it on to whoever waits.
func (u *Upstream) release(w *worker, c *conn) {
	s := c.side.(*upstreamSide)
	u.mu.Lock()
	defer u.mu.Unlock()
	s.active--
	if s.active == 0 {
		s.idle = w.now
	}
	u.serveWaiting(w)
}

// serveWaiting reserves free slots for waiting attempts. They are placed by the
// worker once it holds no lock. u.mu is held.
func (u *Upstream) serveWaiting(w *worker) {
	for u.head != nil {
		s := u.choose()
		if s == nil {
			u.grow()
			return
		}
		s.active++
		w.placements = append(w.placements, placement{u.pop(), s.c})
	}
}

// placement is a waiting attempt that has got a slot.
type placement struct {
	a *attempt
	c *conn
}

// connect opens a connection and serves it until it ends.
func (u *Upstream) connect() {
	r := u.relay
	w := r.newWorker()
	t, err := u.open()
	w.now = time.Now() // that may have taken seconds
	if err != nil {
		u.connectFailed(w, err)
		w.flush()
		return
	}
	s := &upstreamSide{u: u, idle: w.now}
	c := newConn(r, t, s, u.cfg.Addr)
	s.c = c
	c.fields.dropHopByHop = true
	if !r.addConn(c) {
		t.close()
		u.connectFailed(w, errRetired)
		return
	}
	defer r.removeConn(c)
	c.mu.Lock()
	c.ctl = append(c.ctl, http2.ClientPreface...)
	c.ctl = appendSettings(c.ctl,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(r.cfg.StreamWindow)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(r.cfg.MaxHeaderBytes)})
	if n := r.cfg.ConnWindow - initialWindow; n > 0 {
		c.ctl = appendWindowUpdate(c.ctl, 0, n)
	}
	w.touch(c)
	c.mu.Unlock()
	s.connected = time.AfterFunc(r.cfg.ConnectTimeout, func() {
		c.fail(fmt.Errorf("no SETTINGS within %v", r.cfg.ConnectTimeout))
	})
	c.readLoop(w)
	s.connected.Stop()
}

// open dials and, if configured, does the TLS handshake.
func (u *Upstream) open() (transport, error) {
	ctx, cancel := context.WithTimeout(u.relay.ctx, u.relay.cfg.ConnectTimeout)
	defer cancel()
	nc, err := u.cfg.Dial(ctx, u.cfg.Addr)
	if err != nil {
		return nil, err
	}
	if u.cfg.TLS == nil {
		return u.relay.plain(nc)
	}
	cfg, err := u.cfg.TLS()
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	w := &wire{Conn: nc}
	tc := tls.Client(w, cfg)
	err = tc.HandshakeContext(ctx)
	if err == nil && tc.ConnectionState().NegotiatedProtocol != "h2" {
		err = fmt.Errorf("server negotiated %q, want h2", tc.ConnectionState().NegotiatedProtocol)
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return u.relay.newTLSTransport(tc, w)
}

// connectFailed fails the calls that wait if nothing else is on its way, and
// tries again after a pause that grows by 1.6 with 20 % jitter, as gRPC's
// connection backoff does.
func (u *Upstream) connectFailed(w *worker, err error) {
	u.mu.Lock()
	u.dialing--
	u.failures++
	u.lastErr = err
	u.noteFailing()
	var failed []*attempt
	if len(u.conns) == 0 && u.dialing == 0 {
		failed = u.takeWaiting()
	}
	cfg := &u.relay.cfg
	pause := float64(cfg.BackoffMin)
	for i := 1; i < u.failures && pause < float64(cfg.BackoffMax); i++ {
		pause *= 1.6
	}
	pause = min(pause, float64(cfg.BackoffMax)) * (0.8 + 0.4*rand.Float64())
	if !u.retired {
		u.pausing = true
		u.retry = time.AfterFunc(time.Duration(pause), u.redial)
	}
	first := u.failures == 1
	u.mu.Unlock()
	for _, a := range failed {
		a.call.unplaced(w, a, fmt.Errorf("no connection to %s: %w", u.cfg.Addr, err))
	}
	if first {
		u.relay.cfg.Logger.Warn("upstream unreachable", "upstream", u.cfg.Addr, "error", err)
	}
}

func (u *Upstream) redial() {
	if !u.relay.enter() {
		return
	}
	defer u.relay.wg.Done()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pausing = false
	switch {
	case len(u.conns) == 0 || u.head != nil:
		u.grow()
	default:
		u.failures, u.lastErr = 0, nil // it is reachable: only growing failed, and is over
		u.noteFailing()
	}
}

// openStream gives s the next stream id; it reports false if the connection
// takes no more. c.mu is held.
func (c *conn) openStream(s *stream) bool {
	if c.closed || c.noNew || c.closing {
		return false
	}
	if c.queued() > stuckQueues*c.relay.cfg.WriteQueue {
		c.noNew = true // it does not read: no more calls shall hang on it
		return false
	}
	id := c.lastID + 2
	if c.lastID == 0 {
		id = 1
	}
	if id >= c.relay.cfg.MaxUpstreamStream {
		c.noNew = true // it closes once its calls are over
		return false
	}
	c.lastID = id
	s.conn, s.id = c, id
	s.sendWin, s.recvWin = c.peerInitial, int64(c.relay.cfg.StreamWindow)
	c.streams[id] = s
	return true
}

func (s *upstreamSide) headers(w *worker, c *conn, id uint32, end bool, f *fieldList) error {
	c.mu.Lock()
	st := c.streams[id]
	if st == nil {
		idle := c.idle(id)
		c.mu.Unlock()
		if idle {
			return protocolError(fmt.Sprintf("HEADERS on idle stream %d", id))
		}
		return nil // it crossed our RST_STREAM
	}
	if st.gotEnd {
		st.resetLocked(w, http2.ErrCodeStreamClosed)
		c.mu.Unlock()
		st.call.streamFault(w, st, "HEADERS after END_STREAM")
		return nil
	}
	st.gotEnd = end
	c.mu.Unlock()
	st.call.answerHeaders(w, st, end, f)
	return nil
}

func (s *upstreamSide) reset(w *worker, _ *conn, st *stream, code http2.ErrCode) error {
	kind := Reset
	if code == http2.ErrCodeRefusedStream {
		kind = Unprocessed
	}
	st.call.attemptEnded(w, st, kind, resetToCode(code), code, fmt.Sprintf("upstream reset the stream (%v)", code))
	return nil
}

// goAway takes the connection out of the pool and fails what the server says it
// has not looked at.
func (s *upstreamSide) goAway(w *worker, c *conn, last uint32, code http2.ErrCode) {
	s.leavePool()
	c.mu.Lock()
	c.noNew = true
	var ignored []*stream
	for id, st := range c.streams {
		if id > last {
			st.removeLocked()
			ignored = append(ignored, st)
		}
	}
	c.mu.Unlock()
	for _, st := range ignored {
		st.call.attemptEnded(w, st, Unprocessed, codeUnavailable, code, fmt.Sprintf("upstream is going away (%v)", code))
	}
}

// leavePool takes the connection out of the pool. Calls that waited for a slot on
// it get another connection.
func (s *upstreamSide) leavePool() {
	u := s.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.conns, s); i >= 0 {
		u.conns = slices.Delete(u.conns, i, i+1)
		u.noteFailing()
	}
	if u.head != nil {
		u.grow()
	}
}

func (s *upstreamSide) settings(w *worker, c *conn, first bool, maxStreams uint32, set bool) {
	u := s.u
	recovered := false
	defer func() {
		if recovered { // not under the lock: whoever reads the log may be slow
			u.relay.cfg.Logger.Info("upstream reachable again", "upstream", u.cfg.Addr)
		}
	}()
	u.mu.Lock()
	if first {
		s.max = maxWindow
	}
	if set {
		s.max = int(min(maxStreams, maxWindow))
	}
	if first {
		s.ready = true
		s.connected.Stop()
		u.dialing--
		recovered = u.failures > 0
		u.failures, u.lastErr = 0, nil
		if u.failing.Load() {
			u.recovered.Store(w.now.UnixNano())
		}
		if !u.retired {
			u.conns = append(u.conns, s)
		}
		u.noteFailing()
		if u.retired {
			c.mu.Lock()
			c.noNew = true
			c.mu.Unlock()
		}
	}
	u.serveWaiting(w)
	u.mu.Unlock()
}

func (s *upstreamSide) gone(w *worker, c *conn, streams []*stream) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	s.leavePool()
	s.u.mu.Lock()
	ready := s.ready
	s.u.mu.Unlock()
	if !ready {
		s.u.connectFailed(w, fmt.Errorf("connection ended before SETTINGS: %w", err))
	}
	for _, st := range streams {
		st.call.attemptEnded(w, st, Lost, codeUnavailable, 0, fmt.Sprintf("upstream connection lost: %v", err))
	}
}

// sweep closes connections that nobody needs any more.
func (s *upstreamSide) sweep(w *worker, c *conn) {
	s.u.mu.Lock()
	idle := s.ready && s.active == 0
	old := idle && w.now.Sub(s.idle) > s.u.relay.cfg.UpstreamIdle
	s.u.mu.Unlock()
	if old {
		s.leavePool()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old {
		c.noNew = true
	}
	if idle && c.noNew && len(c.streams) == 0 && !c.closing && !c.closed {
		c.goAway(w, http2.ErrCodeNo, "")
		c.closing = true
	}
}
