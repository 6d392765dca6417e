package stat

import (
	"math"
	"math/rand/v2"
)

// Directions are fixed random directions of unit length, for looking at rows too wide to look at column by
// column: a change of distribution shows in nearly every projection (Cramér and Wold), and each projection
// is a number like any other.
type Directions struct {
	width int
	w     []float32 // a direction after the other
}

// NewDirections draws count directions for rows of a width. Equal arguments give equal directions, on
// every machine.
func NewDirections(count, width int) Directions {
	rng := rand.New(rand.NewPCG(uint64(count), uint64(width)))
	d := Directions{width, make([]float32, count*width)}
	for i := range count {
		row := d.w[i*width : (i+1)*width]
		var square float64
		for j := range row {
			v := rng.NormFloat64()
			row[j] = float32(v)
			square += v * v
		}
		for j := range row {
			row[j] /= float32(math.Sqrt(square))
		}
	}
	return d
}

// Project appends the projections of a row, which has to be of the directions' width.
func (d Directions) Project(to []float64, row []float64) []float64 {
	sameLen(d.width, len(row))
	for w := d.w; len(w) > 0; w = w[d.width:] {
		var sum float64
		for j, v := range row {
			sum += v * float64(w[j])
		}
		to = append(to, sum)
	}
	return to
}
