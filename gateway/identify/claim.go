package identify

import "bytes"

// inlineText is how many bytes of a name are kept without an allocation. Model
// names are words or short paths; longer ones work and cost one allocation.
const inlineText = 64

// text is a short byte string that can be copied and reused.
type text struct {
	inline [inlineText]byte
	n      int
	long   []byte // holds everything once n would pass inlineText
}

func (t *text) reset() { t.n, t.long = 0, nil }

func appendText[T string | []byte](t *text, p T) {
	if t.long == nil && t.n+len(p) <= inlineText {
		t.n += copy(t.inline[t.n:], p)
		return
	}
	if t.long == nil {
		t.long = append(make([]byte, 0, t.n+len(p)), t.inline[:t.n]...)
	}
	t.long = append(t.long, p...)
	t.n = len(t.long)
}

func (t *text) bytes() []byte {
	if t.long != nil {
		return t.long
	}
	return t.inline[:t.n]
}

// claim is one value that every mention in a call has to agree on.
type claim struct {
	value text
	fixed bool // the value holds for the whole call from here on
	seen  bool // the current message has mentioned it...
	empty bool // ...as the empty string
}

// mention compares one more occurrence with the value and reports whether it
// agrees. Across messages an empty mention means the value; within a message
// it does not, because there the server keeps the last occurrence.
func (c *claim) mention(v []byte) bool {
	empty := len(v) == 0
	if c.seen && c.empty != empty {
		return false
	}
	first := !c.seen
	c.seen, c.empty = true, empty
	if first && !c.fixed {
		c.value.reset()
		appendText(&c.value, v)
		return true
	}
	return empty || bytes.Equal(v, c.value.bytes())
}

func (c *claim) nextMessage() { c.seen, c.empty = false, false }
