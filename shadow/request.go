package shadow

import (
	"google.golang.org/protobuf/encoding/protowire"

	"sluice/proto/inference"
)

// Numbers of the fields of a ModelInferRequest in which parameters are, and of the fields of
// an input, of an output that is asked for, and of the request itself which are these maps.
const (
	requestParameters = 4
	inputsField       = 5
	inputParameters   = 4
	outputsField      = 6
	outputParameters  = 2
	keyField          = 1 // of a map's entry
)

// stateful reports whether a message of a call of that path belongs to a sequence, of which the
// server keeps a state that a copy would change, and whether it names memory that is shared with
// the server: a copy would write the shadow's answer where the caller reads its own.
func stateful(path string, message []byte) (sequence, shared bool) {
	if path != inference.GRPCInferenceService_ModelInfer_FullMethodName &&
		path != inference.GRPCInferenceService_ModelStreamInfer_FullMethodName {
		return false, false
	}
	inMemory := func(tensor []byte, parameters protowire.Number) {
		eachKey(tensor, parameters, func(key []byte) { shared = shared || string(key) == "shared_memory_region" })
	}
	eachField(message, func(number protowire.Number, b []byte) {
		switch number {
		case requestParameters:
			sequence = sequence || string(keyOf(b)) == "sequence_id"
		case inputsField:
			inMemory(b, inputParameters)
		case outputsField:
			inMemory(b, outputParameters)
		}
	})
	return sequence, shared
}

// eachKey calls f for the keys of the map that is a message's field of that number.
func eachKey(message []byte, field protowire.Number, f func(key []byte)) {
	eachField(message, func(number protowire.Number, entry []byte) {
		if number == field {
			f(keyOf(entry))
		}
	})
}

// keyOf returns the key of a map's entry.
func keyOf(entry []byte) (key []byte) {
	eachField(entry, func(number protowire.Number, b []byte) {
		if number == keyField {
			key = b
		}
	})
	return key
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
