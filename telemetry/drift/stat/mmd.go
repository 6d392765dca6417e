package stat

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
)

// embeddingUnit is what features are counted in: sums of whole numbers are the same in any order. It costs a mean
// at most 2⁻²⁵, and leaves room for 2³⁹ rows.
const embeddingUnit = 1 << 24

// leastSpread keeps a reference of rows that are all alike from making anything infinitely far: a thousandth of
// the most that a spread can be, as a distance.
const leastSpread = 1e-6

// Embedding is the sum of the features of the rows of a sample (see [Waves]): what of a sample is known of rows
// too wide to be looked at column by column. Embeddings of parts add up to that of the whole exactly.
type Embedding struct {
	// Rows is their number.
	Rows uint64
	// Sums are those of each wave's cosine, and Square that of (2/D)·Σcos², in units of 2⁻²⁴.
	Sums   []int64
	Square int64
}

// NewEmbedding is that of no rows.
func NewEmbedding() Embedding { return Embedding{Sums: make([]int64, FourierFeatures)} }

// Add adds a row by what [Waves.Of] says of it.
func (e *Embedding) Add(features []float64) {
	sameLen(len(e.Sums), len(features))
	e.Rows++
	var square float64
	for i, v := range features {
		e.Sums[i] += int64(math.Round(v * embeddingUnit))
		square += v * v
	}
	e.Square += int64(math.Round(square * 2 / float64(len(features)) * embeddingUnit))
}

// Merge adds the rows of another part of a sample.
func (e *Embedding) Merge(part Embedding) {
	sameLen(len(e.Sums), len(part.Sums))
	e.Rows += part.Rows
	e.Square += part.Square
	for i, s := range part.Sums {
		e.Sums[i] += s
	}
}

// Reset takes all rows away.
func (e *Embedding) Reset() {
	e.Rows, e.Square = 0, 0
	clear(e.Sums)
}

// Clone returns a copy.
func (e Embedding) Clone() Embedding {
	e.Sums = slices.Clone(e.Sums)
	return e
}

// Valid reports whether so many rows can have such sums.
func (e Embedding) Valid() bool {
	const rows = 1 << 32
	most := int64(min(e.Rows, rows)) * embeddingUnit
	within := func(s int64) bool { return s >= -most && s <= most }
	return len(e.Sums) == FourierFeatures && e.Rows <= rows && e.Square >= 0 && e.Square <= 2*most && !slices.ContainsFunc(e.Sums, func(s int64) bool { return !within(s) })
}

// SquaredMMD is the squared maximum mean discrepancy, ‖mean φ(x) − mean φ(y)‖², by random features (Gretton et al.
// 2012, the biased estimate, with which samples from one distribution are 1/n+1/m times [Embedding.Spread] apart on
// average). It lies between 0 and 8. It has no P by formula; see [CalibrateMMD].
func SquaredMMD(ref, cur Embedding) float64 {
	sameLen(len(ref.Sums), len(cur.Sums))
	if ref.Rows == 0 || cur.Rows == 0 {
		return math.NaN()
	}
	n, m := float64(ref.Rows), float64(cur.Rows)
	var sum float64
	for i, r := range ref.Sums {
		d := (float64(r)/n - float64(cur.Sums[i])/m) / embeddingUnit
		sum += d * d
	}
	return sum * 2 / float64(len(ref.Sums))
}

// Spread is the mean squared distance of a row's features from their mean, from 0 to 2.
func (e Embedding) Spread() float64 {
	if e.Rows == 0 {
		return math.NaN()
	}
	n := float64(e.Rows) * embeddingUnit
	var square float64
	for _, s := range e.Sums {
		square += float64(s) / n * float64(s) / n
	}
	return max(0, float64(e.Square)/n-square*2/float64(len(e.Sums)))
}

// NormalisedMMD is how far apart samples are, in standard deviations of the reference's rows:
//
//	√((MMD² − (1/n+1/m)·spread) / spread), 0 if what is left is below 0
//
// Unlike MMD² it does not depend on the size of samples, nor much on the width of rows: normal columns that all move by s
// standard deviations are about 0.9·s apart, as long as s is small. No P belongs to it but that of MMD², of which it is
// a function.
func NormalisedMMD(ref, cur Embedding) float64 {
	mmd := SquaredMMD(ref, cur)
	if math.IsNaN(mmd) {
		return mmd
	}
	spread := ref.Spread()
	return math.Sqrt(max(0, mmd-noise(float64(ref.Rows), float64(cur.Rows))*spread) / max(spread, leastSpread))
}

// MedianDistance is the median of the distances between any two rows: the usual bandwidth of a kernel (Gretton et
// al. 2012). If most rows are alike, it is the smallest distance that is not 0, and 1 if there is none. It
// takes time by the square of the number of rows.
func MedianDistance(rows [][]float64) float64 {
	var all []float64
	for i, a := range rows {
		for _, b := range rows[:i] {
			all = append(all, floats.Distance(a, b, 2))
		}
	}
	slices.Sort(all)
	n := len(all)
	if n > 0 {
		if median := (all[(n-1)/2] + all[n/2]) / 2; median > 0 && !math.IsInf(median, 0) {
			return median
		}
	}
	if i := slices.IndexFunc(all, func(d float64) bool { return d > 0 && !math.IsInf(d, 0) }); i >= 0 {
		return all[i]
	}
	return 1
}
