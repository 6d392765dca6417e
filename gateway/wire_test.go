package gateway

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// modelSpec makes a PredictRequest of TensorFlow Serving, whose schema is not
// among the project's: unknown fields travel as well as known ones.
func modelSpec(model string, version uint64, label string) proto.Message {
	spec := protowire.AppendTag(nil, 1, protowire.BytesType)
	spec = protowire.AppendString(spec, model)
	if version != 0 {
		value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), version)
		spec = protowire.AppendTag(spec, 2, protowire.BytesType)
		spec = protowire.AppendBytes(spec, value)
	}
	if label != "" {
		spec = protowire.AppendTag(spec, 4, protowire.BytesType)
		spec = protowire.AppendString(spec, label)
	}
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), spec))
	return m
}
