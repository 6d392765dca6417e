package tensor

// Datatype is what a tensor's elements are.
type Datatype uint8

// The datatypes of the protocol.
const (
	Bool Datatype = iota + 1
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	BF16
	FP32
	FP64
	Bytes // strings of bytes, each of its own length
)

// datatypes holds what is known of each: its name on the wire, and the bytes that an
// element takes in raw contents, 0 for Bytes.
var datatypes = [...]struct {
	name string
	size int
}{
	Bool: {"BOOL", 1}, Uint8: {"UINT8", 1}, Uint16: {"UINT16", 2}, Uint32: {"UINT32", 4}, Uint64: {"UINT64", 8},
	Int8: {"INT8", 1}, Int16: {"INT16", 2}, Int32: {"INT32", 4}, Int64: {"INT64", 8},
	FP16: {"FP16", 2}, BF16: {"BF16", 2}, FP32: {"FP32", 4}, FP64: {"FP64", 8}, Bytes: {"BYTES", 0},
}

var byName = func() map[string]Datatype {
	m := make(map[string]Datatype, len(datatypes))
	for d := Bool; d <= Bytes; d++ {
		m[datatypes[d].name] = d
	}
	return m
}()

// ParseDatatype reads a datatype's name as the protocol writes it, such as "FP32".
func ParseDatatype(name string) (Datatype, bool) {
	d, ok := byName[name]
	return d, ok
}

// String returns the name as the protocol writes it.
func (d Datatype) String() string {
	if int(d) < len(datatypes) && d != 0 {
		return datatypes[d].name
	}
	return "no datatype"
}

// Size is the number of bytes of an element in raw contents, 0 for [Bytes].
func (d Datatype) Size() int { return datatypes[d].size }

// IsFloat reports a floating-point datatype.
func (d Datatype) IsFloat() bool { return d >= FP16 && d <= FP64 }

// IsNumber reports a datatype whose elements are numbers, truth values among them.
func (d Datatype) IsNumber() bool { return d >= Bool && d <= FP64 }

// IsSigned reports an integer datatype with a sign.
func (d Datatype) IsSigned() bool { return d >= Int8 && d <= Int64 }
