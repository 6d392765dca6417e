package score

import "math"

// Interval is where a value is, with some confidence.
type Interval struct{ Low, High float64 }

// Unknown is the interval of a value of which nothing is known.
var Unknown = Interval{math.Inf(-1), math.Inf(1)}

// designed is the number of observations that intervals of differences are narrowest at.
const designed = 2000

// Difference is the mean of b minus that of a, and where the true difference is with a confidence of 1−alpha, however
// often and whenever one looks: an asymptotic confidence sequence (Lindon, Ham, Tingley and Bojinov, "Anytime-valid
// inference in linear models", arXiv:2210.08589, after Robbins' normal mixture). Observations have to be independent,
// and shared between a and b by chance. To both variances counts one observation more that is off by unit, so that an
// interval is not narrow only because nothing has gone wrong so far: 1 for events, 0 for numbers of any size. The
// interval is [Unknown] while either has fewer than leastForDifference.
func Difference(a, b Moments, unit, alpha float64) (float64, Interval) {
	d := b.Average() - a.Average()
	if a.N < leastForDifference || b.N < leastForDifference {
		return d, Unknown
	}
	n := float64(a.N + b.N)
	error2 := 0.0 // of the difference, squared
	for _, m := range []Moments{a, b} {
		k := float64(m.N)
		error2 += (m.Squares + unit*unit) / (k - 1) / k
	}
	log := -2 * math.Log(alpha)
	eta := designed / (log + math.Log(1+log))
	half := math.Sqrt(error2 * (n + eta) / n * math.Log((n+eta)/(eta*alpha*alpha)))
	return d, Interval{d - half, d + half}
}

// leastForDifference is how many observations the normal approximation needs.
const leastForDifference = 200
