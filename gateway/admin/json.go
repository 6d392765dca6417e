package admin

import (
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
	return protojson.Unmarshal(data, m)
}
