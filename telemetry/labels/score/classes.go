package score

import "math"

// Clip is how far from 0 and 1 probabilities are kept when their logarithm is taken.
const Clip = 1e-7

// Classes counts predicted classes, of which there are at least two, by number.
type Classes struct {
	// Confusion has, for each pair of the true class and the predicted one, how often it was so, by
	// true*Len + predicted.
	Confusion []uint64
	// LogLoss and Brier sum up the losses of predictions that came with a probability for every class.
	LogLoss, Brier Moments
	// Ranks say, for each class, how its probability ranks its examples; of two classes, the second one alone.
	Ranks []Ranks
	// Calibration says whether the probability of what was predicted is how often that was right.
	Calibration Calibration

	n int
}

// NewClasses returns counts of n classes.
func NewClasses(n int) *Classes {
	ranks := n
	if n == 2 {
		ranks = 1
	}
	return &Classes{Confusion: make([]uint64, n*n), Ranks: make([]Ranks, ranks), n: n}
}

// Len is the number of classes.
func (c *Classes) Len() int { return c.n }

// Add counts a predicted class and the true one.
func (c *Classes) Add(predicted, truth int) { c.Confusion[truth*c.n+predicted]++ }

// AddProbabilities counts the probabilities that a prediction gave to the classes, which should add up to 1.
func (c *Classes) AddProbabilities(p []float64, truth int) {
	best := 0
	for k, v := range p {
		if v > p[best] {
			best = k
		}
	}
	c.Calibration.Add(p[best], best == truth)
	c.LogLoss.Add(-math.Log(min(max(p[truth], Clip), 1-Clip)))
	if c.n == 2 {
		c.Brier.Add((1 - p[truth]) * (1 - p[truth]))
		c.Ranks[0].Add(p[1], truth == 1)
		return
	}
	var brier float64
	for k, v := range p {
		is := 0.0
		if k == truth {
			is = 1
		}
		brier += (v - is) * (v - is)
		c.Ranks[k].Add(v, k == truth)
	}
	c.Brier.Add(brier)
}

// Merge adds what another one of as many classes has counted.
func (c *Classes) Merge(o *Classes) {
	for i, n := range o.Confusion {
		c.Confusion[i] += n
	}
	c.LogLoss.Merge(o.LogLoss)
	c.Brier.Merge(o.Brier)
	c.Calibration.Merge(&o.Calibration)
	for i := range o.Ranks {
		c.Ranks[i].Merge(&o.Ranks[i])
	}
}

// Total is the number of predictions that were counted.
func (c *Classes) Total() (n uint64) {
	for _, x := range c.Confusion {
		n += x
	}
	return n
}

// Accuracy is the share of predictions that were right.
func (c *Classes) Accuracy() float64 {
	var right uint64
	for k := range c.n {
		right += c.Confusion[k*c.n+k]
	}
	return ratio(right, c.Total())
}

// F1 is the harmonic mean of precision and recall of one class; NaN if it was neither predicted nor true.
func (c *Classes) F1(class int) float64 {
	var is, said uint64
	for k := range c.n {
		is += c.Confusion[class*c.n+k]
		said += c.Confusion[k*c.n+class]
	}
	return ratio(2*c.Confusion[class*c.n+class], is+said)
}

// MacroF1 is the mean of F1 over the classes that have one.
func (c *Classes) MacroF1() float64 { return c.mean(c.n, c.F1) }

// AUC is the probability that a prediction gives more to an example of a class than to one of another, as
// [Ranks.AUC]: of two classes for the second one, of more the mean over the classes that have it, each against the
// rest. Bound is by how much it may be off because probabilities are counted in cells.
func (c *Classes) AUC() (value, bound float64) {
	value = c.mean(len(c.Ranks), func(k int) float64 { v, _ := c.Ranks[k].AUC(); return v })
	bound = c.mean(len(c.Ranks), func(k int) float64 { _, b := c.Ranks[k].AUC(); return b })
	return value, bound
}

// mean is that of the first n values that are numbers.
func (c *Classes) mean(n int, of func(k int) float64) float64 {
	var m Moments
	for k := range n {
		if v := of(k); !math.IsNaN(v) {
			m.Add(v)
		}
	}
	return m.Average()
}

func ratio(x, n uint64) float64 {
	if n == 0 {
		return math.NaN()
	}
	return float64(x) / float64(n)
}
