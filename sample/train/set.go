package main

import (
	"math"
	"slices"

	"sluice/sample"
)

// trainingSet holds rows as numbers: features and the index of the label.
type trainingSet struct {
	x       [][]float64 // per row, per feature
	labels  []int       // per row
	classes int
}

// newTrainingSet takes the named features of complete rows.
func newTrainingSet(rows []sample.Row, features []string) trainingSet {
	set := trainingSet{classes: len(sample.Species)}
	for _, row := range rows {
		x := make([]float64, len(features))
		for i, name := range features {
			x[i] = row.Measurements[slices.Index(sample.Features, name)]
		}
		set.x = append(set.x, x)
		set.labels = append(set.labels, slices.Index(sample.Species, row.Species))
	}
	return set
}

// round keeps six decimals. Processors that fuse multiplication and addition
// differ in the last bits, which must not show in a model file.
func round(v float64) float64 { return math.Round(v*1e6) / 1e6 }
