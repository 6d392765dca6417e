package stat

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// PSI is the population stability index: Σ(p−q)·ln(p/q), in nats, where p and q are the shares of the
// cells, (c+½)/(n+½B) for a cell of c among n values in B cells. The half keeps empty cells finite. It is
// symmetric, at least 0, and 0 only for equal shares.
//
// Without a change, PSI·nm/(n+m) is about χ² distributed with B−1 degrees of freedom (Potgieter et al.,
// arXiv:2307.11878), which gives P; the value itself is then about (B−1)(1/n+1/m) on average. Customary
// thresholds, 0.1 and 0.2, are meant for ten cells; see [GroupEvenly].
func PSI(ref, cur []uint64) Result {
	sameLen(len(ref), len(cur))
	n, m := float64(Total(ref)), float64(Total(cur))
	if n == 0 || m == 0 || len(ref) < 2 {
		return none
	}
	half := float64(len(ref)) / 2
	var psi float64
	for i := range ref {
		p := (float64(ref[i]) + 0.5) / (n + half)
		q := (float64(cur[i]) + 0.5) / (m + half)
		psi += (p - q) * math.Log(p/q)
	}
	return Result{psi, chiSquareTail(psi/noise(n, m), len(ref)-1)}
}

// chiSquareTail returns the probability that a χ² variable of df degrees of freedom is at least x.
func chiSquareTail(x float64, df int) float64 {
	return distuv.ChiSquared{K: float64(df)}.Survival(x)
}
