package compare

import (
	"bytes"
	"math"
	"slices"

	"sluice/proto/inference/tensor"
)

// block is how many elements are decoded at once.
const block = 256

// tensor compares two outputs of the same name.
func (c *Comparer) tensor(rules *Rules, rule Rule, o *Output, a, b *tensor.Tensor) {
	switch {
	case a.Datatype != b.Datatype:
		o.Difference = worse(o.Difference, Datatypes)
	case !slices.Equal(a.Shape, b.Shape):
		o.Difference = worse(o.Difference, Shapes)
	case a.Datatype == tensor.Bytes:
		o.strings(a.Strings(), b.Strings())
	case a.Datatype.IsFloat():
		c.floatingPoint(rules, rule, o, a, b)
	default:
		c.integers(o, a, b)
	}
}

func (o *Output) strings(a, b [][]byte) {
	o.Elements += len(a)
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			o.differs(Values)
		}
	}
}

func (o *Output) differs(d Difference) {
	o.Differing++
	o.Excess = math.Inf(1)
	o.Difference = worse(o.Difference, d)
}

// integers compares exactly, though the errors it reports are rounded.
func (c *Comparer) integers(o *Output, a, b *tensor.Tensor) {
	o.Elements += a.Len()
	for from := 0; from < a.Len(); from += block {
		n := a.Bits(c.bits[0][:], from)
		b.Bits(c.bits[1][:], from)
		a.Floats(c.floats[0][:], from)
		b.Floats(c.floats[1][:], from)
		for i := range n {
			p, s := c.bits[0][i], c.bits[1][i]
			o.sums.add(c.floats[0][i], c.floats[1][i])
			if p == s {
				continue
			}
			o.differs(Values)
			distance := max(p, s) - min(p, s)
			if int64(p^s) < 0 && isSigned(a.Datatype) {
				distance = -distance // one is negative: around the other way
			}
			o.MaxULP = max(o.MaxULP, distance)
			o.error(c.floats[0][i], float64(distance))
		}
	}
}

func isSigned(d tensor.Datatype) bool { return d >= tensor.Int8 && d <= tensor.Int64 }

// error notes that an element whose first value is a is off by abs.
func (o *Output) error(a, abs float64) {
	rel := abs / math.Abs(a) // infinite for 0
	if math.IsInf(a, 0) {
		rel = math.Inf(1)
	}
	o.MaxAbs, o.MaxRel = max(o.MaxAbs, abs), max(o.MaxRel, rel)
	o.sums.squares += abs * abs
}

// add takes a pair of values, neither of them NaN, into the means.
func (s *sums) add(a, b float64) {
	s.compared++
	if !math.IsInf(a, 0) && !math.IsInf(b, 0) {
		s.dot += a * b
		s.normA += a * a
		s.normB += b * b
	}
}

func (c *Comparer) floatingPoint(rules *Rules, rule Rule, o *Output, a, b *tensor.Tensor) {
	tolerance := DefaultTolerance(a.Datatype)
	if rule.Tolerance != nil {
		tolerance = *rule.Tolerance
	}
	o.Elements += a.Len()
	c.rows.begin(rules.topK(), a.Shape)
	for from := 0; from < a.Len(); from += block {
		n := a.Floats(c.floats[0][:], from)
		b.Floats(c.floats[1][:], from)
		a.Bits(c.bits[0][:], from)
		b.Bits(c.bits[1][:], from)
		for i := range n {
			p, s := c.floats[0][i], c.floats[1][i]
			o.float(rule, tolerance, p, s)
			if finite(p) && finite(s) {
				o.MaxULP = max(o.MaxULP, ulps(a.Datatype, c.bits[0][i], c.bits[1][i]))
			}
			c.rows.add(o, p, s)
		}
	}
}

func finite(v float64) bool { return v-v == 0 }

// float compares one pair of numbers.
func (o *Output) float(rule Rule, tolerance Tolerance, a, b float64) {
	if nanA, nanB := a != a, b != b; nanA || nanB {
		if nanA != nanB || rule.NaNDiffers {
			o.differs(NaNs)
		}
		return
	}
	o.sums.add(a, b)
	if a == b {
		return // infinities too
	}
	abs := math.Abs(b - a)
	o.error(a, abs)
	if math.IsInf(abs, 0) {
		o.differs(Values) // whatever is allowed
		return
	}
	allowed := tolerance.Abs + tolerance.Rel*math.Abs(a)
	o.Excess = max(o.Excess, abs/allowed) // infinite for none
	if abs > allowed {
		o.Differing++
		o.Difference = worse(o.Difference, Values)
	}
}

// ulps is how many representable values lie between two of a datatype, one of them
// included. 0 and -0 are one value.
func ulps(d tensor.Datatype, a, b uint64) uint64 {
	x, y := ordered(d, a), ordered(d, b)
	return uint64(max(x, y) - min(x, y))
}

// ordered maps the bits of a finite number to an integer such that neighbours map to
// neighbours. Those of FP64 lie within +-2^63, the infinities excluded, so that only
// the distance of two may need the 64th bit.
func ordered(d tensor.Datatype, bits uint64) int64 {
	sign := uint64(1) << (8*d.Size() - 1)
	if bits&sign != 0 {
		return -int64(bits &^ sign)
	}
	return int64(bits)
}
