package sample

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"sluice/proto/inference"
)

// Names of the tensors. The input has a row per penguin with a column per
// element of [Features]; the outputs have a row per penguin as well.
const (
	InputName         = "measurements"
	OutputSpecies     = "species"
	OutputProbability = "probabilities"
)

// MaxRows is the largest batch taken. It bounds what one request may cost.
const MaxRows = 65536

// describe is the model's metadata.
func describe(m *Model) *inference.ModelMetadataResponse {
	type tensor = inference.ModelMetadataResponse_TensorMetadata
	return &inference.ModelMetadataResponse{
		Name:     m.Name,
		Versions: []string{m.Version},
		Platform: "sluice_sample",
		Inputs:   []*tensor{{Name: InputName, Datatype: "FP32", Shape: []int64{-1, NumFeatures}}},
		Outputs: []*tensor{
			{Name: OutputSpecies, Datatype: "BYTES", Shape: []int64{-1}},
			{Name: OutputProbability, Datatype: "FP32", Shape: []int64{-1, int64(len(m.Classes))}},
		},
	}
}

// infer runs the model. Its errors are the caller's mistakes.
func infer(m *Model, req *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	wanted, err := requestedOutputs(req.GetOutputs())
	if err != nil {
		return nil, err
	}
	rows, err := decodeRows(req)
	if err != nil {
		return nil, err
	}
	species := make([]string, len(rows))
	probabilities := make([]float32, 0, len(rows)*len(m.Classes))
	for i, row := range rows {
		p := m.Predict(row)
		species[i] = m.Classes[argmax(p)]
		for _, v := range p {
			probabilities = append(probabilities, float32(v))
		}
	}

	resp := &inference.ModelInferResponse{ModelName: m.Name, ModelVersion: m.Version, Id: req.GetId()}
	answer := answer{resp: resp, raw: len(req.GetRawInputContents()) > 0}
	for _, name := range wanted {
		switch name {
		case OutputSpecies:
			answer.addStrings(name, species)
		case OutputProbability:
			answer.addFloats(name, probabilities, int64(len(rows)), int64(len(m.Classes)))
		}
	}
	return resp, nil
}

