package stat

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// FourierFeatures is D, the number of random features that describe a row.
const FourierFeatures = 128

// Waves are random Fourier features (Rahimi and Recht 2007) of the Gaussian kernel exp(−‖x−y‖²/2σ²):
//
//	φᵢ(x) = √(2/D)·cos(wᵢ·x/σ + bᵢ), with wᵢ standard normal and bᵢ uniform in [0, 2π)
//
// The inner product of two rows' features is their kernel, but for an error of about 1/√D. Features lie between
// bounds and can be averaged, which the kernel of pairs cannot.
type Waves struct {
	// Width is the number of columns of a row.
	Width int
	// Frequencies are the wᵢ, one after the other, Stride elements each, of which the first Width count. Phases are
	// the bᵢ.
	Frequencies, Phases []float64
	Stride              int
}

// NewWaves draws waves for rows of a width. Equal widths have equal waves, on every machine.
func NewWaves(width int) *Waves {
	rng := rand.New(rand.NewPCG(FourierFeatures, uint64(width)))
	w := &Waves{Width: width, Stride: width, Frequencies: make([]float64, FourierFeatures*width), Phases: make([]float64, FourierFeatures)}
	for i := range w.Frequencies {
		w.Frequencies[i] = rng.NormFloat64()
	}
	for i := range w.Phases {
		w.Phases[i] = 2 * math.Pi * rng.Float64()
	}
	return w
}

// First returns the waves for rows of fewer columns, which are the first ones of these: all widths share their memory.
func (w *Waves) First(columns int) *Waves {
	sameLen(columns, min(columns, w.Width))
	return &Waves{Width: columns, Frequencies: w.Frequencies, Phases: w.Phases, Stride: w.Stride}
}

// Of writes cos(wᵢ·row/σ + bᵢ) for each wave, which is the row's features without the factor √(2/D). It takes 128
// multiplications for each column, and reports false, leaving to in any state, if the row has an element that
// is not finite, or too large for its products to be.
func (w *Waves) Of(to, row []float64, bandwidth float64) bool {
	sameLen(w.Width, len(row))
	sameLen(len(w.Phases), len(to))
	copy(to, w.Phases)
	blas64.Gemv(blas.NoTrans, 1/bandwidth,
		blas64.General{Rows: len(to), Cols: w.Width, Stride: w.Stride, Data: w.Frequencies},
		blas64.Vector{N: len(row), Inc: 1, Data: row},
		1, blas64.Vector{N: len(to), Inc: 1, Data: to})
	for i, angle := range to {
		if angle-angle != 0 {
			return false
		}
		to[i] = math.Cos(angle)
	}
	return true
}
