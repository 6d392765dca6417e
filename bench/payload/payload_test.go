package payload

import (
	"encoding/binary"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

// fields decodes the top level of a message, keeping the last value of each
// length-delimited field.
func fields(t interface{ Fatalf(string, ...any) }, message []byte) map[protowire.Number][]byte {
	out := make(map[protowire.Number][]byte)
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.BytesType {
			t.Fatalf("field %d: kind %d, %v", number, kind, protowire.ParseError(n))
		}
		message = message[n:]
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			t.Fatalf("field %d: %v", number, protowire.ParseError(n))
		}
		out[number], message = value, message[n:]
	}
	return out
}

// requestOfModel is Request for [Model].
func requestOfModel(size int) ([]byte, error) { return Request(Model, size) }

func TestMessagesHaveExactlyTheSizeAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(MinSize, 70_000).Draw(t, "size")
		for _, kind := range []struct {
			make func(int) ([]byte, error)
			raw  protowire.Number
		}{{requestOfModel, fieldRawRequest}, {Answer, fieldRawAnswer}} {
			framed, err := kind.make(size)
			if err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			if len(framed) != size {
				t.Fatalf("size %d: got %d bytes", size, len(framed))
			}
			if framed[0] != 0 {
				t.Fatalf("compressed flag = %d, want 0", framed[0])
			}
			if n := binary.BigEndian.Uint32(framed[1:]); int(n) != size-FramePrefix {
				t.Fatalf("length prefix = %d, want %d", n, size-FramePrefix)
			}
			got := fields(t, Message(framed))
			if name := string(got[fieldModelName]); name != Model {
				t.Fatalf("model name = %q, want %q", name, Model)
			}
			shape := fieldsOfTensor(t, got[fieldTensor])
			if want := uint64(len(got[kind.raw]) / 4); shape != want || len(got[kind.raw])%4 != 0 {
				t.Fatalf("shape says %d values, raw contents hold %d bytes", shape, len(got[kind.raw]))
			}
		}
	})
}

// fieldsOfTensor returns the second dimension of the tensor's shape.
func fieldsOfTensor(t interface{ Fatalf(string, ...any) }, tensor []byte) uint64 {
	meta := fields(t, tensor)
	if datatype := string(meta[tensorDatatype]); datatype != "FP32" {
		t.Fatalf("datatype = %q, want FP32", datatype)
	}
	_, n := protowire.ConsumeVarint(meta[tensorShape])
	dimension, n := protowire.ConsumeVarint(meta[tensorShape][n:])
	if n < 0 {
		t.Fatalf("shape: %v", protowire.ParseError(n))
	}
	return dimension
}

func TestSizeTooSmallIsRefused(t *testing.T) {
	if _, err := Request(Model, MinSize-1); err == nil {
		t.Fatalf("Request(%d) succeeded, want an error", MinSize-1)
	}
}
