package labels

import (
	"errors"
	"fmt"
	"math"
	"slices"

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
	errRows     = fmt.Errorf("the output has no rows, or more than %d", maxRows)
	errContent  = errors.New("the output is not what the route says it predicts")
)

// Read puts the predictions of an answer's rows into p. If it fails, p may hold some of them.
func (r *Reader) Read(outputs []tensor.Tensor, p *Prediction) error {
	for i := range outputs {
		t := &outputs[i]
		if r.output != "" && t.Name != r.output {
			continue
		}
		columns := 1
		if t.Datatype.IsFloat() && r.kind == Class {
			columns = len(r.classes)
		}
		rows, width := t.Rows(columns)
		if rows < 1 || rows > maxRows {
			return errRows
		}
		p.Kind, p.Classes = r.kind, r.print
		switch {
		case r.kind == Number:
			return r.numbers(t, rows, width, p)
		case width > 1 || t.Datatype.IsFloat():
			return r.scores(t, rows, width, p)
		case t.Datatype == tensor.Bytes:
			return r.names(t, p)
		}
		return r.indexes(t, rows, p)
	}
	return errNoOutput
}

func (r *Reader) numbers(t *tensor.Tensor, rows, width int, p *Prediction) error {
	p.Numbers = slices.Grow(p.Numbers, rows)[:rows]
	if width != 1 || t.Floats(p.Numbers, 0) != rows || !all(p.Numbers, usable) {
		return errContent
	}
	return nil
}

func (r *Reader) names(t *tensor.Tensor, p *Prediction) error {
	for _, s := range t.Strings() {
		k := slices.IndexFunc(r.classes, func(name string) bool { return name == string(s) })
		if k < 0 {
			return errContent
		}
		p.Indexes = append(p.Indexes, uint8(k))
	}
	return nil
}

func (r *Reader) indexes(t *tensor.Tensor, rows int, p *Prediction) error {
	var room [maxRows]float64
	v := room[:rows]
	t.Floats(v, 0)
	for _, k := range v {
		if !(k >= 0 && k < float64(len(r.classes))) {
			return errContent
		}
		p.Indexes = append(p.Indexes, uint8(k))
	}
	return nil
}

// scores reads one for each class, or one probability of the second of two classes.
func (r *Reader) scores(t *tensor.Tensor, rows, width int, p *Prediction) error {
	second := width == 1 && len(r.classes) == 2
	if width != len(r.classes) && !second {
		return errContent
	}
	var room [maxClasses]float64
	v := room[:len(r.classes)]
	for row := range rows {
		read := v[len(v)-width:]
		if t.Floats(read, row*width) != width || !all(read, func(x float64) bool { return !math.IsNaN(x) }) {
			return errContent
		}
		if second {
			v[0] = 1 - v[1]
		}
		p.add(v)
	}
	if len(p.Indexes)+2*len(p.Odds) > maxContent {
		p.Odds = p.Odds[:0]
	}
	return nil
}

func all(v []float64, are func(float64) bool) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return !are(x) })
}

// add adds a row that predicts the class with the greatest probability, the first of those. Scores that are no
// probabilities, because one is not from 0 to 1 or their sum is not about 1, say which class it is and nothing more, and
// then those of the other rows say no more either.
func (p *Prediction) add(v []float64) {
	sum, honest, best := 0.0, true, 0
	for k, x := range v {
		sum += x
		honest = honest && x >= 0 && x <= 1
		if x > v[best] {
			best = k
		}
	}
	odds := v
	if len(v) == 2 {
		odds = v[1:]
	}
	if known := len(p.Odds) == len(p.Indexes)*len(odds); known && honest && math.Abs(sum-1) <= sumTolerance {
		for _, x := range odds {
			p.Odds = append(p.Odds, oddsOf(x))
		}
	} else {
		p.Odds = p.Odds[:0]
	}
	p.Indexes = append(p.Indexes, uint8(best))
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
