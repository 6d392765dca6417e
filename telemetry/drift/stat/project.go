package stat

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
)

// Directions are fixed random directions of unit length, for looking at rows too wide to look at column by
// column: a change of distribution shows in nearly every projection (Cramér and Wold), and each projection
// is a number like any other.
type Directions struct {
	width, stride int
	w             []float64 // a direction after the other, stride elements each, of which the first width count
	scale         []float64 // by direction, what makes its length 1
}

// NewDirections draws count directions for rows of a width. Equal arguments give equal directions, on
// every machine.
func NewDirections(count, width int) Directions {
	rng := rand.New(rand.NewPCG(uint64(count), uint64(width)))
	d := Directions{stride: width, w: make([]float64, count*width), scale: make([]float64, count)}
	for i := range d.w {
		d.w[i] = rng.NormFloat64()
	}
	return d.First(width)
}

// First returns the directions for rows of fewer columns, which are the first ones of these: all widths share
// their memory.
func (d Directions) First(columns int) Directions {
	first := Directions{width: columns, stride: d.stride, w: d.w, scale: make([]float64, len(d.scale))}
	for i := range first.scale {
		var square float64
		for _, v := range first.direction(i) {
			square += v * v
		}
		first.scale[i] = 1 / math.Sqrt(square)
	}
	return first
}

func (d Directions) direction(i int) []float64 { return d.w[i*d.stride:][:d.width] }

// Project appends the projections of a row, which has to be of the directions' width.
func (d Directions) Project(to, row []float64) []float64 {
	sameLen(d.width, len(row))
	for i, scale := range d.scale {
		to = append(to, scale*floats.Dot(row, d.direction(i)))
	}
	return to
}

// Fold adds the columns of a wide row up to the few of to, each with a sign by chance, so that what a projection of the
// one says a projection of the other says as well, for one addition a column. Lengths stay what they are on
// average, and equal widths are folded alike.
func Fold(to, row []float64) {
	clear(to)
	at := 0
	for first := 0; first < len(row); first += 64 {
		signs := splitMix(uint64(first / 64))
		for _, v := range row[first:min(first+64, len(row))] {
			to[at] += math.Float64frombits(math.Float64bits(v) ^ signs<<63)
			signs >>= 1
			if at++; at == len(to) {
				at = 0
			}
		}
	}
}

// splitMix is the n-th number of SplitMix64 (Steele, Lea and Flood 2014), begun at 0.
func splitMix(n uint64) uint64 {
	z := (n + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
