// Package rawcodec is a grpc-go codec that leaves messages as bytes. The
// bench's server and client use it so that neither spends time on protobuf.
package rawcodec

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Message is one message as bytes.
type Message struct {
	// Body is what is sent; it must not change while calls still use it. On
	// receipt it is filled only if Keep is set.
	Body []byte
	// Length is the size of the received message in bytes.
	Length int
	// Keep asks for a received message's bytes, not only for their number.
	Keep bool
}

// Codec passes a [*Message] through untouched and lets everything else, such as
// the health service's messages, be protobuf. It is safe for concurrent use.
type Codec struct{}

// Name returns protobuf's content subtype, because that is what the bytes are.
func (Codec) Name() string { return "proto" }

// Marshal returns the bytes of a message.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *Message:
		return mem.BufferSlice{mem.SliceBuffer(m.Body)}, nil
	case proto.Message:
		b, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, fmt.Errorf("cannot send a %T", v)
}

// Unmarshal fills a message from the bytes received.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Message:
		m.Length = data.Len()
		if m.Keep {
			m.Body = data.Materialize()
		}
		return nil
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), m)
	}
	return fmt.Errorf("cannot receive a %T", v)
}
