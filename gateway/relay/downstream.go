package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// downstreamSide is the server side of a connection: a client's.
type downstreamSide struct {
	relay  *Relay
	addr   net.Addr
	retire time.Time // when GOAWAY is due
	abuse  resetMeter

	// Guarded by conn.mu.
	drained time.Time // when the first GOAWAY was sent
	last    bool      // the final GOAWAY has been sent
	idle    time.Time // since when there has been no call
}

// resetMeter notices clients that open calls only to reset them (CVE-2023-44487)
// or to make the relay reset them (CVE-2025-8671). It belongs to the connection's
// reader.
type resetMeter struct {
	opened, resets int
	limit          int
}

// earlyReset is how soon after its opening a reset counts.
const earlyReset = time.Second

func (m *resetMeter) open() {
	if m.opened++; m.opened > 4*m.limit {
		// Old behaviour fades, so that a long good life does not pay for a flood.
		m.opened, m.resets = m.opened/2, m.resets/2
	}
}

func (m *resetMeter) early() { m.resets++ }

func (m *resetMeter) flooded() bool { return m.resets >= m.limit && 2*m.resets > m.opened }

// serve runs an accepted connection until it ends.
func (r *Relay) serve(nc net.Conn, t transport) {
	w := r.newWorker()
	age := r.cfg.MaxAge + time.Duration((rand.Float64()-0.5)*0.2*float64(r.cfg.MaxAge))
	s := &downstreamSide{relay: r, addr: nc.RemoteAddr(), retire: w.now.Add(age), idle: w.now}
	s.abuse.limit = r.cfg.EarlyResets
	c := newConn(r, t, s, nc.RemoteAddr().String())
	c.preface = true
	c.mu.Lock()
	c.ctl = appendSettings(c.ctl,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: r.cfg.MaxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(r.cfg.StreamWindow)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(r.cfg.MaxHeaderBytes)})
	if n := r.cfg.ConnWindow - initialWindow; n > 0 {
		c.ctl = appendWindowUpdate(c.ctl, 0, n)
	}
	w.touch(c)
	c.mu.Unlock()
	if !r.addConn(c) {
		t.close()
		return
	}
	defer r.removeConn(c)
	if r.isDraining() {
		s.drain(w, c) // its handshake was under way when the others were told
	}
	c.partial.Store(r.since(w.now)) // the handshake timeout runs
	c.readLoop(w)
}

func (s *downstreamSide) headers(w *worker, c *conn, id uint32, end bool, f *fieldList) error {
	if id%2 == 0 {
		return protocolError(fmt.Sprintf("HEADERS on stream %d: clients open odd ones", id))
	}
	c.mu.Lock()
	if id <= c.lastID {
		return s.requestTrailers(w, c, id, end, f)
	}
	c.lastID = id
	if s.last {
		c.mu.Unlock()
		return nil // above the id named in GOAWAY: the client knows that we ignore it
	}
	if len(c.streams) >= int(s.relay.cfg.MaxStreams) {
		defer c.mu.Unlock()
		return c.resetUnknown(w, id, http2.ErrCodeRefusedStream)
	}
	if s.abuse.open(); s.abuse.flooded() {
		c.mu.Unlock()
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many calls reset, or made to be reset, at once"}
	}
	if c.queued() > stuckQueues*c.relay.cfg.WriteQueue {
		// The client does not read, and answers made here wait for no window: what
		// is counted for it now are control frames.
		defer c.mu.Unlock()
		return c.resetUnknown(w, id, http2.ErrCodeRefusedStream)
	}
	req, problem := parseRequest(f)
	if problem != "" && !f.tooBig {
		defer c.mu.Unlock()
		s.abuse.early()
		return c.resetUnknown(w, id, http2.ErrCodeProtocol)
	}
	call := &Call{relay: s.relay, req: req.announced, opened: w.now, keepBody: true, bodyEnded: end}
	call.takeFields(f.fields)
	call.progressAt.Store(s.relay.since(w.now))
	d := &call.down
	d.conn, d.call, d.id, d.gotEnd = c, call, id, end
	d.sendWin, d.recvWin = c.peerInitial, int64(s.relay.cfg.StreamWindow)
	c.streams[id] = d
	c.mu.Unlock()
	s.relay.calls.Add(1)

	call.mu.Lock()
	defer call.mu.Unlock()
	switch {
	case f.tooBig:
		st := call.status(Refused, codeResourceExhausted, fmt.Sprintf(
			"header list above %d bytes or %d fields", f.maxBytes, f.maxFields))
		st.HTTP = 431
		call.refuse(w, st, Refused)
	case req.method != "POST":
		st := call.status(Refused, codeInternal, fmt.Sprintf("method %q, gRPC calls are POST", req.method))
		st.HTTP = 405
		call.refuseAtEnd(w, st)
	case !isGRPC(req.contentType):
		st := call.status(Refused, codeInternal, fmt.Sprintf("content-type %q, want application/grpc", req.contentType))
		st.HTTP = 415
		call.refuseAtEnd(w, st)
	case req.badTimeout != "":
		st := call.status(Refused, codeInternal, fmt.Sprintf(
			"grpc-timeout %q, want at most eight digits and one of H M S m u n", req.badTimeout))
		st.HTTP = 400
		call.refuse(w, st, Refused)
	case end && req.contentLength > 0:
		call.abortDown(w, http2.ErrCodeProtocol)
	default:
		call.begin(w)
	}
	return nil
}

