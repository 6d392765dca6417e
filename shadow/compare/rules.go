package compare

import "sluice/proto/inference/tensor"

// Tolerance is how far numbers may be apart: |b-a| <= Abs + Rel*|a|.
type Tolerance struct{ Rel, Abs float64 }

// DefaultTolerance is what PyTorch's torch.testing.assert_close allows for a datatype:
// nothing for those that are no floating-point numbers.
func DefaultTolerance(d tensor.Datatype) Tolerance {
	switch d {
	case tensor.FP64:
		return Tolerance{1e-7, 1e-7}
	case tensor.FP32:
		return Tolerance{1.3e-6, 1e-5}
	case tensor.FP16:
		return Tolerance{1e-3, 1e-5}
	case tensor.BF16:
		return Tolerance{1.6e-2, 1e-5}
	}
	return Tolerance{}
}

// Rule is what is special about one output.
type Rule struct {
	// Ignore leaves the output out.
	Ignore bool
	// Tolerance replaces the datatype's own, for floating-point numbers.
	Tolerance *Tolerance
	// NaNDiffers makes a NaN differ from everything, a NaN in the same place too.
	NaNDiffers bool
}

// DefaultTopK is how many of a row's largest values are compared as a set.
const DefaultTopK = 5

// Rules say how answers are compared. The zero value compares every output by its
// datatype's tolerance.
type Rules struct {
	// Outputs holds rules by the output's name; under "" is the one for all others.
	Outputs map[string]Rule
	// TopK is how many of a row's largest values are compared as a set; 0 means
	// DefaultTopK.
	TopK int
}

func (r *Rules) of(output string) Rule {
	if rule, ok := r.Outputs[output]; ok {
		return rule
	}
	return r.Outputs[""]
}

func (r *Rules) topK() int {
	if r.TopK > 0 {
		return r.TopK
	}
	return DefaultTopK
}
