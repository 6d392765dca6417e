package tensor

import (
	"encoding/binary"
	"math"

	"sluice/proto/inference"
)

// Tensor is one tensor of a message: its description, and its elements in row-major
// order.
type Tensor struct {
	Name     string
	Datatype Datatype
	Shape    []int64

	n       int
	raw     []byte   // little-endian elements; nil if the contents are typed
	strings [][]byte // the elements of Bytes
	typed   *inference.InferTensorContents
}

// Len is the number of elements.
func (t *Tensor) Len() int { return t.n }

// Rows says how many rows the tensor has, and how many elements each: the first size of a shape is the number of
// rows. A shape of one size is a single row if it is known to have as many columns, more than one; 0 if that is not
// known. Both are 0 for a tensor without elements.
func (t *Tensor) Rows(columns int) (rows, width int) {
	rows = 1
	if len(t.Shape) > 0 && !(len(t.Shape) == 1 && columns > 1 && t.Shape[0] == int64(columns)) {
		rows = int(min(t.Shape[0], int64(t.n)))
	}
	if rows == 0 || t.n == 0 {
		return 0, 0
	}
	return rows, t.n / rows
}

// Floats reads elements as numbers into dst, beginning with the element at from, and
// returns how many there were: len(dst), or what is left. BOOL counts as 0 and 1, and
// 64-bit integers are rounded. It is for datatypes that are numbers, and reads nothing
// of the others.
func (t *Tensor) Floats(dst []float64, from int) int {
	n := t.clip(len(dst), from)
	if n == 0 || !t.Datatype.IsNumber() {
		return 0
	}
	dst = dst[:n]
	if t.raw != nil {
		t.rawFloats(dst, from)
		return n
	}
	switch c := t.typed; t.Datatype {
	case FP32:
		for i, v := range c.GetFp32Contents()[from:][:n] {
			dst[i] = float64(v)
		}
	case FP64:
		copy(dst, c.GetFp64Contents()[from:])
	case Uint64:
		for i, v := range c.GetUint64Contents()[from:][:n] {
			dst[i] = float64(v)
		}
	case Int64:
		for i, v := range c.GetInt64Contents()[from:][:n] {
			dst[i] = float64(v)
		}
	case Int8, Int16, Int32:
		for i, v := range c.GetIntContents()[from:][:n] {
			dst[i] = float64(v)
		}
	case Uint8, Uint16, Uint32:
		for i, v := range c.GetUintContents()[from:][:n] {
			dst[i] = float64(v)
		}
	case Bool:
		for i, v := range c.GetBoolContents()[from:][:n] {
			dst[i] = float64(bit(v))
		}
	}
	return n
}

func (t *Tensor) rawFloats(dst []float64, from int) {
	raw := t.raw[from*t.Datatype.Size():]
	switch t.Datatype {
	case FP32:
		for i := range dst {
			dst[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	case FP64:
		for i := range dst {
			dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
		}
	case FP16:
		for i := range dst {
			dst[i] = fromFP16(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = fromBF16(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	default:
		signed := t.Datatype.IsSigned()
		for i := range dst {
			b := t.rawBits(raw, i)
			if dst[i] = float64(b); signed {
				dst[i] = float64(int64(b))
			}
		}
	}
}

// Bits reads elements exactly into dst, beginning with the element at from, and
// returns how many there were. Integers with a sign are extended to 64 bits in two's
// complement, BOOL is 0 or 1, and floating-point numbers are the bits of their own
// datatype. It reads nothing of [Bytes].
func (t *Tensor) Bits(dst []uint64, from int) int {
	n := t.clip(len(dst), from)
	if n == 0 || !t.Datatype.IsNumber() {
		return 0
	}
	dst = dst[:n]
	if t.raw != nil {
		raw := t.raw[from*t.Datatype.Size():]
		for i := range dst {
			dst[i] = t.rawBits(raw, i)
		}
		return n
	}
	switch c := t.typed; t.Datatype {
	case FP32:
		for i, v := range c.GetFp32Contents()[from:][:n] {
			dst[i] = uint64(math.Float32bits(v))
		}
	case FP64:
		for i, v := range c.GetFp64Contents()[from:][:n] {
			dst[i] = math.Float64bits(v)
		}
	case Uint64:
		copy(dst, c.GetUint64Contents()[from:])
	case Int64:
		for i, v := range c.GetInt64Contents()[from:][:n] {
			dst[i] = uint64(v)
		}
	case Int8, Int16, Int32:
		for i, v := range c.GetIntContents()[from:][:n] {
			dst[i] = uint64(v)
		}
	case Uint8, Uint16, Uint32:
		for i, v := range c.GetUintContents()[from:][:n] {
			dst[i] = uint64(v)
		}
	case Bool:
		for i, v := range c.GetBoolContents()[from:][:n] {
			dst[i] = bit(v)
		}
	}
	return n
}

// rawBits is the i-th element of raw contents.
func (t *Tensor) rawBits(raw []byte, i int) uint64 {
	switch t.Datatype {
	case Bool:
		return bit(raw[i] != 0) // as C and NumPy read it
	case Int8:
		return uint64(int8(raw[i]))
	case Int16:
		return uint64(int16(binary.LittleEndian.Uint16(raw[2*i:])))
	case Int32:
		return uint64(int32(binary.LittleEndian.Uint32(raw[4*i:])))
	}
	switch t.Datatype.Size() {
	case 1:
		return uint64(raw[i])
	case 2:
		return uint64(binary.LittleEndian.Uint16(raw[2*i:]))
	case 4:
		return uint64(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return binary.LittleEndian.Uint64(raw[8*i:])
}

// Strings returns the elements of a [Bytes] tensor, nil of any other. They belong to
// the message.
func (t *Tensor) Strings() [][]byte { return t.strings }

// clip is how many of want elements there are from there on.
func (t *Tensor) clip(want, from int) int { return max(0, min(want, t.n-from)) }

func bit(v bool) uint64 {
	if v {
		return 1
	}
	return 0
}
