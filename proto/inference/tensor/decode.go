package tensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"sluice/proto/inference"
)

// ErrElsewhere is the reason why a tensor in shared memory cannot be read: its
// contents never pass the network.
var ErrElsewhere = errors.New("its contents are in shared memory")

// described is what inputs and outputs have in common.
type described interface {
	GetName() string
	GetDatatype() string
	GetShape() []int64
	GetParameters() map[string]*inference.InferParameter
	GetContents() *inference.InferTensorContents
}

// Inputs reads the tensors of a request. An error names the field that is wrong; then
// none is returned.
func Inputs(req *inference.ModelInferRequest) ([]Tensor, error) {
	return decode("inputs", req.GetInputs(), "raw_input_contents", req.GetRawInputContents())
}

// Outputs reads the tensors of an answer. An error names the field that is wrong; then
// none is returned.
func Outputs(resp *inference.ModelInferResponse) ([]Tensor, error) {
	return decode("outputs", resp.GetOutputs(), "raw_output_contents", resp.GetRawOutputContents())
}

// decode gives every tensor its contents. A tensor without typed contents takes the
// next raw entry; all of them must be taken.
func decode[T described](field string, from []T, rawField string, raw [][]byte) ([]Tensor, error) {
	tensors := make([]Tensor, len(from))
	used := 0
	for i, d := range from {
		t := &tensors[i]
		err := t.describe(d)
		if err == nil {
			switch c := d.GetContents(); {
			case c != nil:
				err = t.setTyped(c)
			case used < len(raw):
				err = t.setRaw(raw[used])
				used++
			case t.n > 0:
				err = fmt.Errorf("got no contents, want %d elements for shape %d", t.n, t.Shape)
			case t.Datatype == Bytes:
				t.strings = [][]byte{}
			default:
				t.raw = []byte{}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s[%d] (%q): %w", field, i, t.Name, err)
		}
	}
	if used < len(raw) {
		return nil, fmt.Errorf("%s: got %d entries, want one for each of the %d tensors without contents of their own",
			rawField, len(raw), used)
	}
	return tensors, nil
}

func (t *Tensor) describe(d described) error {
	t.Name, t.Shape = d.GetName(), d.GetShape()
	if d.GetParameters()["shared_memory_region"] != nil {
		return ErrElsewhere
	}
	var ok bool
	if t.Datatype, ok = ParseDatatype(d.GetDatatype()); !ok {
		return fmt.Errorf("datatype: got %q, want a datatype of the protocol, such as FP32", d.GetDatatype())
	}
	t.n, ok = elements(t.Shape)
	if !ok {
		return fmt.Errorf("shape: got %d, want sizes from 0 whose product fits a message", t.Shape)
	}
	return nil
}

// elements is the product of a shape's sizes; a shape without any is that of a single
// element. It reports false for a negative size, and for a product beyond what a
// message can hold: those of 0 aside, no element takes less than one byte.
func elements(shape []int64) (int, bool) {
	n := int64(1)
	empty := false
	for _, size := range shape {
		if size < 0 {
			return 0, false
		}
		empty = empty || size == 0
	}
	if empty {
		return 0, true
	}
	for _, size := range shape {
		if size > math.MaxInt32/n {
			return 0, false
		}
		n *= size
	}
	return int(n), true
}

func (t *Tensor) setRaw(raw []byte) error {
	if t.Datatype == Bytes {
		return t.splitStrings(raw)
	}
	if size := t.Datatype.Size(); len(raw) != t.n*size {
		return fmt.Errorf("raw contents: got %d bytes, want %d for shape %d of %v", len(raw), t.n*size, t.Shape, t.Datatype)
	}
	if t.raw = raw; raw == nil {
		t.raw = []byte{}
	}
	return nil
}

// splitStrings cuts raw BYTES, each with its length in 4 bytes before it.
func (t *Tensor) splitStrings(raw []byte) error {
	if t.n > len(raw)/4 {
		return fmt.Errorf("raw contents: got %d bytes, want at least %d, a length for each element of shape %d", len(raw), 4*t.n, t.Shape)
	}
	t.strings = make([][]byte, t.n)
	left := raw
	for i := range t.strings {
		if len(left) < 4 {
			return fmt.Errorf("raw contents: got %d bytes, want a length of 4 bytes for element %d", len(left), i)
		}
		n := binary.LittleEndian.Uint32(left)
		if left = left[4:]; uint64(n) > uint64(len(left)) {
			return fmt.Errorf("raw contents: got %d bytes, want the %d of element %d", len(left), n, i)
		}
		t.strings[i], left = left[:n:n], left[n:]
	}
	if len(left) > 0 {
		return fmt.Errorf("raw contents: got %d bytes behind the last of %d elements, want none", len(left), t.n)
	}
	return nil
}

// setTyped takes typed contents, which must stand in the field of the datatype and
// nowhere else.
func (t *Tensor) setTyped(c *inference.InferTensorContents) error {
	lists := [...]int{len(c.GetBoolContents()), len(c.GetIntContents()), len(c.GetInt64Contents()), len(c.GetUintContents()),
		len(c.GetUint64Contents()), len(c.GetFp32Contents()), len(c.GetFp64Contents()), len(c.GetBytesContents())}
	field := t.Datatype.contents()
	if field < 0 {
		return fmt.Errorf("contents: %v has no typed contents, want it in raw contents", t.Datatype)
	}
	for i, n := range lists {
		if n > 0 && i != field {
			return fmt.Errorf("contents.%s: got %d elements, want them in %s for %v", contentsFields[i], n, contentsFields[field], t.Datatype)
		}
	}
	if lists[field] != t.n {
		return fmt.Errorf("contents.%s: got %d elements, want %d for shape %d", contentsFields[field], lists[field], t.n, t.Shape)
	}
	if t.typed = c; t.Datatype == Bytes {
		t.strings = c.GetBytesContents()
	}
	return t.checkRange()
}

var contentsFields = [...]string{"bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
	"fp32_contents", "fp64_contents", "bytes_contents"}

// contents is the index in contentsFields of where typed elements stand, -1 if there
// is no such field.
func (d Datatype) contents() int {
	switch d {
	case Bool:
		return 0
	case Int8, Int16, Int32:
		return 1
	case Int64:
		return 2
	case Uint8, Uint16, Uint32:
		return 3
	case Uint64:
		return 4
	case FP32:
		return 5
	case FP64:
		return 6
	case Bytes:
		return 7
	}
	return -1
}

// checkRange wants elements that travel in a wider field to fit their datatype.
func (t *Tensor) checkRange() error {
	bits := 8 * t.Datatype.Size()
	switch t.Datatype {
	case Int8, Int16:
		for i, v := range t.typed.GetIntContents() {
			if most := int32(1) << (bits - 1); v < -most || v >= most {
				return fmt.Errorf("contents.int_contents[%d]: got %d, want %d to %d for %v", i, v, -most, most-1, t.Datatype)
			}
		}
	case Uint8, Uint16:
		for i, v := range t.typed.GetUintContents() {
			if most := uint32(1) << bits; v >= most {
				return fmt.Errorf("contents.uint_contents[%d]: got %d, want 0 to %d for %v", i, v, most-1, t.Datatype)
			}
		}
	}
	return nil
}
