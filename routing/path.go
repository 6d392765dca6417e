package routing

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// path leads from the document to a value in it.
type path []step

// step is a field's name or a map's key; or, without either, a list's index.
type step struct {
	field string
	key   string
	isKey bool
	index int
}

func (p path) field(name string) path { return p.to(step{field: name}) }
func (p path) key(key string) path    { return p.to(step{key: key, isKey: true}) }
func (p path) index(i int) path       { return p.to(step{index: i}) }

// to returns a longer path that shares no memory p could grow into.
func (p path) to(s step) path { return append(slices.Clip(p), s) }

// plainKey matches the keys that can be written after a dot.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// String writes the path as "routes[0].weights.v7"; keys that would not read
// well so are put in brackets and quotes.
func (p path) String() string {
	var b strings.Builder
	for _, s := range p {
		switch {
		case s.isKey && plainKey.MatchString(s.key):
			b.WriteString("." + s.key)
		case s.isKey:
			b.WriteString("[" + quote(s.key) + "]")
		case s.field == "":
			fmt.Fprintf(&b, "[%d]", s.index)
		case b.Len() == 0:
			b.WriteString(s.field)
		default:
			b.WriteString("." + s.field)
		}
	}
	if b.Len() == 0 {
		return "document"
	}
	return b.String()
}

// touches reports whether one path lies on the other, or both are the same.
func (p path) touches(q path) bool {
	n := min(len(p), len(q))
	return slices.Equal(p[:n], q[:n])
}
