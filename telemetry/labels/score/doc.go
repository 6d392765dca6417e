// Package score says how good predictions were, from counts of predictions and of what turned out to be true.
//
// Counts add up: those of two streams, merged, are those of both streams together, in whatever order (sums of
// floating-point numbers up to rounding). A statistic without enough to be computed from is NaN. Everything is a
// plain value; nothing here may be changed by two goroutines at once.
package score