// requestTrailers takes HEADERS on a stream that is not new. gRPC clients send
// none; others may, to end the request. c.mu is held on entry and released.
func (s *downstreamSide) requestTrailers(w *worker, c *conn, id uint32, end bool, f *fieldList) error {
	d := c.streams[id]
	if d == nil {
		crossed := c.recent.has(id)
		c.mu.Unlock()
		if crossed {
			return nil
		}
		return &connError{http2.ErrCodeStreamClosed, fmt.Sprintf("HEADERS on closed stream %d", id)}
	}
	fault, code := "", http2.ErrCodeProtocol
	switch {
	case d.gotEnd:
		fault, code = "HEADERS after END_STREAM", http2.ErrCodeStreamClosed
	case !end:
		fault = "trailers without END_STREAM"
	case f.problem != "":
		fault = f.problem
	default:
		for i := range f.fields {
			if f.fields[i].Name[0] == ':' {
				fault = "pseudo-field in trailers"
			}
		}
	}
	if fault != "" {
		d.resetLocked(w, code)
		c.mu.Unlock()
		d.call.streamFault(w, d, fault)
		return nil
	}
	d.gotEnd = true
	c.mu.Unlock()
	d.call.data(w, d, nil, true) // gRPC gives trailers of a request no meaning
	return nil
}

func (s *downstreamSide) reset(w *worker, c *conn, d *stream, code http2.ErrCode) error {
	if w.now.Sub(d.call.opened) < earlyReset {
		if s.abuse.early(); s.abuse.flooded() {
			d.call.canceled(w, "reset by the client")
			return &connError{http2.ErrCodeEnhanceYourCalm, "too many calls reset at once"}
		}
	}
	d.call.abandoned(w, code)
	return nil
}

func (s *downstreamSide) goAway(*worker, *conn, uint32, http2.ErrCode) {}

func (s *downstreamSide) settings(*worker, *conn, bool, uint32, bool) {}

func (s *downstreamSide) gone(w *worker, _ *conn, streams []*stream) {
	for _, d := range streams {
		d.call.canceled(w, "the client's connection is gone")
	}
}

// drain sends the first of two GOAWAYs: the second one names the last stream
// once the client has had time to see the first (RFC 9113, 6.8).
func (s *downstreamSide) drain(w *worker, c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.drained.IsZero() && !c.closed {
		s.drained = w.now
		b := c.outBuf()
		b.b = appendGoAway(b.b, maxWindow, http2.ErrCodeNo, "")
		c.appended(w)
	}
}

// drainGrace is the time between the two GOAWAYs: a round trip and more.
const drainGrace = time.Second

// sweep does what time brings about: drain, age, idleness, timeouts.
func (s *downstreamSide) sweep(w *worker, c *conn) {
	c.mu.Lock()
	busy := len(c.streams) > 0
	if busy {
		s.idle = time.Time{}
	} else if s.idle.IsZero() {
		s.idle = w.now
	}
	switch {
	case s.drained.IsZero():
	case !s.last && w.now.Sub(s.drained) >= drainGrace:
		s.last = true
		c.goAway(w, http2.ErrCodeNo, "")
		fallthrough
	case s.last && !busy:
		if len(c.streams) == 0 && !c.closing {
			c.closing = true
			w.touch(c)
		}
	}
	idle, drained := s.idle, !s.drained.IsZero()
	c.mu.Unlock()
	if !drained && (w.now.After(s.retire) || (!idle.IsZero() && w.now.Sub(idle) > s.relay.cfg.IdleTimeout)) {
		s.drain(w, c)
	}
}
