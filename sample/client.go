package sample

import (
	"encoding/binary"
	"fmt"
	"math"

	"sluice/proto/inference"
)

// NewRequest asks a model for the species of the given penguins, in raw FP32.
func NewRequest(model string, rows ...Measurements) *inference.ModelInferRequest {
	raw := make([]byte, 0, 4*NumFeatures*len(rows))
	for _, row := range rows {
		for _, v := range row {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(v)))
		}
	}
	return &inference.ModelInferRequest{
		ModelName: model,
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{
			Name: InputName, Datatype: "FP32", Shape: []int64{int64(len(rows)), NumFeatures},
		}},
		RawInputContents: [][]byte{raw},
	}
}

// ReadSpecies returns the species an answer gives, one per row of the request.
func ReadSpecies(resp *inference.ModelInferResponse) ([]string, error) {
	for i, output := range resp.GetOutputs() {
		if output.GetName() != OutputSpecies {
			continue
		}
		if i < len(resp.GetRawOutputContents()) {
			return readStrings(resp.GetRawOutputContents()[i])
		}
		var species []string
		for _, v := range output.GetContents().GetBytesContents() {
			species = append(species, string(v))
		}
		return species, nil
	}
	return nil, fmt.Errorf("answer: got %d outputs, want one named %q among them", len(resp.GetOutputs()), OutputSpecies)
}

// readStrings reads raw BYTES elements: each follows its length in 4 little-endian bytes.
func readStrings(raw []byte) ([]string, error) {
	var values []string
	for len(raw) > 0 {
		if len(raw) < 4 {
			return nil, fmt.Errorf("%s: got %d bytes for a length, want 4", OutputSpecies, len(raw))
		}
		n := uint64(binary.LittleEndian.Uint32(raw))
		raw = raw[4:]
		if n > uint64(len(raw)) {
			return nil, fmt.Errorf("%s: got %d bytes for an element, want %d", OutputSpecies, len(raw), n)
		}
		values = append(values, string(raw[:n]))
		raw = raw[n:]
	}
	return values, nil
}
