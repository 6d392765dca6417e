package shadow

import (
	"google.golang.org/protobuf/encoding/protowire"

	"sluice/proto/inference"
)

// Numbers of the fields that say whether a request belongs to a sequence.
const (
	parametersField = 4 // of ModelInferRequest, a map
	keyField        = 1 // of a map's entry
)

// inSequence reports whether a message of a call of that path belongs to a sequence:
// the server then keeps a state, which a copy would change.
func inSequence(path string, message []byte) bool {
	if path != inference.GRPCInferenceService_ModelInfer_FullMethodName &&
		path != inference.GRPCInferenceService_ModelStreamInfer_FullMethodName {
		return false
	}
	found := false
	eachField(message, func(number protowire.Number, entry []byte) {
		if number != parametersField {
			return
		}
		eachField(entry, func(number protowire.Number, key []byte) {
			found = found || number == keyField && string(key) == "sequence_id"
		})
	})
	return found
}

// eachField calls f for the fields of a message that are strings of bytes, up to where
// it stops being a message.
func eachField(b []byte, f func(protowire.Number, []byte)) {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return
			}
			f(number, v)
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
			return
		}
		b = b[n:]
	}
}
