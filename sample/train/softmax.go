package main

import (
	"fmt"
	"math"

	"sluice/sample"
)

// softmaxFit minimises the mean cross-entropy plus Penalty/2 times the sum of
// squared weights. That is convex, so plain gradient descent from zero over
// the whole set arrives at the one best answer without any random choice.
type softmaxFit struct {
	Steps   int     // of gradient descent
	Rate    float64 // length of a step, in gradients
	Penalty float64 // on the squared weights, not on the biases
}

// String describes the method for a model's provenance.
func (f softmaxFit) String() string {
	return fmt.Sprintf("multinomial logistic regression, gradient descent: %d steps, rate %g, L2 penalty %g", f.Steps, f.Rate, f.Penalty)
}

func (f softmaxFit) fit(set trainingSet) *sample.Softmax {
	model := newSoftmax(set)
	z := make([][]float64, len(set.x))
	for row, x := range set.x {
		z[row] = model.Standardise(x)
	}
	for range f.Steps {
		f.step(model, z, set.labels)
	}
	for class, weights := range model.Weights {
		model.Bias[class] = round(model.Bias[class])
		for i := range weights {
			weights[i] = round(weights[i])
		}
	}
	return model
}

// step moves the parameters once against the gradient.
func (f softmaxFit) step(model *sample.Softmax, z [][]float64, labels []int) {
	weights, bias := gradient(model, z, labels)
	for class := range model.Bias {
		model.Bias[class] -= f.Rate * bias[class]
		for i := range model.Weights[class] {
			model.Weights[class][i] -= f.Rate * (weights[class][i] + f.Penalty*model.Weights[class][i])
		}
	}
}

// gradient is that of the mean cross-entropy: the mean of (probability - label)
// times the input.
func gradient(model *sample.Softmax, z [][]float64, labels []int) (weights [][]float64, bias []float64) {
	bias = make([]float64, len(model.Bias))
	weights = make([][]float64, len(model.Weights))
	for class := range weights {
		weights[class] = make([]float64, len(model.Weights[class]))
	}
	share := 1 / float64(len(z))
	for row := range z {
		for class, p := range model.Probabilities(z[row]) {
			if class == labels[row] {
				p--
			}
			bias[class] += share * p
			for i, v := range z[row] {
				weights[class][i] += share * p * v
			}
		}
	}
	return weights, bias
}

// newSoftmax has zero parameters and the set's mean and standard deviation.
func newSoftmax(set trainingSet) *sample.Softmax {
	features := len(set.x[0])
	model := &sample.Softmax{
		Mean:    make([]float64, features),
		Scale:   make([]float64, features),
		Weights: make([][]float64, set.classes),
		Bias:    make([]float64, set.classes),
	}
	for class := range model.Weights {
		model.Weights[class] = make([]float64, features)
	}
	n := float64(len(set.x))
	for i := range features {
		for _, x := range set.x {
			model.Mean[i] += x[i] / n
		}
		variance := 0.0
		for _, x := range set.x {
			variance += (x[i] - model.Mean[i]) * (x[i] - model.Mean[i]) / n
		}
		model.Mean[i], model.Scale[i] = round(model.Mean[i]), round(math.Sqrt(variance))
	}
	return model
}
