package shadow

import (
	"fmt"

	"google.golang.org/grpc/mem"
)

// outgoing is a message of a request: a part of a buffer that is given back once
// grpc-go has written it or lost interest.
type outgoing struct {
	body     mem.Buffer
	from, to int
}

// incoming is a message of an answer. It belongs to whoever asked for it.
type incoming struct{ bytes []byte }

// codec leaves messages as bytes. It is safe for concurrent use.
type codec struct{}

// Name returns protobuf's content subtype, because that is what the bytes are.
func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*outgoing)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	if m.from == m.to {
		return nil, nil
	}
	return mem.BufferSlice{m.body.Slice(m.from, m.to)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*incoming)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	m.bytes = data.Materialize()
	return nil
}
