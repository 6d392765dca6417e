package redact

import (
	"encoding/base64"
	"math"
	"unicode/utf8"

	"sluice/proto/inference/tensor"
)

// Tensor is a tensor as it may be written down, in JSON for example.
type Tensor struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
	// Data are the elements in row-major order: numbers, truth values, strings, or [Hidden]. Numbers that JSON
	// does not have are the strings NaN, Infinity and -Infinity; bytes that are not UTF-8 are a [Binary].
	Data []any `json:"data"`
	// Cut is how many elements are left out because there was no room for them.
	Cut int `json:"cut,omitempty"`
}

// Binary is a string of bytes that is no text.
type Binary struct {
	Base64 string `json:"base64"`
}

// Written are tensors of a call that may be written down.
type Written struct {
	Inputs  []Tensor `json:"inputs,omitempty"`
	Outputs []Tensor `json:"outputs,omitempty"`
	// Cut is how many tensors are left out because there was no room for them.
	Cut int `json:"cut,omitempty"`
}

// Write returns what may be written of a call's tensors. In JSON it takes about room bytes at most: what does not
// fit is cut off. It refers to the tensors' memory.
func (r *Rules) Write(inputs, outputs []tensor.Tensor, room int) Written {
	p := pen{r, room}
	var w Written
	for i := range inputs {
		w.Inputs = p.tensor(w.Inputs, input, &inputs[i], &w.Cut)
	}
	for i := range outputs {
		w.Outputs = p.tensor(w.Outputs, output, &outputs[i], &w.Cut)
	}
	return w
}

// pen writes while there is room.
type pen struct {
	rules *Rules
	room  int
}

// What JSON takes at most: the keys of a tensor, a number with its comma, and a byte of a string that has to be
// escaped.
const (
	tensorBytes = 80
	numberBytes = 25
	escaped     = 6
)

// fits takes room for something; false if there is not enough.
func (p *pen) fits(bytes int) bool {
	if bytes > p.room {
		return false
	}
	p.room -= bytes
	return true
}

func (p *pen) tensor(to []Tensor, of side, t *tensor.Tensor, cut *int) []Tensor {
	if !p.fits(tensorBytes + escaped*len(t.Name) + numberBytes*len(t.Shape)) {
		*cut++
		return to
	}
	w := Tensor{Name: t.Name, Datatype: t.Datatype.String(), Shape: t.Shape, Data: []any{}}
	layout := p.rules.layout(of, t)
	for i := range t.Len() {
		hidden := layout.hides(i)
		if !p.fits(size(t, i, hidden)) {
			w.Cut = t.Len() - i
			break
		}
		if hidden {
			w.Data = append(w.Data, Hidden)
			continue
		}
		w.Data = append(w.Data, element(t, i))
	}
	return append(to, w)
}

// size is what an element takes in JSON, at most.
func size(t *tensor.Tensor, i int, hidden bool) int {
	switch {
	case hidden:
		return len(Hidden) + 3
	case t.Datatype == tensor.Bytes:
		return escaped*len(t.Strings()[i]) + 3 + len(`{"base64":""}`)
	}
	return numberBytes
}

// element returns one element, exactly.
func element(t *tensor.Tensor, i int) any {
	if t.Datatype == tensor.Bytes {
		s := t.Strings()[i]
		if utf8.Valid(s) {
			return string(s)
		}
		return Binary{base64.StdEncoding.EncodeToString(s)}
	}
	if t.Datatype.IsFloat() {
		var f [1]float64
		t.Floats(f[:], i)
		return float(f[0], t.Datatype)
	}
	var bits [1]uint64
	t.Bits(bits[:], i)
	switch {
	case t.Datatype == tensor.Bool:
		return bits[0] != 0
	case t.Datatype.IsSigned():
		return int64(bits[0])
	}
	return bits[0]
}

// float is a number in as few digits as tell it apart from others of its datatype.
func float(v float64, of tensor.Datatype) any {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	case of == tensor.FP32:
		return float32(v)
	}
	return v
}
