package labels

import (
	"errors"
	"fmt"
	"math"

	"sluice/proto/inference/tensor"
)

// Reader finds the prediction in answers, as a route describes it.
type Reader struct {
	kind    Kind
	output  string // empty: the first
	classes []string
	print   uint32
}

// NewReader returns what reads numbers from an output, or, if there are classes, those.
func NewReader(output string, classes []string) *Reader {
	r := &Reader{kind: Number, output: output}
	if len(classes) > 0 {
		r.kind, r.classes, r.print = Class, classes, Fingerprint(classes)
	}
	return r
}

// Errors of [Reader.Read].
var (
	errNoOutput = errors.New("the answer has no such output")
	errRows     = errors.New("the output has not exactly one row")
	errContent  = errors.New("the output is not what the route says it predicts")
)

// Read finds the prediction among an answer's tensors. Answers of several rows are several predictions, of which one id
// cannot tell.
func (r *Reader) Read(outputs []tensor.Tensor) (Prediction, error) {
	for i := range outputs {
		t := &outputs[i]
		if r.output != "" && t.Name != r.output {
			continue
		}
		rows, width := t.Rows(max(len(r.classes), 1))
		if rows != 1 {
			return Prediction{}, errRows
		}
		if r.kind == Number {
			return r.number(t, width)
		}
		return r.class(t, width)
	}
	return Prediction{}, errNoOutput
}

func (r *Reader) number(t *tensor.Tensor, width int) (Prediction, error) {
	var v [1]float64
	if width != 1 || t.Floats(v[:], 0) != 1 || !usable(v[0]) {
		return Prediction{}, errContent
	}
	return Prediction{Kind: Number, Number: v[0]}, nil
}

// class reads a name, an index, one probability of two classes, or one for each.
func (r *Reader) class(t *tensor.Tensor, width int) (Prediction, error) {
	if s := t.Strings(); len(s) == 1 && width == 1 {
		for k, name := range r.classes {
			if name == string(s[0]) {
				return Prediction{Kind: Class, Class: uint8(k), Classes: r.print}, nil
			}
		}
		return Prediction{}, errContent
	}
	var room [maxClasses]float64
	v := room[:min(width, maxClasses)]
	if width > maxClasses || t.Floats(v, 0) != width {
		return Prediction{}, errContent
	}
	switch {
	case width == 1 && !t.Datatype.IsFloat():
		if k := v[0]; k >= 0 && k < float64(len(r.classes)) {
			return Prediction{Kind: Class, Class: uint8(k), Classes: r.print}, nil
		}
		return Prediction{}, errContent
	case width == 1 && len(r.classes) == 2:
		v = room[:2]
		v[0], v[1] = 1-v[0], v[0]
	case width != len(r.classes):
		return Prediction{}, errContent
	}
	for _, p := range v {
		if math.IsNaN(p) {
			return Prediction{}, errContent
		}
	}
	return OfProbabilities(v, r.print), nil
}

// OfProbabilities is the prediction of the class with the greatest probability, the first of those, by a list of
// classes with this fingerprint. Scores that are no probabilities, because one is not from 0 to 1 or their sum is not
// about 1, say which class it is and nothing more.
func OfProbabilities(v []float64, classes uint32) Prediction {
	p := Prediction{Kind: Class, Classes: classes}
	sum, honest := 0.0, true
	for k, x := range v {
		sum += x
		honest = honest && x >= 0 && x <= 1
		if x > v[p.Class] {
			p.Class = uint8(k)
		}
	}
	switch {
	case !honest || math.Abs(sum-1) > sumTolerance:
	case len(v) == 2:
		p.Odds = []uint16{oddsOf(v[1])}
	default:
		p.Odds = make([]uint16, len(v))
		for k, x := range v {
			p.Odds[k] = oddsOf(x)
		}
	}
	return p
}

// sumTolerance is by how much probabilities may fail to add up to 1: those of 16-bit floats do.
const sumTolerance = 0.01

// most is the largest number that is counted, so that sums of squares stay finite.
const most = 1e100

func usable(v float64) bool { return v >= -most && v <= most }

// String names the kind.
func (k Kind) String() string {
	switch k {
	case Class:
		return "class"
	case Number:
		return "number"
	case None:
		return "none"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}
