package compare

import (
	"encoding/binary"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
)

// anyOutput draws an output and its contents, raw or typed where both are possible.
func anyOutput(t *rapid.T, name string) (*output, []byte) {
	d := tensor.Datatype(rapid.IntRange(int(tensor.Bool), int(tensor.Bytes)).Draw(t, "datatype"))
	shape := rapid.SliceOfN(rapid.Int64Range(0, 5), 0, 3).Draw(t, "shape")
	n := 1
	for _, size := range shape {
		n *= int(size)
	}
	o := &output{Name: name, Datatype: d.String(), Shape: shape}
	if d == tensor.Bytes {
		var b []byte
		for range n {
			s := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "string")
			b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
		return o, b
	}
	return o, rapid.SliceOfN(rapid.Byte(), n*d.Size(), n*d.Size()).Draw(t, "raw")
}

func anyAnswer(t *rapid.T) *infer {
	m := &infer{Id: rapid.String().Draw(t, "id")}
	for i := range rapid.IntRange(0, 4).Draw(t, "outputs") {
		o, b := anyOutput(t, string(rune('a'+i)))
		m.Outputs, m.RawOutputContents = append(m.Outputs, o), append(m.RawOutputContents, b)
	}
	return m
}

// shuffled is the same answer with its outputs in another order.
func shuffled(t *rapid.T, m *infer) *infer {
	order := make([]int, len(m.GetOutputs()))
	for i := range order {
		order[i] = i
	}
	s := &infer{ModelVersion: "another"}
	for _, i := range rapid.Permutation(order).Draw(t, "order") {
		s.Outputs, s.RawOutputContents = append(s.Outputs, m.GetOutputs()[i]), append(s.RawOutputContents, m.GetRawOutputContents()[i])
	}
	return s
}

// A shadow that answers the same is never a mismatch.
func TestTheSameAnswerIsNeverAMismatch(t *testing.T) {
	c := new(Comparer) // one for all: it must not carry anything over
	rapid.Check(t, func(t *rapid.T) {
		m := anyAnswer(t)
		a, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b, err := proto.Marshal(shuffled(t, m))
		if err != nil {
			t.Fatal(err)
		}
		r := c.Compare(Infer, &Rules{TopK: rapid.IntRange(0, 3).Draw(t, "k")}, Answer{Messages: [][]byte{a}}, Answer{Messages: [][]byte{b}})
		if !r.Same() || len(r.Outputs) != len(m.GetOutputs()) {
			t.Fatalf("result %+v", r)
		}
		for _, o := range r.Outputs {
			if o.Differing != 0 || o.MaxAbs != 0 || o.MaxRel != 0 || o.RMSE != 0 || o.MaxULP != 0 || o.Flips != 0 || o.TopK < 1 || o.Cosine < 1-1e-9 {
				t.Fatalf("output %+v", o)
			}
		}
	})
}

// What is said of two answers that are the same byte for byte is what is said of two
// that say the same in other bytes, which are compared element by element.
func TestTheSameBytesSayWhatTheSameValuesSay(t *testing.T) {
	c := new(Comparer)
	near := func(a, b float64) bool { return a == b || a != a && b != b || math.Abs(a-b) < 1e-9 }
	rapid.Check(t, func(t *rapid.T) {
		m := anyAnswer(t)
		m.ModelVersion = "7"
		a, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		m.ModelVersion = "8"
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		rules := &Rules{TopK: rapid.IntRange(0, 3).Draw(t, "k"), Outputs: map[string]Rule{
			"": {NaNDiffers: rapid.Bool().Draw(t, "NaN differs")}, "b": {Ignore: true}}}
		first := Answer{Messages: [][]byte{a, b}} // sums go over all messages
		fast := c.Compare(Infer, rules, first, Answer{Messages: [][]byte{a, b}})
		slow := c.Compare(Infer, rules, first, Answer{Messages: [][]byte{b, a}})
		if fast.Difference != slow.Difference || len(fast.Outputs) != len(slow.Outputs) {
			t.Fatalf("%+v, want %+v", fast, slow)
		}
		for i, f := range fast.Outputs {
			s := slow.Outputs[i]
			same := near(f.MaxAbs, s.MaxAbs) && near(f.MaxRel, s.MaxRel) && near(f.RMSE, s.RMSE) && near(f.Cosine, s.Cosine) &&
				near(f.TopK, s.TopK) && near(f.Excess, s.Excess)
			if f.Name != s.Name || f.Difference != s.Difference || f.Elements != s.Elements || f.Differing != s.Differing ||
				f.Rows != s.Rows || f.Flips != s.Flips || f.MaxULP != s.MaxULP || !same {
				t.Fatalf("%+v, want %+v", f, s)
			}
		}
	})
}

