package compare

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
)

type (
	infer  = inference.ModelInferResponse
	output = inference.ModelInferResponse_InferOutputTensor
	typed  = inference.InferTensorContents
)

func wire(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func answerOf(t testing.TB, all ...proto.Message) Answer {
	t.Helper()
	var a Answer
	for _, m := range all {
		a.Messages = append(a.Messages, wire(t, m))
	}
	return a
}

func compare(t testing.TB, rules Rules, a, b *infer) Result {
	t.Helper()
	return new(Comparer).Compare(Infer, &rules, answerOf(t, a), answerOf(t, b))
}

// raw makes an answer with one raw output named y.
func raw(datatype string, b []byte, shape ...int64) *infer {
	return &infer{Outputs: []*output{{Name: "y", Datatype: datatype, Shape: shape}}, RawOutputContents: [][]byte{b}}
}

func contents(datatype string, c *typed, shape ...int64) *infer {
	return &infer{Outputs: []*output{{Name: "y", Datatype: datatype, Shape: shape, Contents: c}}}
}

func fp64(v ...float64) *infer { return contents("FP64", &typed{Fp64Contents: v}, int64(len(v))) }
func fp32(v ...float32) *infer { return contents("FP32", &typed{Fp32Contents: v}, int64(len(v))) }

func half(datatype string, bits ...uint16) *infer {
	var b []byte
	for _, v := range bits {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return raw(datatype, b, int64(len(bits)))
}

var (
	inf     = math.Inf(1)
	nan     = math.NaN()
	negZero = math.Copysign(0, -1)
)

// Every datatype and every special value, worked out by hand.
func TestOutputsByHand(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b *infer
		want Output // Name, Datatype, Cosine and TopK aside
	}{
		{"BOOL equal, typed and raw", contents("BOOL", &typed{BoolContents: []bool{true, false}}, 2), raw("BOOL", []byte{1, 0}, 2), Output{Elements: 2}},
		{"BOOL", raw("BOOL", []byte{1, 0}, 2), raw("BOOL", []byte{1, 1}, 2),
			Output{Difference: Values, Elements: 2, Differing: 1, MaxAbs: 1, MaxRel: inf, RMSE: math.Sqrt(0.5), MaxULP: 1}},
		{"UINT8", raw("UINT8", []byte{250, 4}, 2), contents("UINT8", &typed{UintContents: []uint32{200, 4}}, 2),
			Output{Difference: Values, Elements: 2, Differing: 1, MaxAbs: 50, MaxRel: 0.2, RMSE: math.Sqrt(1250), MaxULP: 50}},
		{"UINT16", raw("UINT16", []byte{0, 1}, 1), raw("UINT16", []byte{4, 1}, 1),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 4, MaxRel: 1. / 64, RMSE: 4, MaxULP: 4}},
		{"UINT32", contents("UINT32", &typed{UintContents: []uint32{4000000000}}, 1), contents("UINT32", &typed{UintContents: []uint32{3000000000}}, 1),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 1e9, MaxRel: 0.25, RMSE: 1e9, MaxULP: 1e9}},
		{"UINT64 beyond a float's precision", contents("UINT64", &typed{Uint64Contents: []uint64{1<<53 + 1}}, 1), contents("UINT64", &typed{Uint64Contents: []uint64{1 << 53}}, 1),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 1, MaxRel: 0x1p-53, RMSE: 1, MaxULP: 1}},
		{"INT8", raw("INT8", []byte{0x80}, 1), contents("INT8", &typed{IntContents: []int32{127}}, 1),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 255, MaxRel: 255. / 128, RMSE: 255, MaxULP: 255}},
		{"INT16", contents("INT16", &typed{IntContents: []int32{-4}}, 1), raw("INT16", []byte{0xfe, 0xff}, 1),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 2, MaxRel: 0.5, RMSE: 2, MaxULP: 2}},
		{"INT32", contents("INT32", &typed{IntContents: []int32{math.MinInt32}}, 1), contents("INT32", &typed{IntContents: []int32{math.MaxInt32}}, 1),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 1<<32 - 1, MaxRel: (1<<32 - 1) / 0x1p31, RMSE: 1<<32 - 1, MaxULP: 1<<32 - 1}},
		{"INT64", contents("INT64", &typed{Int64Contents: []int64{math.MinInt64, 5}}, 2), contents("INT64", &typed{Int64Contents: []int64{math.MaxInt64, 5}}, 2),
			Output{Difference: Values, Elements: 2, Differing: 1, MaxAbs: 0x1p64, MaxRel: 2, RMSE: 0x1p64 / math.Sqrt2, MaxULP: math.MaxUint64}},
		{"FP16 within the tolerance", half("FP16", 0x3c00), half("FP16", 0x3c01),
			Output{Elements: 1, MaxAbs: 0x1p-10, MaxRel: 0x1p-10, RMSE: 0x1p-10, MaxULP: 1}},
		{"FP16", half("FP16", 0x3c00), half("FP16", 0x3c02),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 0x1p-9, MaxRel: 0x1p-9, RMSE: 0x1p-9, MaxULP: 2}},
		{"BF16 within the tolerance", half("BF16", 0x3f80, 0xbf80), half("BF16", 0x3f82, 0xbf80),
			Output{Elements: 2, MaxAbs: 0x1p-6, MaxRel: 0x1p-6, RMSE: 0x1p-6 / math.Sqrt2, MaxULP: 2}},
		{"BF16", half("BF16", 0x3f80), half("BF16", 0x3f83),
			Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 3 * 0x1p-7, MaxRel: 3 * 0x1p-7, RMSE: 3 * 0x1p-7, MaxULP: 3}},
		{"FP32 within the tolerance", fp32(0, 1), fp32(0.000009, 1),
			Output{Elements: 2, MaxAbs: float64(float32(0.000009)), MaxRel: inf, RMSE: float64(float32(0.000009)) / math.Sqrt2, MaxULP: uint64(math.Float32bits(0.000009))}},
		{"FP32 within the relative tolerance", fp32(1 << 20), fp32(1<<20 + 1), Output{Elements: 1, MaxAbs: 1, MaxRel: 0x1p-20, RMSE: 1, MaxULP: 8}},
		{"FP32", fp32(4, -1), fp32(5, -1), Output{Difference: Values, Elements: 2, Differing: 1, MaxAbs: 1, MaxRel: 0.25, RMSE: math.Sqrt(0.5), MaxULP: 1 << 21}},
		{"FP32 typed and raw", fp32(1, 2), raw("FP32", []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}, 2), Output{Elements: 2}},
		{"FP64", fp64(1), fp64(1 + 0x1p-20), Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: 0x1p-20, MaxRel: 0x1p-20, RMSE: 0x1p-20, MaxULP: 1 << 32}},
		{"FP64 one up", fp64(1), fp64(math.Nextafter(1, 2)), Output{Elements: 1, MaxAbs: 0x1p-52, MaxRel: 0x1p-52, RMSE: 0x1p-52, MaxULP: 1}},
		{"zeros", fp64(0, negZero), fp64(negZero, 0), Output{Elements: 2}},
		{"across zero", fp64(5e-324), fp64(-5e-324), Output{Elements: 1, MaxAbs: 1e-323, MaxRel: 2, RMSE: 0, MaxULP: 2}},
		{"infinities", fp64(inf, -inf), fp64(inf, -inf), Output{Elements: 2}},
		{"an infinity and another", fp64(inf), fp64(-inf), Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: inf, MaxRel: inf, RMSE: inf}},
		{"an infinity and a number", fp64(inf), fp64(1e308), Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: inf, MaxRel: inf, RMSE: inf}},
		{"a number and an infinity", fp64(1e308), fp64(inf), Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: inf, MaxRel: inf, RMSE: inf}},
		{"FP16 infinity and largest", half("FP16", 0x7bff), half("FP16", 0x7c00), Output{Difference: Values, Elements: 1, Differing: 1, MaxAbs: inf, MaxRel: inf, RMSE: inf}},
		{"NaN in the same place", fp64(nan, 1), fp64(nan, 1), Output{Elements: 2}},
		{"NaN elsewhere", fp64(nan, 1, 3), fp64(1, nan, 7), Output{Difference: NaNs, Elements: 3, Differing: 3, MaxAbs: 4, MaxRel: 4. / 3, RMSE: 4, MaxULP: 1<<52 + 1<<51 - 1<<50}},
		{"BF16 NaNs with other bits", half("BF16", 0x7fc0), half("BF16", 0xffc1), Output{Elements: 1}},
		{"BYTES, typed and raw", contents("BYTES", &typed{BytesContents: [][]byte{[]byte("a"), nil}}, 2), raw("BYTES", []byte{1, 0, 0, 0, 'a', 0, 0, 0, 0}, 2), Output{Elements: 2}},
		{"BYTES", contents("BYTES", &typed{BytesContents: [][]byte{[]byte("a"), []byte("b")}}, 2), contents("BYTES", &typed{BytesContents: [][]byte{[]byte("a"), []byte("B")}}, 2),
			Output{Difference: Values, Elements: 2, Differing: 1}},
		{"empty", fp32(), raw("FP32", nil, 0), Output{}},
		{"empty in other ways", raw("FP32", nil, 0, 3), raw("FP32", nil, 3, 0), Output{Difference: Shapes}},
		{"another shape", raw("INT8", []byte{1, 2}, 1, 2), raw("INT8", []byte{1, 2}, 2, 1), Output{Difference: Shapes}},
		{"another datatype", raw("INT8", []byte{1}, 1), raw("UINT8", []byte{1}, 1), Output{Difference: Datatypes}},
		{"another datatype and shape", raw("INT8", []byte{1}, 1), raw("UINT8", []byte{1, 1}, 2), Output{Difference: Datatypes}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := compare(t, Rules{}, c.a, c.b)
			if len(r.Outputs) != 1 || r.Difference != c.want.Difference || r.Same() != (c.want.Difference == None) {
				t.Fatalf("result %+v, want difference %v", r, c.want.Difference)
			}
			got := r.Outputs[0]
			if got.Name != "y" || got.Datatype != c.a.GetOutputs()[0].GetDatatype() {
				t.Errorf("output %q of %s", got.Name, got.Datatype)
			}
			if got.Difference != c.want.Difference || got.Elements != c.want.Elements || got.Differing != c.want.Differing || got.MaxULP != c.want.MaxULP {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			for what, v := range map[string][2]float64{"MaxAbs": {got.MaxAbs, c.want.MaxAbs}, "MaxRel": {got.MaxRel, c.want.MaxRel}, "RMSE": {got.RMSE, c.want.RMSE}} {
				if math.Abs(v[0]-v[1]) > 1e-15*v[1] {
					t.Errorf("%s is %v, want %v", what, v[0], v[1])
				}
			}
		})
	}
}

