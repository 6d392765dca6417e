package change

import (
	"errors"
	"fmt"
	"math"
)

// Factors are by how much a rate is suspected to have grown. Together they find small changes late and
// large ones soon.
var (
	// ErrorFactors suit rates of errors.
	ErrorFactors = []float64{1.25, 1.5, 2, 3}
	// RareFactors suit rates of what hardly ever happens, such as missing values.
	RareFactors = []float64{2, 5, 20, 100}
)

// maxRate is the largest rate that a factor leads to.
const maxRate = 0.95

// ESR is the Bernoulli e-SR detector (Shin, Ramdas and Rinaldo, arXiv:2203.03532) of a rate of events that has
// grown: for each suspected rate p_j, R ← (1+R)·L, where L is the likelihood ratio of p_j to the rate p₀
// before. It raises an alarm when the mean of R reaches a limit A.
//
// While the true rate is at most p₀, the mean time to an alarm is at least A steps, whatever the rate does
// below p₀: that is a theorem and no approximation. A step is one call of Add.
type ESR struct {
	base  float64
	rates []float64
	logR  []float64 // of 1+R
	limit float64
}

// NewESR returns a detector of a rate above base, which has to be between 0 and 1.
func NewESR(base, limit float64, factors []float64) (*ESR, error) {
	if !(base > 0 && base < maxRate) {
		return nil, fmt.Errorf("rate before a change: got %g, want a number above 0 and below %g", base, maxRate)
	}
	if !(limit > 1) || len(factors) == 0 {
		return nil, errors.New("e-SR detector: want a limit above 1, and a factor")
	}
	d := &ESR{base: base, limit: limit, logR: make([]float64, len(factors))}
	for _, f := range factors {
		d.rates = append(d.rates, max(base, min(f*base, maxRate)))
	}
	return d, nil
}

// Add tells of n outcomes at once, events of which were what the detector looks for, and reports whether to
// raise an alarm; if so, the detector begins anew.
func (d *ESR) Add(events, n uint64) bool {
	var sum float64
	for j, p := range d.rates {
		// log(1+R), with R ← (1+R)·L: in logarithms, because L of a whole window may be any size.
		logR := d.logR[j] + float64(events)*math.Log(p/d.base) + float64(n-events)*math.Log((1-p)/(1-d.base))
		sum += math.Exp(logR)
		d.logR[j] = logPlusOne(logR)
	}
	if sum/float64(len(d.rates)) < d.limit {
		return false
	}
	clear(d.logR)
	return true
}

// logPlusOne returns log(1+exp(x)).
func logPlusOne(x float64) float64 {
	if x > 0 {
		return x + math.Log1p(math.Exp(-x))
	}
	return math.Log1p(math.Exp(x))
}

// Reach returns how far the detector is on the way to its limit, from 0 to 1 on a logarithmic scale.
func (d *ESR) Reach() float64 {
	var sum float64
	for _, l := range d.logR {
		sum += math.Expm1(l)
	}
	return max(0, min(1, math.Log(max(1, sum/float64(len(d.logR))))/math.Log(d.limit)))
}

// RateBefore is what a rate may have been of which events were seen in n outcomes, with a confidence of 99 %: the upper
// end of the one-sided score interval (E. B. Wilson, 1927), at most the largest base that [NewESR] takes. A detector
// with this base keeps its promise in 99 of 100 cases.
func RateBefore(events, n uint64) float64 {
	const z = 2.3263478740408408 // of 0.99
	x, m := float64(events), float64(n)
	p := (x + z*z/2 + z*math.Sqrt(x*(m-x)/m+z*z/4)) / (m + z*z)
	return min(p, math.Nextafter(maxRate, 0))
}
