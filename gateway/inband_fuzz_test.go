package gateway

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
)

// wellFormed reports whether m is a sequence of fields by protobuf's own reader, and
// whether one of them is an error_message that is not empty. sound is false where the
// scanner may think better of m: groups that do not match, or are nested by the thousand.
func wellFormed(m []byte) (ok, failed, sound bool) {
	for len(m) > 0 {
		number, kind, n := protowire.ConsumeField(m)
		if n < 0 {
			why := protowire.ParseError(n).Error()
			return false, failed, why != protowire.ParseError(endGroup).Error() && why != protowire.ParseError(tooDeep).Error()
		}
		if !number.IsValid() {
			return false, failed, true // which protowire leaves to its callers
		}
		if number == errorField && kind == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(m)
			value, _ := protowire.ConsumeBytes(m[tag:])
			failed = failed || len(value) > 0
		}
		m = m[n:]
	}
	return true, failed, true
}

// What protowire says of groups that do not match, and of those nested too deeply.
const (
	endGroup = -5
	tooDeep  = -6
)

// FuzzErrorScanner holds the scanner against protobuf's decoder and against its reader of
// fields, whole and in pieces, with another message behind it.
func FuzzErrorScanner(f *testing.F) {
	twice := slices.Concat(framed(f, broken)[5:], protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), 0))
	for i, m := range [][]byte{
		nil, framed(f, broken)[5:], framed(f, healthy)[5:], twice, inGroup(framed(f, broken)[5:]),
		bytes.Repeat([]byte{0xff}, 12), {0x0a, 0x05, 'x'}, {0x08, 1}, {0x0b, 0x0c}, {0, 0},
	} {
		f.Add(m, uint8(i), false)
	}
	next := framed(f, broken)
	f.Fuzz(func(t *testing.T, m []byte, size uint8, compressed bool) {
		prefix := byte(0)
		if compressed {
			prefix = 1
		}
		answer := frame(prefix, m)
		failed, good := scan(answer, len(answer))
		if f2, g2 := scan(answer, 1+int(size)); f2 != failed || g2 != good {
			t.Fatalf("whole: %d failed, %d good; in pieces of %d: %d and %d", failed, good, 1+int(size), f2, g2)
		}
		if f2, g2 := scan(append(answer, next...), 1+int(size)); f2 != failed+1 || g2 != good {
			t.Fatalf("alone: %d failed, %d good; with an error behind it: %d and %d", failed, good, f2, g2)
		}
		if compressed {
			if failed+good > 0 {
				t.Fatalf("compressed: %d failed, %d good, want nothing said", failed, good)
			}
			return
		}
		ok, bad, sound := wellFormed(m)
		switch {
		case ok && (failed == 1) != bad, ok && (good == 1) == bad:
			t.Fatalf("has an error: %v; found: %d failed, %d good", bad, failed, good)
		case !ok && sound && good > 0:
			t.Fatal("not well-formed, and found good")
		}
		var decoded pb.ModelStreamInferResponse
		if proto.Unmarshal(m, &decoded) != nil {
			return
		}
		if !ok || decoded.ErrorMessage != "" && failed != 1 {
			t.Fatalf("the message of %q: well-formed %v, %d failed, %d good", decoded.ErrorMessage, ok, failed, good)
		}
	})
}
