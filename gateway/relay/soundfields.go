package relay

import (
	"unique"

	"golang.org/x/net/http2/hpack"
)

// soundFields remembers fields of a connection that were found to be in order by
// themselves: valid, not volatile, and not dropped. Like [encMemo] it knows them as the
// very same strings, which those are that the peer takes from its compression table, and
// saves looking at each of their bytes in every call. The zero value knows none.
//
// A field that comes again is also exchanged for the program's one copy of it. So what
// many clients send is the same memory when it goes on, and the memo of the connection
// that it goes to knows it, whoever sent it.
type soundFields struct {
	sets [memoSets][2]soundField
}

type soundField struct {
	fieldText
	shared unique.Handle[fieldText] // zero until the field has come again
}

type fieldText struct{ name, value string }

// maxSoundField is the longest field that is remembered, in bytes of name and value: what
// a peer can have kept by this is bounded, and an access token is not yet too long.
const maxSoundField = 1 << 10

// know reports whether f is remembered, and exchanges it for the shared copy.
func (m *soundFields) know(f *hpack.HeaderField) bool {
	s := &m.sets[memoSet(f)]
	for i := range s {
		e := &s[i]
		// No field that is in order has an empty name: such a place is free.
		if e.name == "" || !sameString(e.value, f.Value) || !sameString(e.name, f.Name) {
			continue
		}
		if e.shared == (unique.Handle[fieldText]{}) {
			e.shared = unique.Make(e.fieldText)
		}
		t := e.shared.Value()
		f.Name, f.Value = t.name, t.value
		return true
	}
	return false
}

func (m *soundFields) learn(f *hpack.HeaderField) {
	if len(f.Name)+len(f.Value) > maxSoundField {
		return
	}
	s := &m.sets[memoSet(f)]
	s[1], s[0] = s[0], soundField{fieldText: fieldText{f.Name, f.Value}}
}
