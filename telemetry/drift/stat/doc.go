// Package stat tells whether the distribution behind a sample has moved away from that of a reference,
// by how much, and whether chance could explain it.
//
// A sample is a row of counts over the cells of a fixed partition: the [Bins] of a number or the values
// of a category. Counts of two parts of a sample add up to the counts of the whole, so every
// statistic here is the same however a sample was divided among processes, and in whatever order.
// Nothing needs the values themselves, except for learning [Bins]. Rows too wide for that are an
// [Embedding], sums of their random Fourier features, of which the same holds.
//
// The way of a comparison:
//
//	bins := stat.LearnBins(reference, stat.MaxBins)       // once
//	counts[bins.Index(v)]++                               // for every value
//	psi := stat.PSI(deciles.Sum(ref), deciles.Sum(cur))   // how much, and by chance?
//	adjusted := stat.Holm(p)                              // over all features of a model
//
// A [Result] has the statistic in its own units and the probability of one at least as large if both
// samples came from one distribution. Where no formula gives that probability, [Calibrate] and [CalibrateMMD]
// find it by drawing from the reference.
//
// Empty samples, and rows of counts of one cell, have no statistic: the value is NaN. Rows of different
// lengths are a mistake of the caller and panic.
//
// Functions are pure; types are safe for concurrent reading.
package stat
