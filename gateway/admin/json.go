package admin

import (
	"strings"

	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// strictJSON is the JSON that people type. A field that does not exist is refused:
// a dry run that is misspelt must not become a change.
type strictJSON struct{ name string }

// Name implements [connect.Codec].
func (j strictJSON) Name() string { return j.name }

// Marshal implements [connect.Codec].
func (strictJSON) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("got %T, want a protobuf message", message)
	}
	return protojson.Marshal(m)
}

// Unmarshal implements [connect.Codec].
func (strictJSON) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("got %T, want a protobuf message", message)
	}
	if err := protojson.Unmarshal(data, m); err != nil {
		return fmt.Errorf("%s; want JSON with fields of %s: %s", cleaned(err), m.ProtoReflect().Descriptor().Name(), fieldNames(m))
	}
	return nil
}

// cleaned is what protojson says, without its own name and the space that it varies.
func cleaned(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(text, "proto: ")
}

// fieldNames lists what a message may hold, as JSON calls it.
func fieldNames(m proto.Message) string {
	var names []string
	for fields, i := m.ProtoReflect().Descriptor().Fields(), 0; i < fields.Len(); i++ {
		names = append(names, fields.Get(i).JSONName())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
