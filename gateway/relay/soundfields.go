package relay

import "golang.org/x/net/http2/hpack"

// soundFields remembers fields of a connection that were found to be in order by
// themselves: valid, not volatile, and not dropped. Like [encMemo] it knows them as the
// very same strings, which those are that the peer takes from its compression table, and
// saves looking at each of their bytes in every call. The zero value knows none.
type soundFields struct {
	sets [memoSets][2]soundField
}

type soundField struct{ name, value string }

// maxSoundField is the longest field that is remembered, in bytes of name and value: what
// a peer can have kept by this is bounded, and an access token is not yet too long.
const maxSoundField = 1 << 10

func (m *soundFields) has(f *hpack.HeaderField) bool {
	s := &m.sets[memoSet(f)]
	for i := range s {
		// The check for an empty place: no field that is in order has an empty name.
		if s[i].name != "" && sameString(s[i].value, f.Value) && sameString(s[i].name, f.Name) {
			return true
		}
	}
	return false
}

func (m *soundFields) learn(f *hpack.HeaderField) {
	if len(f.Name)+len(f.Value) > maxSoundField {
		return
	}
	s := &m.sets[memoSet(f)]
	s[1], s[0] = s[0], soundField{f.Name, f.Value}
}
