package relay

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
)

func (c *conn) onReset(w *worker, h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("RST_STREAM on stream 0")
	}
	if len(p) != 4 {
		return &connError{http2.ErrCodeFrameSize, "RST_STREAM of a wrong length"}
	}
	c.mu.Lock()
	s := c.streams[h.stream]
	if s == nil {
		idle := c.idle(h.stream)
		c.mu.Unlock()
		if idle {
			return protocolError(fmt.Sprintf("RST_STREAM on idle stream %d", h.stream))
		}
		return nil
	}
	s.gotEnd = true
	s.removeLocked()
	c.mu.Unlock()
	return c.side.reset(w, c, s, http2.ErrCode(binary.BigEndian.Uint32(p)))
}

func (c *conn) onSettings(w *worker, h frameHeader, p []byte) error {
	if h.stream != 0 {
		return protocolError("SETTINGS on a stream")
	}
	if h.flags.Has(http2.FlagSettingsAck) {
		if len(p) != 0 {
			return &connError{http2.ErrCodeFrameSize, "SETTINGS acknowledgement with a payload"}
		}
		if !c.seenFirst {
			return protocolError("first frame is a SETTINGS acknowledgement")
		}
		return nil
	}
	if len(p)%6 != 0 {
		return &connError{http2.ErrCodeFrameSize, "SETTINGS of a wrong length"}
	}
	var maxStreams uint32
	setStreams := false
	c.mu.Lock()
	for ; len(p) > 0; p = p[6:] {
		id, v := http2.SettingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])
		if err := (http2.Setting{ID: id, Val: v}).Valid(); err != nil {
			c.mu.Unlock()
			code := http2.ErrCodeProtocol
			if id == http2.SettingInitialWindowSize {
				code = http2.ErrCodeFlowControl
			}
			return &connError{code, fmt.Sprintf("invalid %v: %d", id, v)}
		}
		switch id {
		case http2.SettingInitialWindowSize:
			if err := c.setPeerInitial(w, int64(v)); err != nil {
				c.mu.Unlock()
				return err
			}
		case http2.SettingMaxFrameSize:
			c.peerFrame = min(int(v), maxFrameLen)
		case http2.SettingHeaderTableSize:
			c.setTableSize(v)
		case http2.SettingMaxConcurrentStreams:
			maxStreams, setStreams = v, true
		case http2.SettingEnablePush:
			if c.isClient() && v != 0 {
				c.mu.Unlock()
				return protocolError("a server enabled push")
			}
		}
	}
	// The acknowledgement keeps its place: what is queued before it was made under
	// the settings before.
	b := c.outBuf()
	b.b = appendSettingsAck(b.b)
	c.appended(w)
	err := c.countControl()
	first := !c.seenFirst
	c.seenFirst = true
	c.mu.Unlock()
	c.side.settings(w, c, first, maxStreams, setStreams)
	return err
}

func (c *conn) onPing(w *worker, h frameHeader, p []byte) error {
	if h.stream != 0 {
		return protocolError("PING on a stream")
	}
	if len(p) != 8 {
		return &connError{http2.ErrCodeFrameSize, "PING of a wrong length"}
	}
	if h.flags.Has(http2.FlagPingAck) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.control(w, func(b []byte) []byte { return appendPing(b, true, p) })
}

func (c *conn) onGoAway(w *worker, h frameHeader, p []byte) error {
	if h.stream != 0 {
		return protocolError("GOAWAY on a stream")
	}
	if len(p) < 8 {
		return &connError{http2.ErrCodeFrameSize, "GOAWAY too short"}
	}
	c.side.goAway(w, c, binary.BigEndian.Uint32(p)&(1<<31-1), http2.ErrCode(binary.BigEndian.Uint32(p[4:])))
	return nil
}

func (c *conn) onPriority(w *worker, h frameHeader, p []byte) error {
	if h.stream == 0 {
		return protocolError("PRIORITY on stream 0")
	}
	if len(p) != 5 {
		return &connError{http2.ErrCodeFrameSize, "PRIORITY of a wrong length"}
	}
	if binary.BigEndian.Uint32(p)&(1<<31-1) != h.stream {
		return nil // priorities are advice, and not taken
	}
	c.mu.Lock()
	s := c.streams[h.stream]
	if s == nil {
		defer c.mu.Unlock()
		return c.resetUnknown(w, h.stream, http2.ErrCodeProtocol)
	}
	s.resetLocked(w, http2.ErrCodeProtocol)
	c.mu.Unlock()
	s.call.streamFault(w, s, "stream depends on itself")
	return nil
}

// recentResets remembers which streams this end has reset lately: frames that
// were under way then are not the peer's fault. A stream is forgotten when
// another one takes its place, which is no sooner than after as many streams.
type recentResets struct{ ids *[1024]uint32 }

func (r *recentResets) place(id uint32) *uint32 { return &r.ids[id/2%uint32(len(r.ids))] }

func (r *recentResets) add(id uint32) {
	if r.ids == nil {
		r.ids = new([1024]uint32) // most connections never need it
	}
	*r.place(id) = id
}

func (r *recentResets) has(id uint32) bool { return r.ids != nil && *r.place(id) == id }