// away returns the bits of a number of the datatype that is at least distance above
// the number with these bits.
func away(t *rapid.T, d tensor.Datatype, bits uint64, distance float64) uint64 {
	from := value(t, d, bits)
	switch d {
	case tensor.FP64:
		v := from + distance
		return math.Float64bits(v)
	case tensor.FP32:
		return uint64(math.Float32bits(float32(from + distance)))
	}
	for step := bits; ; {
		if step&0x8000 != 0 {
			if step--; step == 0x7fff {
				step = 0
			}
		} else {
			step++
		}
		if value(t, d, step)-from >= distance {
			return step
		}
	}
}

func value(t *rapid.T, d tensor.Datatype, bits uint64) float64 {
	x, err := tensor.Outputs(raw(d.String(), littleEndian(d, bits), 1))
	if err != nil {
		t.Fatal(err)
	}
	var v [1]float64
	x[0].Floats(v[:], 0)
	return v[0]
}

func littleEndian(d tensor.Datatype, bits uint64) []byte {
	return binary.LittleEndian.AppendUint64(nil, bits)[:d.Size()]
}

// A shadow that is off by twice the tolerance in one element of one output always is.
func TestTwiceTheToleranceIsAlwaysAMismatch(t *testing.T) {
	c := new(Comparer)
	rapid.Check(t, func(t *rapid.T) {
		d := tensor.Datatype(rapid.IntRange(int(tensor.FP16), int(tensor.FP64)).Draw(t, "datatype"))
		tolerance := DefaultTolerance(d)
		rules := Rules{}
		if rapid.Bool().Draw(t, "own tolerance") {
			tolerance = Tolerance{rapid.Float64Range(0.01, 0.1).Draw(t, "rel"), rapid.Float64Range(1e-6, 1).Draw(t, "abs")}
			rules.Outputs = map[string]Rule{"y": {Tolerance: &tolerance}}
		}
		n := rapid.IntRange(1, 600).Draw(t, "elements")
		at := rapid.IntRange(0, n-1).Draw(t, "at")
		var a, b []byte
		for i := range n {
			v := rapid.Float64Range(-1000, 1000).Draw(t, "value")
			var bits uint64
			switch d {
			case tensor.FP64:
				bits = math.Float64bits(v)
			case tensor.FP32, tensor.BF16:
				bits = uint64(math.Float32bits(float32(v))) >> (32 - 8*d.Size())
			case tensor.FP16:
				bits = uint64(rapid.IntRange(0, 0x63ff).Draw(t, "bits")) | uint64(rapid.IntRange(0, 1).Draw(t, "sign"))<<15
			}
			a = append(a, littleEndian(d, bits)...)
			if i == at {
				bits = away(t, d, bits, 2*(tolerance.Abs+tolerance.Rel*math.Abs(value(t, d, bits))))
			}
			b = append(b, littleEndian(d, bits)...)
		}
		other := raw(d.String(), b, int64(n))
		before, err := proto.Marshal(raw(d.String(), a, int64(n)))
		if err != nil {
			t.Fatal(err)
		}
		after, err := proto.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		r := c.Compare(Infer, &rules, Answer{Messages: [][]byte{before}}, Answer{Messages: [][]byte{after}})
		if r.Difference != Values || r.Outputs[0].Differing != 1 {
			t.Fatalf("result %+v, want one element that differs", r)
		}
	})
}

// Whatever a shadow answers, comparing it ends without a panic, and says the same of
// where it differs as the other way round.
func FuzzAnswers(f *testing.F) {
	seed := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(seed(fp32(1, 2)), seed(fp32(1, 3)), false)
	f.Add(seed(half("FP16", 0x7c00, 1)), seed(half("FP16", 0xfc00, 0x7e00)), false)
	f.Add(seed(&inference.ModelStreamInferResponse{InferResponse: fp64(1)}), seed(&inference.ModelStreamInferResponse{ErrorMessage: "x"}), true)
	f.Fuzz(func(t *testing.T, a, b []byte, stream bool) {
		format := Infer
		if stream {
			format = StreamInfer
		}
		c := new(Comparer)
		there := c.Compare(format, &Rules{TopK: 2}, Answer{Messages: [][]byte{a}}, Answer{Messages: [][]byte{b}})
		back := c.Compare(format, &Rules{TopK: 2}, Answer{Messages: [][]byte{b}}, Answer{Messages: [][]byte{a}})
		if there.Difference == Codes != (back.Difference == Codes) || there.Difference == Unreadable != (back.Difference == Unreadable) {
			t.Fatalf("there %v, back %v", there.Difference, back.Difference)
		}
		if r := c.Compare(format, &Rules{}, Answer{Messages: [][]byte{a}}, Answer{Messages: [][]byte{a}}); !r.Same() {
			t.Fatalf("an answer differs from itself: %+v", r)
		}
	})
}
