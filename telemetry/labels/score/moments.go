package score

import "math"

// Moments sums up numbers: how many, their mean, and the sum of their squared distances from it.
type Moments struct {
	N       uint64
	Mean    float64
	Squares float64
}

// Add counts one number, which has to be finite (Welford 1962).
func (m *Moments) Add(x float64) {
	m.N++
	d := x - m.Mean
	m.Mean += d / float64(m.N)
	m.Squares += d * (x - m.Mean)
}

// Merge adds what another one has counted (Chan, Golub and LeVeque 1979).
func (m *Moments) Merge(o Moments) {
	if o.N == 0 {
		return
	}
	if m.N == 0 {
		*m = o
		return
	}
	a, b := float64(m.N), float64(o.N)
	d := o.Mean - m.Mean
	m.N += o.N
	m.Mean += d * b / (a + b)
	m.Squares += o.Squares + d*d*a*b/(a+b)
}

// Average is the mean; NaN if nothing was counted.
func (m Moments) Average() float64 {
	if m.N == 0 {
		return math.NaN()
	}
	return m.Mean
}

// Variance is that of the population that the numbers are a sample of; NaN of fewer than two.
func (m Moments) Variance() float64 {
	if m.N < 2 {
		return math.NaN()
	}
	return m.Squares / float64(m.N-1)
}
