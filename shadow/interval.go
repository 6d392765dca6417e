package shadow

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Interval holds the bounds of a rate.
type Interval struct{ Low, High float64 }

// z is the quantile of the normal distribution that leaves 2.5 % on either side.
const z = 1.959963984540054

// Wilson is the 95 % score interval (E. B. Wilson, 1927) of a rate of which x in n were
// seen. It is for looking at: with n = 0 it is everything.
func Wilson(x, n uint64) Interval {
	if n == 0 {
		return Interval{0, 1}
	}
	p, m := float64(x)/float64(n), float64(n)
	middle := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return Interval{max(0, middle-half), min(1, middle+half)}
}

// ClopperPearsonUpper is the upper end of the exact 95 % interval (C. Clopper and E. S.
// Pearson, 1934): if the true rate were higher, x or fewer of n would be seen in less
// than 2.5 % of all cases. It is for decisions: accept a version whose bound is low
// enough. None in 3,000 gives 0.12 %.
func ClopperPearsonUpper(x, n uint64) float64 {
	if x >= n {
		return 1
	}
	return mathext.InvRegIncBeta(float64(x)+1, float64(n-x), 0.975)
}

// AtAnyTime is an interval of a rate that holds at every moment at once: with the
// probability of 95 % the true rate is in it however often it is looked at, and whenever
// somebody stops looking. It is the confidence sequence of the beta-binomial mixture
// (S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, 2021): all rates p under which the
// likelihood ratio of the mixture to p stays below 1/alpha. x of n were seen.
func AtAnyTime(x, n uint64) Interval {
	const alpha = 0.05
	a, b := float64(x)+mixtureA, float64(n-x)+mixtureB
	// The logarithm of the ratio, without what does not depend on p.
	evidence := mathext.Lbeta(a, b) - mathext.Lbeta(mixtureA, mixtureB) + math.Log(alpha)
	excluded := func(p float64) bool {
		return evidence >= xlogp(float64(x), p)+xlogp(float64(n-x), 1-p)
	}
	seen := 0.0
	if n > 0 {
		seen = float64(x) / float64(n)
	}
	// The ratio is least at what was seen, and grows to either side.
	return Interval{bisect(0, seen, excluded), bisect(1, seen, excluded)}
}

// mixtureA and mixtureB are the parameters of the mixture. Its mean of 1 % is where the
// rates of mismatches are that somebody would think about.
const mixtureA, mixtureB = 0.25, 24.75

// xlogp is x log p, and 0 where x is.
func xlogp(x, p float64) float64 {
	if x == 0 {
		return 0
	}
	return x * math.Log(p)
}

// bisect returns the value next to out, or out itself, that is not excluded; in is not.
func bisect(out, in float64, excluded func(float64) bool) float64 {
	if !excluded(out) {
		return out
	}
	for range 60 {
		middle := (out + in) / 2
		if excluded(middle) {
			out = middle
		} else {
			in = middle
		}
	}
	return in
}
