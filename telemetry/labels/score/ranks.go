package score

import "math"

// Cells is the number of cells that probabilities are counted in.
const Cells = 256

// Ranks counts probabilities of examples that are of a class and of those that are not, in cells of even width on
// the scale of log-odds: near 0 and 1, where rare classes have theirs, the cells are small.
type Ranks struct {
	Of, Others [Cells]uint64
}

// widest are the log-odds of 1−Clip.
var widest = math.Log((1 - Clip) / Clip)

// Add counts a probability.
func (r *Ranks) Add(p float64, of bool) {
	p = min(max(p, Clip), 1-Clip)
	odds := math.Log(p / (1 - p))
	cell := min(max(int((odds+widest)/(2*widest)*Cells), 0), Cells-1)
	if of {
		r.Of[cell]++
	} else {
		r.Others[cell]++
	}
}

// Merge adds what another one has counted.
func (r *Ranks) Merge(o *Ranks) {
	for i := range Cells {
		r.Of[i] += o.Of[i]
		r.Others[i] += o.Others[i]
	}
}

// Sums are the numbers of examples that are of the class, and that are not.
func (r *Ranks) Sums() (of, others uint64) {
	for i := range Cells {
		of += r.Of[i]
		others += r.Others[i]
	}
	return of, others
}

// AUC is the probability that an example of the class has a larger probability than another one, equal ones counting
// half: the area under the ROC curve. Examples in one cell count as equal, so that the area of the probabilities
// themselves differs by at most bound. NaN without examples of either kind.
func (r *Ranks) AUC() (value, bound float64) {
	of, others := r.Sums()
	if of == 0 || others == 0 {
		return math.NaN(), math.NaN()
	}
	pairs := float64(of) * float64(others)
	var below uint64 // others in lower cells
	for i := range Cells {
		x, y := float64(r.Of[i]), float64(r.Others[i])
		value += x * (float64(below) + y/2)
		bound += x * y / 2
		below += r.Others[i]
	}
	return value / pairs, bound / pairs
}

// AUCError is the standard error of an area (Hanley and McNeil, Radiology 143, 1982).
func AUCError(auc float64, of, others uint64) float64 {
	q1, q2 := auc/(2-auc), 2*auc*auc/(1+auc)
	a, b := float64(of), float64(others)
	return math.Sqrt((auc*(1-auc) + (a-1)*(q1-auc*auc) + (b-1)*(q2-auc*auc)) / (a * b))
}
