package tensor

import "math"

// fromFP16 widens IEEE 754 binary16: 1 bit of sign, 5 of exponent with bias 15, 10 of
// fraction. Every value has an exact float64.
func fromFP16(b uint16) float64 {
	fraction, exponent := float64(b&0x3ff), int(b>>10&0x1f)
	var v float64
	switch exponent {
	case 0:
		v = math.Ldexp(fraction, -24) // subnormal
	case 0x1f:
		if v = math.Inf(1); fraction != 0 {
			return math.NaN()
		}
	default:
		v = math.Ldexp(1024+fraction, exponent-25)
	}
	if b&0x8000 != 0 {
		v = math.Copysign(v, -1)
	}
	return v
}

// fromBF16 widens bfloat16, which is the upper half of a float32.
func fromBF16(b uint16) float64 { return float64(math.Float32frombits(uint32(b) << 16)) }
