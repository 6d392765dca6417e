package relay

import "encoding/binary"

// messagePrefix is the length of what stands before every gRPC message: a flag
// and the message's length.
const messagePrefix = 5

// messageMeter follows the messages of one direction by their prefixes, without
// looking into them. The zero value is at the start of a body.
type messageMeter struct {
	left   uint32 // of the message under way
	have   int    // bytes of the prefix seen
	prefix [messagePrefix]byte
}

// feed takes the next piece of a body, of any size. It returns the length of the
// first message that is longer than limit, in bytes, or 0; that message has not
// left whole then.
func (m *messageMeter) feed(p []byte, limit int) (tooLong uint32) {
	for len(p) > 0 {
		if m.left > 0 {
			n := min(uint32(len(p)), m.left)
			m.left -= n
			p = p[n:]
			continue
		}
		n := copy(m.prefix[m.have:], p)
		m.have += n
		p = p[n:]
		if m.have < messagePrefix {
			return 0
		}
		m.have = 0
		if m.left = binary.BigEndian.Uint32(m.prefix[1:]); uint64(m.left) > uint64(limit) {
			return m.left
		}
	}
	return 0
}
