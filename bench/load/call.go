package load

import (
	"encoding/binary"
	"fmt"
	"time"
)

// call is one open call. It belongs to its connection, whose lock protects it.
type call struct {
	phase *phase
	due   time.Duration // since the epoch; what the latency counts from
	sent  time.Duration // what the timeout counts from

	rest   []byte // of the request, not yet queued
	window int    // the server's, for the rest

	answer   messages
	bytes    int // of the answer's DATA
	consumed int // bytes received and not yet given back to the stream's window
	http     string
	status   string // grpc-status; empty until it came
	said     string // grpc-message, as it came
}

// outcome says how the call ended, its stream having ended in order: "" for OK.
func (c *call) outcome() string {
	switch {
	case c.http != "200":
		return fmt.Sprintf("HTTP status %q", c.http)
	case c.status == "":
		return "no grpc-status"
	case c.status != "0":
		return statusName(c.status)
	case !c.answer.whole():
		return "answer cut short"
	}
	return ""
}

// messagePrefix is gRPC's: a flag and four bytes of length.
const messagePrefix = 5

// messages counts gRPC's length-prefixed messages in DATA, which may cut them anywhere.
type messages struct {
	n      int // complete ones
	left   int // bytes of the current one's body that are still to come
	prefix [messagePrefix]byte
	got    int // bytes of the prefix
}

// add takes the next piece of the body.
func (m *messages) add(p []byte) {
	for len(p) > 0 {
		if m.left > 0 {
			k := min(m.left, len(p))
			m.left -= k
			p = p[k:]
			if m.left == 0 {
				m.n++
			}
			continue
		}
		k := copy(m.prefix[m.got:], p)
		m.got += k
		p = p[k:]
		if m.got == messagePrefix {
			m.got = 0
			m.left = int(binary.BigEndian.Uint32(m.prefix[1:]))
			if m.left == 0 {
				m.n++
			}
		}
	}
}

// whole reports whether no message is incomplete.
func (m *messages) whole() bool { return m.left == 0 && m.got == 0 }
