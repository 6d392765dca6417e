// Package payload makes the messages the bench sends and answers: real Open
// Inference Protocol messages of an exact size, with their gRPC framing.
package payload

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// Model is the model that answers name, and the harness's requests.
	Model = "bench"

	// InferMethod is the unary method the throughput measurements call.
	InferMethod = "/inference.GRPCInferenceService/ModelInfer"

	// StreamMethod is the streaming method the memory measurements call.
	StreamMethod = "/inference.GRPCInferenceService/ModelStreamInfer"

	// AnswerSizeKey is metadata that asks the backend for messages of that many bytes.
	AnswerSizeKey = "bench-answer-size"

	// AnswerCountKey is metadata that asks the backend for that many messages.
	AnswerCountKey = "bench-answer-count"

	// AnswerSize is the framed size in bytes of the answer to a measured
	// call: 0.4 KiB, what a classifier with a hundred scores sends.
	AnswerSize = 410

	// MinSize is the smallest framed message, in bytes, this package makes.
	MinSize = 64

	// FramePrefix is gRPC's message prefix in bytes: a flag and four of length.
	FramePrefix = 5
)

// Field numbers of ModelInferRequest, ModelInferResponse and their tensors, as
// the Open Inference Protocol defines them.
const (
	fieldModelName  = 1
	fieldID         = 3
	fieldTensor     = 5 // inputs of a request, outputs of a response
	fieldRawRequest = 7
	fieldRawAnswer  = 6

	tensorName     = 1
	tensorDatatype = 2
	tensorShape    = 3
)

// Request returns one gRPC-framed ModelInferRequest of exactly size bytes,
// prefix included: for a model, with one FP32 tensor sent raw.
func Request(model string, size int) ([]byte, error) {
	return framed(size, model, "input", fieldRawRequest)
}

// Answer returns one gRPC-framed ModelInferResponse of exactly size bytes,
// prefix included: model [Model], one FP32 tensor sent raw.
func Answer(size int) ([]byte, error) {
	return framed(size, Model, "scores", fieldRawAnswer)
}

// Message strips the gRPC prefix from a framed message.
func Message(framed []byte) []byte { return framed[FramePrefix:] }

// framed searches for the tensor length and request id that add up to size. A
// tensor grows in steps of four bytes and a length prefix in steps of one, so
// the id takes up the slack: some id of one to eight characters always fits.
func framed(size int, model, tensor string, rawField protowire.Number) ([]byte, error) {
	if size < MinSize || uint64(size) > math.MaxUint32 {
		return nil, fmt.Errorf("message size: got %d, want %d to %d bytes", size, MinSize, uint32(math.MaxUint32))
	}
	for floats := size / 4; floats >= 0; floats-- {
		for idLength := 1; idLength <= 8; idLength++ {
			// The header is cheap to build; the tensor is only counted.
			head := header(model, tensor, strings.Repeat("0", idLength), floats)
			raw := protowire.SizeTag(rawField) + protowire.SizeBytes(4*floats)
			if FramePrefix+len(head)+raw != size {
				continue
			}
			out := make([]byte, FramePrefix, size)
			binary.BigEndian.PutUint32(out[1:], uint32(size-FramePrefix))
			out = append(out, head...)
			out = protowire.AppendTag(out, rawField, protowire.BytesType)
			return protowire.AppendBytes(out, values(floats)), nil
		}
	}
	return nil, fmt.Errorf("message size: got %d, want more: the model's name and the rest of the request leave no room for a tensor", size)
}

// header encodes everything but the raw contents.
func header(model, tensor, id string, floats int) []byte {
	var meta []byte
	meta = protowire.AppendTag(meta, tensorName, protowire.BytesType)
	meta = protowire.AppendString(meta, tensor)
	meta = protowire.AppendTag(meta, tensorDatatype, protowire.BytesType)
	meta = protowire.AppendString(meta, "FP32")
	shape := protowire.AppendVarint(protowire.AppendVarint(nil, 1), uint64(floats))
	meta = protowire.AppendTag(meta, tensorShape, protowire.BytesType)
	meta = protowire.AppendBytes(meta, shape)

	var out []byte
	out = protowire.AppendTag(out, fieldModelName, protowire.BytesType)
	out = protowire.AppendString(out, model)
	out = protowire.AppendTag(out, fieldID, protowire.BytesType)
	out = protowire.AppendString(out, id)
	out = protowire.AppendTag(out, fieldTensor, protowire.BytesType)
	return protowire.AppendBytes(out, meta)
}

// values returns n little-endian floats that differ from each other, so that
// nothing on the way finds the tensor unusually easy to handle.
func values(n int) []byte {
	out := make([]byte, 0, 4*n)
	for i := range n {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(i)*0.37-1))
	}
	return out
}
