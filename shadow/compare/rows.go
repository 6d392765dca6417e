package compare

import "math"

// rows follows the runs of two outputs along their last dimension, as classifiers
// give one for each input: which element is the largest, and which are the k largest.
type rows struct {
	length int // of a row; below 2 there are none
	at     int // the next element's place in its row
	a, b   largest
}

// begin prepares for outputs of a shape.
func (r *rows) begin(k int, shape []int64) {
	r.length, r.at = 0, 0
	if len(shape) > 0 {
		r.length = int(shape[len(shape)-1]) // it is a factor of the number of elements
	}
	r.a.begin(k)
	r.b.begin(k)
}

// add takes the next elements of both, and what a full row says into o.
func (r *rows) add(o *Output, a, b float64) {
	if r.length < 2 {
		return
	}
	r.a.add(r.at, a)
	r.b.add(r.at, b)
	if r.at++; r.at < r.length {
		return
	}
	o.Rows++
	if first, other := r.a.top[0], r.b.top[0]; first.at != other.at {
		o.Flips++
		if first.value-r.a.top[1].value < CloseMargin {
			o.CloseFlips++
		}
	}
	if k := r.a.k; r.length > k {
		o.sums.topK += r.a.shared(&r.b)
		o.sums.topKRows++
	}
	r.at = 0
	r.a.begin(r.a.k)
	r.b.begin(r.b.k)
}

// largest holds a row's largest elements, in descending order; of equal ones the
// first comes first, and a NaN comes last.
type largest struct {
	k   int
	top []element // at least two, for the margin
}

type element struct {
	at    int
	value float64
}

func (l *largest) begin(k int) { l.k, l.top = k, l.top[:0] }

func (l *largest) add(at int, value float64) {
	if value != value {
		value = math.Inf(-1)
	}
	most := max(l.k, 2)
	n := len(l.top)
	if n == most {
		if value <= l.top[n-1].value {
			return
		}
		l.top = l.top[:n-1]
	}
	l.top = append(l.top, element{at, value})
	for i := len(l.top) - 1; i > 0 && l.top[i].value > l.top[i-1].value; i-- {
		l.top[i], l.top[i-1] = l.top[i-1], l.top[i]
	}
}

// shared is the share of the k largest that are among the other's.
func (l *largest) shared(other *largest) float64 {
	n := 0
	for _, e := range l.top[:l.k] {
		for _, f := range other.top[:l.k] {
			if e.at == f.at {
				n++
				break
			}
		}
	}
	return float64(n) / float64(l.k)
}
