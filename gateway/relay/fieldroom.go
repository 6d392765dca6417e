package relay

import (
	"sync"

	"golang.org/x/net/http2/hpack"
)

// fieldRoom is where the header fields of one call are kept, with room for what clients
// and servers usually send. It returns to a pool when the call is over, which the call itself
// cannot: readers may still be on their way to it then, to find out that it is over. That is
// two fifths of the memory that every call would need anew.
type fieldRoom struct {
	request [12]hpack.HeaderField
	answer  [6]hpack.HeaderField // of the first attempt, while it is held back
}

var fieldRooms = sync.Pool{New: func() any { return new(fieldRoom) }}

// takeFields copies the request's fields.
func (c *Call) takeFields(fields []hpack.HeaderField) {
	c.room = fieldRooms.Get().(*fieldRoom)
	c.fields = append(c.room.request[:0], fields...)
}

// holdAnswer copies the first fields of a's answer, which wait for what follows them.
func (c *Call) holdAnswer(a *attempt, fields []hpack.HeaderField) {
	if a == &c.first {
		a.answer = c.room.answer[:0]
	}
	a.answer = append(a.answer, fields...)
}

// freeFields gives the room back; the call is over, and has no fields any more.
func (c *Call) freeFields() {
	if c.room == nil {
		return
	}
	*c.room = fieldRoom{} // and keep nothing of the caller's alive
	fieldRooms.Put(c.room)
	c.room, c.fields, c.first.answer = nil, nil, nil
}
