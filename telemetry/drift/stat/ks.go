package stat

import "math"

// exactPaths is the product of two sample sizes up to which [KS] counts paths.
const exactPaths = 10_000

// KS is the two-sample Kolmogorov-Smirnov distance, the largest difference between the cumulative shares,
// from 0 to 1, of samples counted in ordered cells.
//
// P is exact for nm ≤ 10⁴, by counting the lattice paths that stay closer (Hodges 1958), else Q((√e + 0.12 +
// 0.11/√e)·D) with e = nm/(n+m) and Kolmogorov's Q (Stephens 1970). Cells can only lower D, by at most the
// mass of one cell of the one or the other sample, so P is on the safe side.
func KS(ref, cur []uint64) Result {
	sameLen(len(ref), len(cur))
	n, m := float64(Total(ref)), float64(Total(cur))
	if n == 0 || m == 0 || len(ref) < 2 {
		return none
	}
	var d, f, g float64
	for i := range ref {
		f += float64(ref[i])
		g += float64(cur[i])
		d = max(d, math.Abs(f/n-g/m))
	}
	if n*m <= exactPaths {
		return Result{d, pathsReaching(int(n), int(m), int(math.Round(d*n*m)))}
	}
	root := math.Sqrt(1 / noise(n, m))
	return Result{d, kolmogorov((root + 0.12 + 0.11/root) * d)}
}

// pathsReaching returns the share of the monotone lattice paths from (0,0) to (n,m) that reach, at some
// point (i,j), |i·m − j·n| ≥ d.
func pathsReaching(n, m, d int) float64 {
	// within[j] is the share of the paths to (i,j) that stay within. A path to (i,j) came from (i-1,j) with
	// probability i/(i+j), all paths being alike.
	within := make([]float64, m+1)
	for i := range n + 1 {
		for j := range m + 1 {
			switch dist := i*m - j*n; {
			case max(dist, -dist) >= d:
				within[j] = 0
			case i == 0 && j == 0:
				within[0] = 1
			case j == 0:
				// from (i-1, 0): unchanged
			case i == 0:
				within[j] = within[j-1]
			default:
				w := float64(i) / float64(i+j)
				within[j] = w*within[j] + (1-w)*within[j-1]
			}
		}
	}
	return 1 - within[m]
}

// kolmogorov is Q(x) = 2·Σ(−1)^(k−1)·exp(−2k²x²), the probability that Kolmogorov's variable exceeds x.
func kolmogorov(x float64) float64 {
	switch {
	case x <= 0:
		return 1
	case x < 1:
		// The same by Jacobi's identity, which converges fast where the other does not.
		var p float64
		for k := 1.0; k <= 7; k += 2 {
			p += math.Exp(-k * k * math.Pi * math.Pi / (8 * x * x))
		}
		return 1 - p*math.Sqrt(2*math.Pi)/x
	}
	var q float64
	sign := 1.0
	for k := 1.0; k <= 5; k++ {
		q += sign * math.Exp(-2*k*k*x*x)
		sign = -sign
	}
	return 2 * q
}
