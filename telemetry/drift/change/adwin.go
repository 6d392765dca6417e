package change

import (
	"math"
	"slices"
)

const (
	// adwinRow is how many buckets of one size there are before two become one of twice the size: M of the paper.
	adwinRow = 5
	// adwinClock is after how many outcomes the window is looked at.
	adwinClock = 32
	// adwinLeast is the smallest part of a window that is compared with the rest.
	adwinLeast = 5
)

// ADWIN is the adaptive window of Bifet and Gavaldà ("Learning from time-changing data with adaptive windowing",
// SDM 2007), in the variant ADWIN2 that keeps an exponential histogram: O(log n) buckets for n outcomes. Its oldest
// part is dropped while the means of two parts of the window differ by more than chance explains. It raises an
// alarm if the mean has grown; that it has become smaller is good news, and only remembered.
type ADWIN struct {
	delta float64
	rows  [][]bucket // rows[i] has buckets of 2^i outcomes, the newest first
	all   bucket
	tick  int
}

// bucket sums up consecutive outcomes: how many, their sum, and the sum of their squared distances from their mean.
type bucket struct{ n, sum, squares float64 }

// merge returns the summary of both (Chan, Golub and LeVeque 1979).
func (b bucket) merge(c bucket) bucket {
	if b.n == 0 || c.n == 0 {
		return bucket{b.n + c.n, b.sum + c.sum, b.squares + c.squares}
	}
	d := b.sum/b.n - c.sum/c.n
	return bucket{b.n + c.n, b.sum + c.sum, b.squares + c.squares + d*d*b.n*c.n/(b.n+c.n)}
}

// NewADWIN returns a detector. delta bounds, for each look at the window, the probability that it is cut without a
// reason; 0.002 is customary.
func NewADWIN(delta float64) *ADWIN { return &ADWIN{delta: delta} }

// Add tells of n outcomes, events of which were what the detector looks for.
func (a *ADWIN) Add(events, n uint64) bool { return spread(events, n, a.Observe) }

// Observe tells of one outcome, a number from 0 to 1, and reports whether to raise an alarm.
func (a *ADWIN) Observe(x float64) bool {
	one := bucket{1, x, 0}
	a.insert(one)
	a.all = a.all.merge(one)
	if a.tick++; a.tick < adwinClock {
		return false
	}
	a.tick = 0
	return a.shrink()
}

// Width is the number of outcomes in the window.
func (a *ADWIN) Width() int { return int(a.all.n) }

// Mean is that of the window, 0 if it is empty.
func (a *ADWIN) Mean() float64 {
	if a.all.n == 0 {
		return 0
	}
	return a.all.sum / a.all.n
}

// Buckets is the number of buckets that the window takes.
func (a *ADWIN) Buckets() (n int) {
	for _, row := range a.rows {
		n += len(row)
	}
	return n
}

// insert adds a bucket of one outcome, and joins the two oldest of each row that has become too long.
func (a *ADWIN) insert(b bucket) {
	for i := 0; ; i++ {
		if i == len(a.rows) {
			a.rows = append(a.rows, make([]bucket, 0, adwinRow+1))
		}
		a.rows[i] = slices.Insert(a.rows[i], 0, b)
		row := a.rows[i]
		if len(row) <= adwinRow {
			return
		}
		b = row[len(row)-1].merge(row[len(row)-2])
		a.rows[i] = row[:len(row)-2]
	}
}

// shrink drops the oldest buckets while the window falls into two parts that differ.
func (a *ADWIN) shrink() (grown bool) {
	for {
		older, found := a.cut()
		if !found {
			return grown
		}
		if older.sum/older.n < (a.all.sum-older.sum)/(a.all.n-older.n) {
			grown = true
		}
		a.drop()
	}
}

// cut looks for a place where the window falls into two parts that differ, from the oldest on.
func (a *ADWIN) cut() (older bucket, found bool) {
	if a.all.n <= 2*adwinLeast {
		return older, false
	}
	variance := a.all.squares / a.all.n
	log := math.Log(2 * math.Log(a.all.n) / a.delta) // ln(2/δ′) with δ′ = δ/ln n
	for i := len(a.rows) - 1; i >= 0; i-- {
		for j := len(a.rows[i]) - 1; j >= 0; j-- {
			older = older.merge(a.rows[i][j])
			n0, n1 := older.n, a.all.n-older.n
			if n0 < adwinLeast {
				continue
			}
			if n1 < adwinLeast {
				return bucket{}, false
			}
			m := 1 / (1/n0 + 1/n1)
			epsilon := math.Sqrt(2/m*variance*log) + 2/(3*m)*log
			if math.Abs(older.sum/n0-(a.all.sum-older.sum)/n1) > epsilon {
				return older, true
			}
		}
	}
	return bucket{}, false
}

// drop forgets the oldest bucket.
func (a *ADWIN) drop() {
	last := len(a.rows) - 1
	for last >= 0 && len(a.rows[last]) == 0 {
		last--
	}
	a.rows[last] = a.rows[last][:len(a.rows[last])-1]
	if len(a.rows[last]) == 0 {
		a.rows = a.rows[:last]
	}
	// Summed up anew rather than subtracted, so that rounding does not build up.
	a.all = bucket{}
	for _, row := range a.rows {
		for _, b := range row {
			a.all = a.all.merge(b)
		}
	}
}