func TestRulesOfOneOutput(t *testing.T) {
	a, b := fp32(1, 2), fp32(1.01, 2)
	for name, c := range map[string]struct {
		rules Rules
		a, b  *infer
		want  Difference
	}{
		"none":                        {Rules{}, a, b, Values},
		"a wide tolerance":            {Rules{Outputs: map[string]Rule{"y": {Tolerance: &Tolerance{Rel: 0.02}}}}, a, b, None},
		"for others":                  {Rules{Outputs: map[string]Rule{"x": {Tolerance: &Tolerance{Rel: 0.02}}}}, a, b, Values},
		"for all":                     {Rules{Outputs: map[string]Rule{"": {Tolerance: &Tolerance{Abs: 0.02}}}}, a, b, None},
		"for all others":              {Rules{Outputs: map[string]Rule{"": {Ignore: true}, "y": {}}}, a, b, Values},
		"no tolerance at all":         {Rules{Outputs: map[string]Rule{"y": {Tolerance: &Tolerance{}}}}, fp64(1), fp64(math.Nextafter(1, 2)), Values},
		"ignored":                     {Rules{Outputs: map[string]Rule{"y": {Ignore: true}}}, a, b, None},
		"ignored and missing":         {Rules{Outputs: map[string]Rule{"y": {Ignore: true}}}, a, &infer{}, None},
		"ignored and extra":           {Rules{Outputs: map[string]Rule{"y": {Ignore: true}}}, &infer{}, b, None},
		"tolerance is not for ints":   {Rules{Outputs: map[string]Rule{"y": {Tolerance: &Tolerance{Abs: 9}}}}, raw("INT8", []byte{1}, 1), raw("INT8", []byte{2}, 1), Values},
		"NaN differs from everything": {Rules{Outputs: map[string]Rule{"y": {NaNDiffers: true}}}, fp64(nan), fp64(nan), NaNs},
	} {
		if got := compare(t, c.rules, c.a, c.b).Difference; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Outputs are found by their names, wherever they stand and however their contents
// travel.
func TestOutputsInAnotherOrder(t *testing.T) {
	one := func(name string) *output { return &output{Name: name, Datatype: "INT8", Shape: []int64{1}} }
	own := func(name string, v int32) *output {
		return &output{Name: name, Datatype: "INT8", Shape: []int64{1}, Contents: &typed{IntContents: []int32{v}}}
	}
	a := &infer{ModelVersion: "7", Id: "x", Outputs: []*output{one("a"), own("b", 2), one("c")}, RawOutputContents: [][]byte{{1}, {3}}}
	b := &infer{ModelVersion: "9", Outputs: []*output{one("c"), one("b"), own("a", 1)}, RawOutputContents: [][]byte{{3}, {2}}}
	if r := compare(t, Rules{}, a, b); !r.Same() || len(r.Outputs) != 3 {
		t.Errorf("result %+v, want three outputs and no difference", r)
	}
	b.RawOutputContents[1][0] = 9
	b.Outputs = append(b.Outputs, own("d", 4))
	a.Outputs = append(a.Outputs, own("e", 4))
	r := compare(t, Rules{}, a, b)
	got := map[string]Difference{}
	for _, o := range r.Outputs {
		got[o.Name] = o.Difference
	}
	if r.Difference != Missing || len(got) != 5 || got["a"] != None || got["b"] != Values || got["c"] != None || got["d"] != Extra || got["e"] != Missing {
		t.Errorf("differences %v, of all %v", got, r.Difference)
	}
}

func TestAnswersBeyondTheirOutputs(t *testing.T) {
	garbage := Answer{Messages: [][]byte{{0xff}}}
	good := answerOf(t, fp32(1))
	for name, c := range map[string]struct {
		f    Format
		a, b Answer
		want Difference
	}{
		"codes":                       {Infer, Answer{}, Answer{Code: 13}, Codes},
		"another failure":             {Infer, Answer{Code: 3}, Answer{Code: 13}, Codes},
		"the same failure":            {Infer, Answer{Code: 3, Messages: [][]byte{{1}}}, Answer{Code: 3}, None},
		"garbage":                     {Infer, good, garbage, Unreadable},
		"the caller's was garbage":    {Infer, garbage, good, Unreadable},
		"the same garbage":            {Infer, garbage, garbage, None},
		"no message":                  {Infer, good, Answer{}, Messages},
		"opaque, equal":               {Opaque, good, good, None},
		"opaque, another byte":        {Opaque, good, garbage, OpaqueBytes},
		"opaque, one message more":    {Opaque, good, Answer{Messages: append(good.Messages[:1:1], nil)}, Messages},
		"a contradiction in contents": {Infer, good, answerOf(t, raw("FP32", []byte{1}, 1)), Unreadable},
	} {
		r := new(Comparer).Compare(c.f, &Rules{}, c.a, c.b)
		if r.Difference != c.want || (c.want != None && r.Why == "") {
			t.Errorf("%s: %v (%q), want %v and why", name, r.Difference, r.Why, c.want)
		}
	}
}

// A stream's outputs are judged over all its messages.
func TestStreamsMessageByMessage(t *testing.T) {
	stream := func(all ...*infer) Answer {
		var a Answer
		for _, m := range all {
			a.Messages = append(a.Messages, wire(t, &inference.ModelStreamInferResponse{InferResponse: m}))
		}
		return a
	}
	failed := answerOf(t, &inference.ModelStreamInferResponse{ErrorMessage: "no"})
	c := new(Comparer)
	r := c.Compare(StreamInfer, &Rules{}, stream(fp64(1, 2), fp64(3, 4)), stream(fp64(1, 2), fp64(3, 8)))
	if o := r.Outputs[0]; len(r.Outputs) != 1 || r.Difference != Values || o.Elements != 4 || o.Differing != 1 || o.MaxAbs != 4 || o.RMSE != 2 {
		t.Errorf("result %+v", r)
	}
	if r := c.Compare(StreamInfer, &Rules{}, stream(fp64(1), fp64(2)), stream(fp64(1))); r.Difference != Messages {
		t.Errorf("a message less: %v", r.Difference)
	}
	if r := c.Compare(StreamInfer, &Rules{}, stream(fp64(1)), failed); r.Difference != Codes {
		t.Errorf("an error in the stream: %v", r.Difference)
	}
	if r := c.Compare(StreamInfer, &Rules{}, failed, failed); !r.Same() {
		t.Errorf("the same error: %v", r.Difference)
	}
}

func TestRowsByHand(t *testing.T) {
	row := func(v ...float64) *infer { return contents("FP64", &typed{Fp64Contents: v}, int64(len(v)/4), 4) }
	a := row(
		0.1, 0.2, 0.6, 0.1, // the same order
		0.50, 0.4995, 0, 0.0005, // a flip, close
		0.9, 0.1, 0, 0) // a flip, far
	b := row(
		0.1, 0.3, 0.5, 0.1,
		0.4995, 0.50, 0, 0.0005,
		0.1, 0, 0.4, 0.5)
	r := compare(t, Rules{TopK: 2}, a, b)
	o := r.Outputs[0]
	// Of the two largest, rows one and two share both and row three none.
	if o.Rows != 3 || o.Flips != 2 || o.CloseFlips != 1 || math.Abs(o.TopK-2./3) > 1e-15 {
		t.Errorf("rows %d, flips %d, close %d, top 2 %v; want 3, 2, 1 and 2/3", o.Rows, o.Flips, o.CloseFlips, o.TopK)
	}
	if o := compare(t, Rules{}, a, b).Outputs[0]; !math.IsNaN(o.TopK) {
		t.Errorf("top 5 of rows of 4: %v, want none", o.TopK)
	}
	if o := compare(t, Rules{}, fp64(1), fp64(2)).Outputs[0]; o.Rows != 0 {
		t.Error("a row of one number")
	}
	if o := compare(t, Rules{TopK: 1}, row(nan, 1, 2, 3), row(nan, 1, 2, 3)).Outputs[0]; o.Flips != 0 || o.TopK != 1 {
		t.Errorf("a NaN is the largest: %+v", o)
	}
}

func TestCosineByHand(t *testing.T) {
	for _, c := range []struct {
		a, b *infer
		want float64
	}{
		{fp64(1, 0), fp64(0, 1), 0},
		{fp64(1, 2), fp64(2, 4), 1},
		{fp64(1, 2), fp64(-1, -2), -1},
		{fp64(3, 4), fp64(4, 3), 24. / 25},
		{fp64(0, 0), fp64(1, 2), nan},
		{fp64(inf, 1, nan, 1), fp64(inf, 1, nan, 1), 1},
		{fp64(1e200), fp64(1e200), nan},
		{raw("INT8", []byte{1, 0xff}, 2), raw("INT8", []byte{1, 1}, 2), 0},
		{fp64(), fp64(), nan},
	} {
		got := compare(t, Rules{}, c.a, c.b).Outputs[0].Cosine
		if math.IsNaN(got) != math.IsNaN(c.want) || math.Abs(got-c.want) > 1e-12 {
			t.Errorf("cosine %v, want %v", got, c.want)
		}
	}
}

func TestDifferencesHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for d := None; d <= OpaqueBytes; d++ {
		if name := d.String(); name == "" || seen[name] || strings.ContainsAny(name, " \"") {
			t.Errorf("%d is %q", d, name)
		} else {
			seen[name] = true
		}
	}
}
