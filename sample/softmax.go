package sample

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Softmax is multinomial logistic regression over standardised features: the
// probabilities are the softmax of Weights·(x-Mean)/Scale + Bias.
type Softmax struct {
	Mean    []float64   `json:"mean"`    // per feature, of the rows trained on
	Scale   []float64   `json:"scale"`   // per feature, their standard deviation
	Weights [][]float64 `json:"weights"` // per class, per feature
	Bias    []float64   `json:"bias"`    // per class
}

// Standardise returns (x-Mean)/Scale.
func (s *Softmax) Standardise(x []float64) []float64 {
	z := make([]float64, len(x))
	for i := range x {
		z[i] = (x[i] - s.Mean[i]) / s.Scale[i]
	}
	return z
}

// Probabilities returns the probability of each class for features that are
// already standardised.
func (s *Softmax) Probabilities(z []float64) []float64 {
	p := make([]float64, len(s.Bias))
	for class, weights := range s.Weights {
		p[class] = s.Bias[class]
		for i, w := range weights {
			p[class] += w * z[i]
		}
	}
	// Subtracting the largest keeps Exp from overflowing and changes nothing else.
	largest := slices.Max(p)
	sum := 0.0
	for class := range p {
		p[class] = math.Exp(p[class] - largest)
		sum += p[class]
	}
	for class := range p {
		p[class] /= sum
	}
	return p
}

func (s *Softmax) predict(x []float64) []float64 {
	return s.Probabilities(s.Standardise(x))
}

func (s *Softmax) validate(classes, features int) error {
	var errs []error
	vector := func(name string, values []float64, want int) {
		if len(values) != want {
			errs = append(errs, fmt.Errorf("softmax.%s: got %d numbers, want %d", name, len(values), want))
		}
		if i := slices.IndexFunc(values, func(v float64) bool { return !finite(v) }); i >= 0 {
			errs = append(errs, fmt.Errorf("softmax.%s[%d]: got %v, want a finite number", name, i, values[i]))
		}
	}
	vector("mean", s.Mean, features)
	vector("scale", s.Scale, features)
	vector("bias", s.Bias, classes)
	if len(s.Weights) != classes {
		errs = append(errs, fmt.Errorf("softmax.weights: got %d rows, want %d", len(s.Weights), classes))
	}
	for class, weights := range s.Weights {
		vector(fmt.Sprintf("weights[%d]", class), weights, features)
	}
	for i, scale := range s.Scale {
		if scale <= 0 {
			errs = append(errs, fmt.Errorf("softmax.scale[%d]: got %v, want a positive number", i, scale))
		}
	}
	return errors.Join(errs...)
}