// requestedOutputs returns the names of the outputs to give: all if none is named.
func requestedOutputs(requested []*inference.ModelInferRequest_InferRequestedOutputTensor) ([]string, error) {
	all := []string{OutputSpecies, OutputProbability}
	if len(requested) == 0 {
		return all, nil
	}
	var names []string
	for i, output := range requested {
		name := output.GetName()
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("outputs[%d].name: got %q, want one of %q", i, name, all)
		}
		if slices.Contains(names, name) {
			return nil, fmt.Errorf("outputs[%d].name: got %q a second time, want each output once", i, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// decodeRows reads and checks the one input tensor.
func decodeRows(req *inference.ModelInferRequest) ([]Measurements, error) {
	if n := len(req.GetInputs()); n != 1 {
		return nil, fmt.Errorf("inputs: got %d tensors, want one named %q", n, InputName)
	}
	input := req.GetInputs()[0]
	if input.GetName() != InputName {
		return nil, fmt.Errorf("inputs[0].name: got %q, want %q", input.GetName(), InputName)
	}
	shape := input.GetShape()
	if len(shape) != 2 || shape[0] < 1 || shape[0] > MaxRows || shape[1] != NumFeatures {
		return nil, fmt.Errorf("inputs[0].shape: got %d, want [rows %d] with 1 to %d rows", shape, NumFeatures, MaxRows)
	}
	values, err := decodeValues(req, input, int(shape[0])*NumFeatures)
	if err != nil {
		return nil, err
	}
	rows := make([]Measurements, shape[0])
	for i, v := range values {
		if math.IsNaN(v) || math.Abs(v) > math.MaxFloat32 { // beyond it, sums could overflow to NaN
			return nil, fmt.Errorf("inputs[0]: row %d, %s: got %v, want a finite number in the range of FP32", i/NumFeatures, Features[i%NumFeatures], v)
		}
		rows[i/NumFeatures][i%NumFeatures] = v
	}
	return rows, nil
}

// decodeValues returns the want elements of the input, from wherever the request carries them.
func decodeValues(req *inference.ModelInferRequest, input *inference.ModelInferRequest_InferInputTensor, want int) ([]float64, error) {
	size, ok := map[string]int{"FP32": 4, "FP64": 8}[input.GetDatatype()]
	if !ok {
		return nil, fmt.Errorf("inputs[0].datatype: got %q, want FP32 or FP64", input.GetDatatype())
	}
	if raw := req.GetRawInputContents(); len(raw) > 0 {
		if len(raw) != 1 {
			return nil, fmt.Errorf("raw_input_contents: got %d entries, want one per input, 1", len(raw))
		}
		if input.GetContents() != nil {
			return nil, fmt.Errorf("inputs[0].contents: got contents beside raw_input_contents, want one of them")
		}
		if len(raw[0]) != want*size {
			return nil, fmt.Errorf("raw_input_contents[0]: got %d bytes, want %d for shape %d of %s", len(raw[0]), want*size, input.GetShape(), input.GetDatatype())
		}
		return decodeRaw(raw[0], size), nil
	}
	return typedValues(input, want)
}

// decodeRaw reads little-endian floating-point numbers of size bytes each.
func decodeRaw(raw []byte, size int) []float64 {
	values := make([]float64, len(raw)/size)
	for i := range values {
		element := raw[i*size:]
		if size == 4 {
			values[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(element)))
		} else {
			values[i] = math.Float64frombits(binary.LittleEndian.Uint64(element))
		}
	}
	return values
}

// typedValues reads the contents field that belongs to the datatype and insists
// that the others are empty.
func typedValues(input *inference.ModelInferRequest_InferInputTensor, want int) ([]float64, error) {
	c := input.GetContents()
	field, values := "fp64_contents", c.GetFp64Contents()
	others := len(c.GetFp32Contents())
	if input.GetDatatype() == "FP32" {
		field, others = "fp32_contents", len(values)
		values = make([]float64, len(c.GetFp32Contents()))
		for i, v := range c.GetFp32Contents() {
			values[i] = float64(v)
		}
	}
	others += len(c.GetBoolContents()) + len(c.GetIntContents()) + len(c.GetInt64Contents()) +
		len(c.GetUintContents()) + len(c.GetUint64Contents()) + len(c.GetBytesContents())
	if others > 0 {
		return nil, fmt.Errorf("inputs[0].contents: got %d values outside %s, want none for datatype %s", others, field, input.GetDatatype())
	}
	if len(values) != want {
		return nil, fmt.Errorf("inputs[0].contents.%s: got %d values, want %d for shape %d", field, len(values), want, input.GetShape())
	}
	return values, nil
}

// answer adds outputs to resp in the form in which the request carried its input.
type answer struct {
	resp *inference.ModelInferResponse
	raw  bool
}

func (a answer) addStrings(name string, values []string) {
	output := &inference.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "BYTES", Shape: []int64{int64(len(values))}}
	a.resp.Outputs = append(a.resp.Outputs, output)
	if a.raw {
		var raw []byte
		for _, v := range values {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(len(v)))
			raw = append(raw, v...)
		}
		a.resp.RawOutputContents = append(a.resp.RawOutputContents, raw)
		return
	}
	output.Contents = &inference.InferTensorContents{BytesContents: make([][]byte, len(values))}
	for i, v := range values {
		output.Contents.BytesContents[i] = []byte(v)
	}
}

func (a answer) addFloats(name string, values []float32, shape ...int64) {
	output := &inference.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "FP32", Shape: shape}
	a.resp.Outputs = append(a.resp.Outputs, output)
	if a.raw {
		raw := make([]byte, 0, 4*len(values))
		for _, v := range values {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		a.resp.RawOutputContents = append(a.resp.RawOutputContents, raw)
		return
	}
	output.Contents = &inference.InferTensorContents{Fp32Contents: values}
}
