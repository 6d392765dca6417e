package tensor

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
)

type (
	input  = inference.ModelInferRequest_InferInputTensor
	output = inference.ModelInferResponse_InferOutputTensor
	typed  = inference.InferTensorContents
)

// one reads an answer with a single output.
func one(t *testing.T, o *output, raw ...[]byte) Tensor {
	t.Helper()
	all, err := Outputs(&inference.ModelInferResponse{Outputs: []*output{o}, RawOutputContents: raw})
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func floats(x *Tensor) []float64 {
	dst := make([]float64, x.Len()+3)
	return dst[:x.Floats(dst, 0)]
}

func bits(x *Tensor) []uint64 {
	dst := make([]uint64, x.Len()+3)
	return dst[:x.Bits(dst, 0)]
}

var le = binary.LittleEndian

// Values written out by hand in every datatype, raw and, where the protocol has it,
// typed: both ways give the same numbers and the same bits.
func TestEveryDatatypeRawAndTyped(t *testing.T) {
	minus := func(n uint64) uint64 { return -n }
	for _, c := range []struct {
		datatype string
		raw      []byte
		typed    *typed
		floats   []float64
		bits     []uint64
	}{
		{"BOOL", []byte{0, 1, 2}, &typed{BoolContents: []bool{false, true, true}}, []float64{0, 1, 1}, []uint64{0, 1, 1}},
		{"UINT8", []byte{0, 7, 255}, &typed{UintContents: []uint32{0, 7, 255}}, []float64{0, 7, 255}, []uint64{0, 7, 255}},
		{"UINT16", []byte{1, 0, 0, 1, 255, 255}, &typed{UintContents: []uint32{1, 256, 65535}}, []float64{1, 256, 65535}, []uint64{1, 256, 65535}},
		{"UINT32", []byte{1, 0, 0, 0, 0, 0, 0, 128, 255, 255, 255, 255}, &typed{UintContents: []uint32{1, 1 << 31, 1<<32 - 1}},
			[]float64{1, 2147483648, 4294967295}, []uint64{1, 1 << 31, 1<<32 - 1}},
		{"UINT64", slices.Concat(le.AppendUint64(nil, 1), le.AppendUint64(nil, math.MaxUint64), le.AppendUint64(nil, 1<<53+1)),
			&typed{Uint64Contents: []uint64{1, math.MaxUint64, 1<<53 + 1}}, []float64{1, 1 << 64, 1 << 53}, []uint64{1, math.MaxUint64, 1<<53 + 1}},
		{"INT8", []byte{0x80, 0xff, 0x7f}, &typed{IntContents: []int32{-128, -1, 127}}, []float64{-128, -1, 127}, []uint64{minus(128), minus(1), 127}},
		{"INT16", []byte{0, 0x80, 0xfe, 0xff, 0xff, 0x7f}, &typed{IntContents: []int32{-32768, -2, 32767}},
			[]float64{-32768, -2, 32767}, []uint64{minus(32768), minus(2), 32767}},
		{"INT32", []byte{0, 0, 0, 0x80, 0xfd, 0xff, 0xff, 0xff, 9, 0, 0, 0}, &typed{IntContents: []int32{math.MinInt32, -3, 9}},
			[]float64{math.MinInt32, -3, 9}, []uint64{minus(1 << 31), minus(3), 9}},
		{"INT64", slices.Concat(le.AppendUint64(nil, 1<<63), le.AppendUint64(nil, minus(4)), le.AppendUint64(nil, 1<<53+1)),
			&typed{Int64Contents: []int64{math.MinInt64, -4, 1<<53 + 1}}, []float64{math.MinInt64, -4, 1 << 53}, []uint64{1 << 63, minus(4), 1<<53 + 1}},
		{"FP16", []byte{0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b}, nil, []float64{1, -2, 65504}, []uint64{0x3c00, 0xc000, 0x7bff}},
		{"BF16", []byte{0x80, 0x3f, 0x49, 0x40, 0x80, 0xff}, nil, []float64{1, 3.140625, math.Inf(-1)}, []uint64{0x3f80, 0x4049, 0xff80}},
		{"FP32", []byte{0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 0, 0, 0x80, 0x7f}, &typed{Fp32Contents: []float32{1, -2.5, float32(math.Inf(1))}},
			[]float64{1, -2.5, math.Inf(1)}, []uint64{0x3f800000, 0xc0200000, 0x7f800000}},
		{"FP64", slices.Concat(le.AppendUint64(nil, 0x3ff0000000000000), le.AppendUint64(nil, 0x8000000000000000), le.AppendUint64(nil, 0x400921fb54442d18)),
			&typed{Fp64Contents: []float64{1, math.Copysign(0, -1), math.Pi}}, []float64{1, 0, math.Pi},
			[]uint64{0x3ff0000000000000, 0x8000000000000000, 0x400921fb54442d18}},
	} {
		t.Run(c.datatype, func(t *testing.T) {
			check := func(t *testing.T, x Tensor) {
				t.Helper()
				if x.Datatype.String() != c.datatype || x.Len() != 3 || x.Name != "y" {
					t.Fatalf("read %v %v of %d elements", x.Name, x.Datatype, x.Len())
				}
				if got := floats(&x); !slices.Equal(got, c.floats) {
					t.Errorf("numbers %v, want %v", got, c.floats)
				}
				if got := bits(&x); !slices.Equal(got, c.bits) {
					t.Errorf("bits %x, want %x", got, c.bits)
				}
				var two [2]float64
				if n := x.Floats(two[:], 2); n != 1 || two[0] != c.floats[2] {
					t.Errorf("the last element alone: %d, %v", n, two)
				}
				if n := x.Floats(two[:], 3) + x.Floats(two[:], 100); n != 0 {
					t.Errorf("%d elements behind the last", n)
				}
			}
			check(t, one(t, &output{Name: "y", Datatype: c.datatype, Shape: []int64{1, 3}}, c.raw))
			o := &output{Name: "y", Datatype: c.datatype, Shape: []int64{3}, Contents: c.typed}
			if c.typed != nil {
				check(t, one(t, o))
				return
			}
			o.Contents = &typed{Fp32Contents: []float32{1, 2, 3}}
			if _, err := Outputs(&inference.ModelInferResponse{Outputs: []*output{o}}); err == nil {
				t.Error("typed contents were taken for a datatype that travels only raw")
			}
		})
	}
}

func TestHalvesWiden(t *testing.T) {
	for bits, want := range map[uint16]float64{
		0x0000: 0, 0x0001: 0x1p-24, 0x03ff: 1023 * 0x1p-24, 0x0400: 0x1p-14, 0x3555: 0.333251953125,
		0x7c00: math.Inf(1), 0xfc00: math.Inf(-1), 0xbc00: -1,
	} {
		if got := fromFP16(bits); got != want {
			t.Errorf("FP16 %#04x is %v, want %v", bits, got, want)
		}
	}
	if v := fromFP16(0x8000); v != 0 || !math.Signbit(v) {
		t.Errorf("FP16 0x8000 is %v, want -0", v)
	}
	if !math.IsNaN(fromFP16(0x7e00)) || !math.IsNaN(fromFP16(0xfc01)) || !math.IsNaN(fromBF16(0x7fc0)) {
		t.Error("a NaN became a number")
	}
}

func TestStringsRawAndTyped(t *testing.T) {
	raw := []byte{2, 0, 0, 0, 'h', 'i', 0, 0, 0, 0, 1, 0, 0, 0, 0xff}
	for _, x := range []Tensor{
		one(t, &output{Datatype: "BYTES", Shape: []int64{3}}, raw),
		one(t, &output{Datatype: "BYTES", Shape: []int64{3}, Contents: &typed{BytesContents: [][]byte{[]byte("hi"), {}, {0xff}}}}),
	} {
		if got := x.Strings(); len(got) != 3 || string(got[0]) != "hi" || len(got[1]) != 0 || string(got[2]) != "\xff" {
			t.Errorf("strings %q", got)
		}
		if x.Floats(make([]float64, 3), 0) != 0 || x.Bits(make([]uint64, 3), 0) != 0 {
			t.Error("strings were read as numbers")
		}
	}
}

// Tensors with contents of their own take no raw entry.
func TestRawAndTypedInOneMessage(t *testing.T) {
	all, err := Inputs(&inference.ModelInferRequest{
		Inputs: []*input{
			{Name: "a", Datatype: "INT8", Shape: []int64{1}},
			{Name: "b", Datatype: "INT8", Shape: []int64{1}, Contents: &typed{IntContents: []int32{2}}},
			{Name: "c", Datatype: "INT8", Shape: []int64{0}},
			{Name: "d", Datatype: "INT8"},
		},
		RawInputContents: [][]byte{{1}, {}, {4}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	for i := range all {
		got = append(got, floats(&all[i])...)
	}
	if !slices.Equal(got, []float64{1, 2, 4}) {
		t.Errorf("read %v, want 1, 2 and 4", got)
	}
}

func TestEmptyTensors(t *testing.T) {
	for _, d := range []string{"FP32", "BYTES", "FP16"} {
		for name, x := range map[string]Tensor{
			"no contents": one(t, &output{Datatype: d, Shape: []int64{0}}),
			"raw":         one(t, &output{Datatype: d, Shape: []int64{1 << 62, 0, 1 << 62}}, nil),
		} {
			if x.Len() != 0 || len(floats(&x)) != 0 || len(bits(&x)) != 0 || len(x.Strings()) != 0 {
				t.Errorf("%s, %s: there are elements", d, name)
			}
		}
	}
}

// What does not fit together is an error that names the field.
func TestContentsThatDoNotFit(t *testing.T) {
	fp32 := func(shape ...int64) *output { return &output{Name: "y", Datatype: "FP32", Shape: shape} }
	str := func(shape ...int64) *output { return &output{Name: "y", Datatype: "BYTES", Shape: shape} }
	with := func(d string, c *typed, shape ...int64) *output {
		return &output{Name: "y", Datatype: d, Shape: shape, Contents: c}
	}
	for want, c := range map[string]struct {
		o   *output
		raw [][]byte
	}{
		"got 3 bytes, want 4":                   {fp32(1), [][]byte{{1, 2, 3}}},
		"got 8 bytes, want 4":                   {fp32(1), [][]byte{make([]byte, 8)}},
		"want 4 elements for shape [2 2]":       {fp32(2, 2), nil},
		"shape: got [-1]":                       {fp32(-1), [][]byte{{}}},
		"shape: got [4611686018427387904 4]":    {fp32(1<<62, 4), [][]byte{{}}},
		"shape: got [2147483647 2]":             {fp32(math.MaxInt32, 2), [][]byte{{}}},
		"shape: got [-1 0]":                     {fp32(-1, 0), [][]byte{{}}},
		"raw_output_contents: got 2 entries":    {fp32(1), [][]byte{make([]byte, 4), nil}},
		"raw_output_contents: got 1 entries":    {with("FP32", &typed{Fp32Contents: []float32{1}}, 1), [][]byte{{}}},
		`datatype: got "FLOAT"`:                 {with("FLOAT", nil, 1), [][]byte{{}}},
		`datatype: got ""`:                      {with("", nil, 1), [][]byte{{}}},
		"want at least 800000000, a length":     {str(200_000_000), [][]byte{{0, 0, 0, 0}}},
		"want a length of 4 bytes":              {str(2), [][]byte{{4, 0, 0, 0, 1, 2, 3, 4, 0}}},
		"got 1 bytes, want the 2 of element 0":  {str(1), [][]byte{{2, 0, 0, 0, 1}}},
		"want the 4294967295 of element 0":      {str(1), [][]byte{{255, 255, 255, 255, 1}}},
		"got 1 bytes behind the last":           {str(1), [][]byte{{0, 0, 0, 0, 1}}},
		"want them in fp32_contents":            {with("FP32", &typed{Fp64Contents: []float64{1}}, 1), nil},
		"contents.int64_contents: got 1":        {with("FP32", &typed{Fp32Contents: []float32{1}, Int64Contents: []int64{1}}, 1), nil},
		"fp32_contents: got 2 elements, want 1": {with("FP32", &typed{Fp32Contents: []float32{1, 2}}, 1), nil},
		"got 128, want -128 to 127":             {with("INT8", &typed{IntContents: []int32{128}}, 1), nil},
		"got -32769, want -32768":               {with("INT16", &typed{IntContents: []int32{-32769}}, 1), nil},
		"got 256, want 0 to 255":                {with("UINT8", &typed{UintContents: []uint32{256}}, 1), nil},
		"got 65536, want 0 to 65535":            {with("UINT16", &typed{UintContents: []uint32{65536}}, 1), nil},
	} {
		_, err := Outputs(&inference.ModelInferResponse{Outputs: []*output{c.o}, RawOutputContents: c.raw})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	_, err := Outputs(&inference.ModelInferResponse{Outputs: []*output{{Datatype: "FP32", Shape: []int64{1},
		Parameters: map[string]*inference.InferParameter{"shared_memory_region": {}}}}})
	if !errors.Is(err, ErrElsewhere) {
		t.Errorf("error %v for a tensor in shared memory", err)
	}
}

// Whatever the message, reading it returns tensors whose elements can all be read, or
// an error, in memory of the message's own order.
func FuzzOutputs(f *testing.F) {
	add := func(m *inference.ModelInferResponse) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(&inference.ModelInferResponse{Outputs: []*output{{Datatype: "FP16", Shape: []int64{2}}}, RawOutputContents: [][]byte{{0, 1, 2, 3}}})
	add(&inference.ModelInferResponse{Outputs: []*output{{Datatype: "BYTES", Shape: []int64{1, 1}}}, RawOutputContents: [][]byte{{1, 0, 0, 0, 9}}})
	add(&inference.ModelInferResponse{Outputs: []*output{{Datatype: "INT8", Shape: []int64{1 << 40, 1 << 40}, Contents: &typed{IntContents: []int32{-1}}}}})
	add(&inference.ModelInferResponse{Outputs: []*output{{Datatype: "BOOL", Shape: []int64{1}, Contents: &typed{BoolContents: []bool{true}}}, {Datatype: "INT64"}},
		RawOutputContents: [][]byte{make([]byte, 8)}})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(inference.ModelInferResponse)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		all, err := Outputs(m)
		if err != nil {
			return
		}
		for i := range all {
			x := &all[i]
			if x.Len() > len(b) {
				t.Fatalf("%d elements out of %d bytes", x.Len(), len(b))
			}
			want := x.Len()
			if x.Datatype == Bytes {
				if len(x.Strings()) != want {
					t.Fatalf("%d strings, want %d", len(x.Strings()), want)
				}
				want = 0
			}
			if n, m := len(floats(x)), len(bits(x)); n != want || m != want {
				t.Fatalf("%d numbers and %d bits of %d elements", n, m, want)
			}
		}
	})
}
