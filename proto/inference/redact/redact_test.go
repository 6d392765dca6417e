package redact_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"sluice/proto/inference"
	"sluice/proto/inference/redact"
	"sluice/proto/inference/tensor"
)

// secret marks what must not be written: as a string, and as a number of any datatype with room for it.
const (
	secret       = "S3CRET"
	secretNumber = 7654321
)

type in = inference.ModelInferRequest_InferInputTensor

func inputs(t testing.TB, raw [][]byte, tensors ...*in) []tensor.Tensor {
	t.Helper()
	all, err := tensor.Inputs(&inference.ModelInferRequest{Inputs: tensors, RawInputContents: raw})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func outputs(t testing.TB, name string, values ...string) []tensor.Tensor {
	t.Helper()
	c := new(inference.InferTensorContents)
	for _, v := range values {
		c.BytesContents = append(c.BytesContents, []byte(v))
	}
	all, err := tensor.Outputs(&inference.ModelInferResponse{Outputs: []*inference.ModelInferResponse_InferOutputTensor{
		{Name: name, Datatype: "BYTES", Shape: []int64{int64(len(values))}, Contents: c},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func fp64(name string, shape []int64, values ...float64) *in {
	return &in{Name: name, Datatype: "FP64", Shape: shape, Contents: &inference.InferTensorContents{Fp64Contents: values}}
}

func texts(name string, shape []int64, values ...string) *in {
	c := new(inference.InferTensorContents)
	for _, v := range values {
		c.BytesContents = append(c.BytesContents, []byte(v))
	}
	return &in{Name: name, Datatype: "BYTES", Shape: shape, Contents: c}
}

func written(t testing.TB, w redact.Written) string {
	t.Helper()
	data, err := json.Marshal(w)
	if err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	return string(data)
}

const room = 64 << 10

func TestValuesAreHiddenByTheirNames(t *testing.T) {
	columns := map[string][]string{"x": {"age", "iban"}}
	for _, tt := range []struct {
		name       string
		hide, keep []string
		want       string // data of x and of name
	}{
		{"nothing", nil, nil, `[1,2,3,4] ["Ann"]`},
		{"a tensor", []string{"x"}, nil, `["[redacted]","[redacted]","[redacted]","[redacted]"] ["Ann"]`},
		{"a named column", []string{"iban"}, nil, `[1,"[redacted]",3,"[redacted]"] ["Ann"]`},
		{"a column by its number", []string{"x[0]"}, nil, `["[redacted]",2,"[redacted]",4] ["Ann"]`},
		{"a pattern", []string{"n*e"}, nil, `[1,2,3,4] ["[redacted]"]`},
		{"all but one column", []string{"*"}, []string{"age"}, `[1,"[redacted]",3,"[redacted]"] ["[redacted]"]`},
		{"all but a tensor", []string{"*"}, []string{"x"}, `[1,2,3,4] ["[redacted]"]`},
		{"a pattern is no regular expression", []string{"ag.", "x[01]", "nam"}, nil, `[1,2,3,4] ["Ann"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := redact.New(tt.hide, tt.keep, columns).Write(
				inputs(t, nil, fp64("x", []int64{2, 2}, 1, 2, 3, 4), texts("name", []int64{1}, "Ann")), nil, room)
			x, _ := json.Marshal(w.Inputs[0].Data)
			name, _ := json.Marshal(w.Inputs[1].Data)
			if got := string(x) + " " + string(name); got != tt.want {
				t.Errorf("data %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAnswersAreHiddenByTheirNamesWithOrWithoutThePrefix(t *testing.T) {
	for hide, hidden := range map[string]bool{"name": true, "output.name": true, "output.*": true, "output.nam": false} {
		got := written(t, redact.New([]string{hide}, nil, nil).Write(nil, outputs(t, "name", secret), room))
		if strings.Contains(got, secret) == hidden {
			t.Errorf("hide %q: %s", hide, got)
		}
	}
	// Of a request, what is said of answers hides nothing.
	if got := written(t, redact.New([]string{"output.*"}, nil, nil).Write(inputs(t, nil, texts("name", []int64{1}, "Ann")), nil, room)); !strings.Contains(got, "Ann") {
		t.Errorf("an input was taken for an answer: %s", got)
	}
}

// A client may shape a tensor as it likes, but not so as to have a hidden column written.
func TestColumnsThatCannotBeToldApartAreHiddenTogether(t *testing.T) {
	rules := redact.New([]string{"iban"}, nil, map[string][]string{"x": {"age", "iban"}})
	for _, shape := range [][]int64{{4}, {1, 4}, {4, 1}, {2, 1, 2}, {1, 2, 2}, {2, 2}} {
		got := written(t, rules.Write(inputs(t, nil, fp64("x", shape, 1, secretNumber, 1, secretNumber)), nil, room))
		if strings.Contains(got, fmt.Sprint(secretNumber)) {
			t.Errorf("shape %v: %s", shape, got)
		}
	}
}

// Every datatype, typed and raw, at any place: what is hidden never appears, and what is not does.
func TestMarkedSecretsAreNeverWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, width := rapid.IntRange(1, 5).Draw(t, "rows"), rapid.IntRange(1, 6).Draw(t, "width")
		hidden := rapid.IntRange(0, width-1).Draw(t, "hidden")
		datatype := rapid.SampledFrom([]string{"BYTES", "FP64", "FP32", "INT64", "INT32", "UINT64", "UINT32"}).Draw(t, "datatype")
		cells := make([]bool, rows*width) // secret?
		for i := range cells {
			cells[i] = i%width == hidden
		}
		raw := encode(datatype, cells)
		all, err := tensor.Inputs(&inference.ModelInferRequest{
			Inputs: []*in{{Name: "x", Datatype: datatype, Shape: []int64{int64(rows), int64(width)}}}, RawInputContents: [][]byte{raw},
		})
		if err != nil {
			t.Fatal(err)
		}
		names := make([]string, width)
		for i := range names {
			names[i] = fmt.Sprint("c", i)
		}
		hide := rapid.SampledFrom([]string{names[hidden], fmt.Sprintf("x[%d]", hidden)}).Draw(t, "pattern")
		data, err := json.Marshal(redact.New([]string{hide}, nil, map[string][]string{"x": names}).Write(all, nil, room))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(data); strings.Contains(got, secret) || strings.Contains(got, "7654321") || strings.Contains(got, "7.65") {
			t.Errorf("%s is hidden and written: %s", hide, got)
		}
		if plain := strings.Count(string(data), "11"); plain != rows*(width-1) {
			t.Errorf("%d of %d values that are not hidden are written: %s", plain, rows*(width-1), data)
		}
	})
}

// encode makes raw contents: the secret, or 11.
func encode(datatype string, cells []bool) (raw []byte) {
	for _, hidden := range cells {
		n, s := 11, "11"
		if hidden {
			n, s = secretNumber, secret
		}
		switch datatype {
		case "BYTES":
			raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(s))), s...)
		case "FP64":
			raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(float64(n)))
		case "FP32":
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(n)))
		case "INT64", "UINT64":
			raw = binary.LittleEndian.AppendUint64(raw, uint64(n))
		default:
			raw = binary.LittleEndian.AppendUint32(raw, uint32(n))
		}
	}
	return raw
}

func TestValuesAreWrittenExactly(t *testing.T) {
	raw := binary.LittleEndian.AppendUint64(nil, math.MaxUint64)
	w := redact.New(nil, nil, nil).Write(inputs(t, [][]byte{raw},
		&in{Name: "u", Datatype: "UINT64", Shape: []int64{1}},
		&in{Name: "i", Datatype: "INT64", Shape: []int64{1}, Contents: &inference.InferTensorContents{Int64Contents: []int64{math.MinInt64}}},
		&in{Name: "f", Datatype: "FP32", Shape: []int64{2}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{0.1, float32(math.Inf(-1))}}},
		fp64("d", []int64{2}, math.NaN(), math.Inf(1)),
		&in{Name: "b", Datatype: "BOOL", Shape: []int64{1}, Contents: &inference.InferTensorContents{BoolContents: []bool{true}}},
		texts("s", []int64{2}, "\"ü\n", "\xff\xfe"),
	), nil, room)
	var got []string
	for _, x := range w.Inputs {
		data, err := json.Marshal(x.Data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(data))
	}
	want := `[18446744073709551615] [-9223372036854775808] [0.1,"-Infinity"] ["NaN","Infinity"] [true] ["\"ü\n",{"base64":"//4="}]`
	if s := strings.Join(got, " "); s != want {
		t.Errorf("data %s, want %s", s, want)
	}
}

func TestWhatHasNoRoomIsCutAndCounted(t *testing.T) {
	many := make([]float64, 100_000)
	for _, tt := range []struct {
		name    string
		tensors []tensor.Tensor
	}{
		{"numbers", inputs(t, nil, fp64("x", []int64{100_000}, many...))},
		{"a long string", inputs(t, nil, texts("s", []int64{2}, strings.Repeat("\x00", 1<<20), "short"))},
		{"a long name", inputs(t, nil, fp64(strings.Repeat("n", 1<<20), []int64{1}, 1))},
		{"a long shape", inputs(t, nil, fp64("x", ones(1<<16), 1))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := redact.New([]string{"nothing"}, nil, nil).Write(tt.tensors, outputs(t, "y", "answer"), 4096)
			if got := written(t, w); len(got) > 4096+100 {
				t.Errorf("%d bytes are written, want about 4096 at most", len(got))
			}
			cut := w.Cut
			for _, x := range w.Inputs {
				cut += x.Cut
			}
			if cut == 0 {
				t.Error("what is cut off is not counted")
			}
		})
	}
}

func ones(n int) []int64 {
	shape := make([]int64, n)
	for i := range shape {
		shape[i] = 1
	}
	return shape
}

// Whatever a stranger sends, JSON comes of it that keeps to its room, and nothing that is hidden.
func FuzzWrite(f *testing.F) {
	add := func(raw [][]byte, tensors ...*in) {
		data, err := proto.Marshal(&inference.ModelInferRequest{Inputs: tensors, RawInputContents: raw})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(nil, fp64("x", []int64{2, 2}, 1, math.NaN(), 3, math.Inf(1)))
	add([][]byte{make([]byte, 8)}, &in{Name: "x", Datatype: "FP16", Shape: []int64{4}})
	add(nil, texts("x", []int64{2}, "\xff", "a"))
	add(nil, &in{Name: "x", Datatype: "INT8", Shape: []int64{0, 1 << 60}})
	const room = 2048
	columns := map[string][]string{"x": {"a", "b"}}
	nothing, everything, second := redact.New(nil, nil, columns), redact.New([]string{"*"}, nil, columns), redact.New([]string{"b"}, nil, columns)
	f.Fuzz(func(t *testing.T, data []byte) {
		req := new(inference.ModelInferRequest)
		if proto.Unmarshal(data, req) != nil {
			return
		}
		all, err := tensor.Inputs(req)
		if err != nil {
			return
		}
		for _, rules := range []*redact.Rules{nothing, everything, second} {
			if got := written(t, rules.Write(all, nil, room)); len(got) > room+100 {
				t.Errorf("%d bytes are written, want about %d at most", len(got), room)
			}
		}
		for _, w := range everything.Write(all, nil, room).Inputs {
			for _, v := range w.Data {
				if v != redact.Hidden {
					t.Errorf("%v of %q is written", v, w.Name)
				}
			}
		}
	})
}
