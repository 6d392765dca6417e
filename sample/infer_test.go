package sample

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"sluice/proto/inference"
)

func appendFloat64(raw []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(raw, math.Float64bits(v))
}

// TestStringsSurviveTheRawForm: what an answer encodes, its reader decodes.
func TestStringsSurviveTheRawForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.String()).Draw(t, "values")
		for _, raw := range []bool{true, false} {
			resp := new(inference.ModelInferResponse)
			answer{resp: resp, raw: raw}.addStrings(OutputSpecies, want)
			got, err := ReadSpecies(resp)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("raw %v: got %q, %v, want %q", raw, got, err, want)
			}
		}
	})
}

func TestReadSpeciesRefusesBrokenAnswers(t *testing.T) {
	species := []*inference.ModelInferResponse_InferOutputTensor{{Name: OutputSpecies}}
	for name, resp := range map[string]*inference.ModelInferResponse{
		"no outputs":    {},
		"cut length":    {Outputs: species, RawOutputContents: [][]byte{{1, 0}}},
		"cut element":   {Outputs: species, RawOutputContents: [][]byte{{3, 0, 0, 0, 'a'}}},
		"giant element": {Outputs: species, RawOutputContents: [][]byte{{0xff, 0xff, 0xff, 0xff, 'a'}}},
	} {
		if got, err := ReadSpecies(resp); err == nil {
			t.Errorf("%s: got %q, want an error", name, got)
		}
	}
}

// FuzzInfer: any request is either refused or answered whole, with a species
// and probabilities for every row.
func FuzzInfer(f *testing.F) {
	model := load(f, "v2")
	for _, req := range []*inference.ModelInferRequest{
		NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}),
		{Inputs: []*inference.ModelInferRequest_InferInputTensor{{
			Name: InputName, Datatype: "FP64", Shape: []int64{1, 4},
			Contents: &inference.InferTensorContents{Fp64Contents: []float64{1, 2, 3, 4}},
		}}},
	} {
		data, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req := new(inference.ModelInferRequest)
		if proto.Unmarshal(data, req) != nil {
			return
		}
		req.Outputs = nil
		resp, err := infer(model, req)
		if err != nil {
			return
		}
		rows := int(req.GetInputs()[0].GetShape()[0])
		species, err := ReadSpecies(resp)
		if err != nil || len(species) != rows {
			t.Fatalf("got %d species, %v, for %d rows", len(species), err, rows)
		}
		for _, s := range species {
			if !slices.Contains(Species, s) {
				t.Fatalf("got species %q", s)
			}
		}
		for _, v := range resp.GetOutputs()[1].GetContents().GetFp32Contents() {
			if !(v >= 0 && v <= 1) {
				t.Fatalf("got probability %v", v)
			}
		}
	})
}

func BenchmarkInfer(b *testing.B) {
	model := load(b, "v2")
	req := NewRequest(ModelName, Penguins()[0].Measurements)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := infer(model, req); err != nil {
			b.Fatal(err)
		}
	}
}
