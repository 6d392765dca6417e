package score

import "math"

// CalibrationCells is how many cells probabilities are sorted into to see whether they are what they say.
const CalibrationCells = 15

// Calibration counts predictions by the probability of the class that was predicted, in cells of even width from 0 to 1.
type Calibration [CalibrationCells]struct {
	// N predictions, Right of which were right.
	N, Right uint64
	// Sum adds up their probabilities.
	Sum float64
}

// Add counts a prediction: the largest of its probabilities, and whether it was right.
func (c *Calibration) Add(p float64, right bool) {
	cell := &c[min(max(int(math.Ceil(p*CalibrationCells))-1, 0), CalibrationCells-1)]
	cell.N++
	cell.Sum += p
	if right {
		cell.Right++
	}
}

// Merge adds what another one has counted.
func (c *Calibration) Merge(o *Calibration) {
	for i := range c {
		c[i].N += o[i].N
		c[i].Right += o[i].Right
		c[i].Sum += o[i].Sum
	}
}

// Error is the expected calibration error, from 0 to 1: by how much the mean probability of a cell differs from the share of
// its predictions that were right, on average over the predictions (Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al.,
// ICML 2017). It is above 0 by chance where there are few. NaN if nothing was counted.
func (c *Calibration) Error() float64 {
	var n uint64
	var sum float64
	for i := range c {
		n += c[i].N
		sum += math.Abs(c[i].Sum - float64(c[i].Right))
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}
