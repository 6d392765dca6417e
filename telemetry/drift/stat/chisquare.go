package stat

import (
	"cmp"
	"slices"
)

// minExpected is the expectation below which a cell's count is too far from normal for χ².
const minExpected = 5

// ChiSquare tests whether two samples of categories are of one distribution: Pearson's statistic of the
// 2×K table, Σ(observed−expected)²/expected, with K−1 degrees of freedom. Both samples are taken as
// random; testing one against the other as if that were exact gives too small a P.
//
// Cells in which either sample expects fewer than 5 are pooled into one, and while that one still expects
// fewer, the smallest of the others joins it, or the smallest, if several are of one size. If only one cell is left there is no statistic.
func ChiSquare(ref, cur []uint64) Result {
	sameLen(len(ref), len(cur))
	n, m := float64(Total(ref)), float64(Total(cur))
	if n == 0 || m == 0 {
		return none
	}
	cells := pool(ref, cur, min(n, m)/(n+m))
	if len(cells) < 2 {
		return none
	}
	var x float64
	for _, c := range cells {
		total := c.ref + c.cur
		for _, t := range [2]struct{ got, want float64 }{{c.ref, total * n / (n + m)}, {c.cur, total * m / (n + m)}} {
			x += (t.got - t.want) * (t.got - t.want) / t.want
		}
	}
	return Result{x, chiSquareTail(x, len(cells)-1)}
}

type cell struct{ ref, cur float64 }

// pool returns the cells that expect enough, share being that of the smaller sample. A cell that nobody
// has counted is no cell.
func pool(ref, cur []uint64, share float64) []cell {
	var cells []cell
	for i := range ref {
		if ref[i]+cur[i] > 0 {
			cells = append(cells, cell{float64(ref[i]), float64(cur[i])})
		}
	}
	slices.SortFunc(cells, func(a, b cell) int { return cmp.Compare(a.ref+a.cur, b.ref+b.cur) })
	expects := func(c cell) float64 { return (c.ref + c.cur) * share }
	var other cell
	for len(cells) > 0 && (expects(cells[0]) < minExpected || other != (cell{}) && expects(other) < minExpected) {
		// All of the same size join at once: their order must not matter.
		for size := cells[0].ref + cells[0].cur; len(cells) > 0 && cells[0].ref+cells[0].cur == size; cells = cells[1:] {
			other = cell{other.ref + cells[0].ref, other.cur + cells[0].cur}
		}
	}
	if other != (cell{}) {
		cells = append(cells, other)
	}
	return cells
}
