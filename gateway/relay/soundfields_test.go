package relay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// TestRememberedFieldsAreJudgedAsNewOnes reads random lists of fields that repeat, some of
// which are at fault by themselves, by their place or by being there twice, with one list
// that remembers all those before and with one that knows nothing.
func TestRememberedFieldsAreJudgedAsNewOnes(t *testing.T) {
	pool := slices.Concat(typicalRequest(), typicalRequest(), tracedRequest, []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "x-user", Value: "4711"}, {Name: "x-empty"}, {Name: "", Value: "nameless"},
		{Name: "X-Upper", Value: "1"}, {Name: "x-ctl", Value: "a\x00b"}, {Name: "x-padded", Value: " 1"},
		{Name: "connection", Value: "close"}, {Name: "te", Value: "gzip"}, {Name: "x-long", Value: strings.Repeat("v", 2*maxSoundField)},
		{Name: "authorization", Value: "token", Sensitive: true},
	})
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, drop := range []bool{false, true} {
		warm := &fieldList{maxBytes: 1 << 20, maxFields: 100, dropHopByHop: drop}
		for i := range 20000 {
			fresh := &fieldList{maxBytes: 1 << 20, maxFields: 100, dropHopByHop: drop}
			warm.reset()
			for range 1 + rnd.IntN(6) {
				f := pool[rnd.IntN(len(pool))]
				if rnd.IntN(10) == 0 {
					f = hpack.HeaderField{Name: fmt.Sprintf("x-%d", rnd.IntN(300)), Value: fmt.Sprint(rnd.Int())}
				}
				warm.add(f)
				fresh.add(f)
			}
			if warm.problem != fresh.problem || !slices.Equal(warm.fields, fresh.fields) {
				t.Fatalf("list %d, as of answers %v:\n%v %q, remembering those before\n%v %q, new", i, drop, warm.fields, warm.problem, fresh.fields, fresh.problem)
			}
		}
	}
}

// What a peer can have remembered is bounded in bytes, not only in fields.
func TestLongFieldsAreNotRemembered(t *testing.T) {
	l := &fieldList{maxBytes: 1 << 30, maxFields: 1 << 20}
	for i := range 10000 {
		l.reset()
		l.add(hpack.HeaderField{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("v", 1+i)})
	}
	kept := 0
	for _, s := range l.sound.sets {
		for _, f := range s {
			kept += len(f.name) + len(f.value)
		}
	}
	if most := 64 << 10; kept > most || kept == 0 {
		t.Errorf("%d bytes of fields are remembered, want some and at most %d", kept, most)
	}
}

// What two clients send alike is one string once it has been seen again, whoever sent it.
func TestRepeatedFieldsAreSharedBetweenConnections(t *testing.T) {
	last := func() hpack.HeaderField {
		l := &fieldList{maxBytes: 1 << 20, maxFields: 100}
		f := hpack.HeaderField{Name: strings.Clone("x-team"), Value: strings.Clone("fraud")}
		for range 3 {
			l.reset()
			l.add(f)
		}
		return l.fields[0]
	}
	a, b := last(), last()
	if a != b || a.Value != "fraud" || !sameString(a.Name, b.Name) || !sameString(a.Value, b.Value) {
		t.Errorf("%v and %v are not the same memory", a, b)
	}
}
