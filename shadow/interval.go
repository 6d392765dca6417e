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
