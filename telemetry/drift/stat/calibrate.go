package stat

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/stat/distuv"
)

const (
	// CalibrationDraws is the number of windows that [Calibrate] is meant to draw: with the fitted tail,
	// enough for the small probabilities that many features and windows ask for.
	CalibrationDraws = 10_000
	// drawnWindow is the size of a drawn window; others follow by scaling.
	drawnWindow = 1_000
	// tailShare of the draws is where the tail is fitted.
	tailShare = 0.05
	// nullQuantiles is how finely the body is kept: at 0, 1, ... of that many steps.
	nullQuantiles = 100
)

// A Statistic is a way to compare a window with the reference.
type Statistic struct {
	Of func(ref, cur []uint64) float64
	// Order says how the value grows with 1/n + 1/m: 1 for squares such as PSI, ½ for distances.
	Order float64
}

// Null is the distribution of a statistic while nothing changes. The zero value knows nothing.
type Null struct {
	// Quantiles are the values at 0, 1/100, ... 1, divided by (1/n+1/m)^Order.
	Quantiles []float64
	// Order is the statistic's.
	Order float64
	// From is the scaled value above which Tail holds, with a probability of TailShare.
	From, TailShare float64
	Tail            Pareto
}

// Calibrate draws windows from the reference, as it would be if its cells' shares were the truth, and another
// reference of the same size for each, because the one at hand is a sample, too. Cells that the reference
// has not seen get half a count. It takes about 0.3 ms a draw for each thousand cells; equal seeds give equal
// results.
func Calibrate(ref []uint64, statistics []Statistic, draws int, seed uint64) []Null {
	n := Total(ref)
	if n == 0 || draws < 100 {
		return make([]Null, len(statistics))
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	share := make([]float64, len(ref))
	for i, c := range ref {
		share[i] = (float64(c) + 0.5) / (float64(n) + float64(len(ref))/2)
	}
	values := make([][]float64, len(statistics))
	other, window := make([]uint64, len(ref)), make([]uint64, len(ref))
	for range draws {
		multinomial(rng, n, share, other)
		multinomial(rng, drawnWindow, share, window)
		for i, s := range statistics {
			values[i] = append(values[i], s.Of(other, window)/math.Pow(noise(float64(n), drawnWindow), s.Order))
		}
	}
	nulls := make([]Null, len(statistics))
	for i, s := range statistics {
		nulls[i] = newNull(values[i], s.Order)
	}
	return nulls
}

// multinomial fills counts with n values drawn by the shares, which add up to 1.
func multinomial(rng *rand.Rand, n uint64, share []float64, counts []uint64) {
	left, mass := n, 1.0
	for i, p := range share {
		if i == len(share)-1 || left == 0 {
			counts[i] = left
			left = 0
			continue
		}
		c := uint64(distuv.Binomial{N: float64(left), P: min(1, p/mass), Src: rng}.Rand())
		counts[i] = min(c, left)
		left -= counts[i]
		mass = max(mass-p, p/1e12)
	}
}

// newNull sorts the scaled values.
func newNull(scaled []float64, order float64) Null {
	slices.Sort(scaled)
	last := len(scaled) - 1
	null := Null{Order: order, Quantiles: make([]float64, nullQuantiles+1)}
	for i := range null.Quantiles {
		null.Quantiles[i] = scaled[i*last/nullQuantiles]
	}
	from := last - int(float64(len(scaled))*tailShare)
	excess := make([]float64, 0, last-from)
	for _, v := range scaled[from+1:] {
		excess = append(excess, v-scaled[from])
	}
	if tail, ok := FitPareto(excess); ok {
		null.From, null.TailShare, null.Tail = scaled[from], float64(last-from)/float64(len(scaled)), tail
	}
	return null
}

// Known reports whether there is anything to judge by.
func (u Null) Known() bool { return len(u.Quantiles) > 1 }

// P returns the probability of a value at least as large, of samples of n and m values, without a change; NaN
// if nothing is known.
func (u Null) P(value float64, n, m uint64) float64 {
	if !u.Known() || math.IsNaN(value) || n == 0 || m == 0 {
		return math.NaN()
	}
	v := value / math.Pow(noise(float64(n), float64(m)), u.Order)
	if u.TailShare > 0 && v > u.From {
		return u.TailShare * u.Tail.Survival(v-u.From)
	}
	at, _ := slices.BinarySearch(u.Quantiles, v)
	switch steps := float64(len(u.Quantiles) - 1); {
	case at == 0:
		return 1
	case at == len(u.Quantiles):
		return 0 // more than was ever drawn, and no tail to tell by how much
	default:
		lo, hi := u.Quantiles[at-1], u.Quantiles[at]
		return 1 - (float64(at-1)+(v-lo)/(hi-lo))/steps
	}
}

// resampledWindow is the size of both samples that [CalibrateMMD] draws: enough for sums of bounded features to be
// normal, as they are for every size at which they are judged.
const resampledWindow = 500

// CalibrateMMD finds how [SquaredMMD] is distributed while nothing changes by the bootstrap: it draws two samples from
// rows of the reference, with replacement, as often as draws says, and sets them against each other. Each row is given by
// what [Waves.Of] says of it. It takes about 30 µs a draw from 500 rows; equal seeds give equal results.
func CalibrateMMD(rows [][]float64, draws int, seed uint64) Null {
	if len(rows) < 2 || draws < 100 {
		return Null{}
	}
	waves := len(rows[0])
	all := blas64.General{Rows: len(rows), Cols: waves, Stride: waves, Data: slices.Concat(rows...)}
	weight := blas64.Vector{N: len(rows), Inc: 1, Data: make([]float64, len(rows))}
	difference := blas64.Vector{N: waves, Inc: 1, Data: make([]float64, waves)}
	rng := rand.New(rand.NewPCG(seed, 0))
	values := make([]float64, draws)
	for i := range values {
		clear(weight.Data)
		for range resampledWindow {
			weight.Data[rng.IntN(len(rows))]++
			weight.Data[rng.IntN(len(rows))]--
		}
		blas64.Gemv(blas.Trans, 1.0/resampledWindow, all, weight, 0, difference)
		values[i] = blas64.Dot(difference, difference) * 2 / float64(waves) / noise(resampledWindow, resampledWindow)
	}
	return newNull(values, 1)
}
