package main

import (
	"cmp"
	"fmt"
	"slices"

	"sluice/sample"
)

// treeFit grows a decision tree greedily: each node takes the split that
// leaves the least Gini impurity. Ties go to the first feature and the lowest
// threshold, so there is no random choice.
type treeFit struct {
	Depth   int // most questions on the way to a leaf
	MinLeaf int // fewest rows in a leaf
}

// String describes the method for a model's provenance.
func (f treeFit) String() string {
	return fmt.Sprintf("decision tree, Gini impurity: depth %d, at least %d rows in a leaf", f.Depth, f.MinLeaf)
}

func (f treeFit) fit(set trainingSet) *sample.Tree {
	tree := new(sample.Tree)
	rows := make([]int, len(set.x))
	for i := range rows {
		rows[i] = i
	}
	f.grow(tree, set, rows, f.Depth)
	return tree
}

// grow appends the subtree for rows and returns its root's index.
func (f treeFit) grow(tree *sample.Tree, set trainingSet, rows []int, depth int) int {
	index := len(tree.Nodes)
	tree.Nodes = append(tree.Nodes, sample.Node{})
	counts := set.count(rows)
	best, ok := candidate{}, false
	if depth > 0 && impurity(counts) > 0 {
		best, ok = f.bestSplit(set, rows)
	}
	if !ok {
		probabilities := make([]float64, set.classes)
		for class, n := range counts {
			probabilities[class] = round(float64(n) / float64(len(rows)))
		}
		tree.Nodes[index].Probabilities = probabilities
		return index
	}

	var below, above []int
	for _, row := range rows {
		if set.x[row][best.feature] < best.threshold {
			below = append(below, row)
		} else {
			above = append(above, row)
		}
	}
	question := &sample.Question{Feature: best.feature, Threshold: best.threshold}
	question.Below = f.grow(tree, set, below, depth-1)
	question.Above = f.grow(tree, set, above, depth-1)
	tree.Nodes[index].Question = question
	return index
}

// candidate is a question and the impurity it leaves, weighted by rows.
type candidate struct {
	feature   int
	threshold float64
	impurity  float64
}

// bestSplit tries every feature and every gap between neighbouring values. It
// reports false if no split lowers the impurity and leaves both sides MinLeaf rows.
func (f treeFit) bestSplit(set trainingSet, rows []int) (candidate, bool) {
	best := candidate{impurity: impurity(set.count(rows)) * float64(len(rows))}
	found := false
	for feature := range set.x[rows[0]] {
		sorted := slices.Clone(rows)
		slices.SortStableFunc(sorted, func(a, b int) int {
			return cmp.Compare(set.x[a][feature], set.x[b][feature])
		})
		below, above := make([]int, set.classes), set.count(sorted)
		for i := 1; i < len(sorted); i++ {
			moved := set.labels[sorted[i-1]]
			below[moved]++
			above[moved]--
			low, high := set.x[sorted[i-1]][feature], set.x[sorted[i]][feature]
			if low == high || i < f.MinLeaf || len(sorted)-i < f.MinLeaf {
				continue
			}
			left := impurity(below)*float64(i) + impurity(above)*float64(len(sorted)-i)
			if left < best.impurity {
				best, found = candidate{feature, round((low + high) / 2), left}, true
			}
		}
	}
	return best, found
}

// count tells how many of the rows belong to each class.
func (s trainingSet) count(rows []int) []int {
	counts := make([]int, s.classes)
	for _, row := range rows {
		counts[s.labels[row]]++
	}
	return counts
}

// impurity is Gini's: the chance that two rows drawn at random differ in class.
func impurity(counts []int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	same := 0.0
	for _, n := range counts {
		share := float64(n) / float64(total)
		same += share * share
	}
	return 1 - same
}
