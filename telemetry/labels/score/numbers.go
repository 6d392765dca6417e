package score

import "math"

// Numbers counts predicted numbers.
type Numbers struct {
	// Error sums up prediction minus truth.
	Error Moments
	// Distance sums up its absolute values.
	Distance Moments
}

// Add counts a prediction and what was true; both have to be finite.
func (n *Numbers) Add(predicted, truth float64) {
	n.Error.Add(predicted - truth)
	n.Distance.Add(math.Abs(predicted - truth))
}

// Merge adds what another one has counted.
func (n *Numbers) Merge(o Numbers) {
	n.Error.Merge(o.Error)
	n.Distance.Merge(o.Distance)
}

// RMSE is the root of the mean squared error, in the unit of the numbers.
func (n Numbers) RMSE() float64 {
	e := n.Error
	if e.N == 0 {
		return math.NaN()
	}
	return math.Sqrt(e.Mean*e.Mean + e.Squares/float64(e.N))
}

// MAE is the mean absolute error, in the unit of the numbers.
func (n Numbers) MAE() float64 { return n.Distance.Average() }

// Bias is the mean error: above 0 if predictions are too large.
func (n Numbers) Bias() float64 { return n.Error.Average() }
