package stat

import "math"

// Pareto is the generalised Pareto distribution, which the excess over a high threshold follows
// whatever the distribution (Pickands 1975). Shape 0 is the exponential distribution.
type Pareto struct {
	Shape, Scale float64
}

// FitPareto estimates the distribution of excesses in ascending order by probability-weighted moments
// (Hosking and Wallis 1987), which is good for shapes below ½. It needs at least two excesses that differ.
func FitPareto(ascending []float64) (Pareto, bool) {
	if len(ascending) < 2 || ascending[0] == ascending[len(ascending)-1] {
		return Pareto{}, false
	}
	n := float64(len(ascending))
	var mean, weighted float64
	for i, x := range ascending {
		mean += x / n
		weighted += x * (1 - (float64(i)+0.65)/n) / n // 0.65: their plotting position
	}
	d := mean - 2*weighted
	if !(d > 0) || !(mean > 0) {
		return Pareto{}, false
	}
	return Pareto{Shape: 2 - mean/d, Scale: 2 * mean * weighted / d}, true
}

// Survival returns the probability of an excess above x.
func (p Pareto) Survival(x float64) float64 {
	if x <= 0 {
		return 1
	}
	if math.Abs(p.Shape) < 1e-9 {
		return math.Exp(-x / p.Scale)
	}
	return math.Pow(max(0, 1+p.Shape*x/p.Scale), -1/p.Shape)
}

// Quantile returns the excess that is exceeded with probability q, 0 < q ≤ 1.
func (p Pareto) Quantile(q float64) float64 {
	if math.Abs(p.Shape) < 1e-9 {
		return -p.Scale * math.Log(q)
	}
	return p.Scale / p.Shape * (math.Pow(q, -p.Shape) - 1)
}
