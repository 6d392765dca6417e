package sample

import (
	"errors"
	"fmt"
	"slices"
)

// Tree is a binary decision tree. Nodes[0] is the root, and a node's children
// stand behind it, so a walk always ends.
type Tree struct {
	Nodes []Node `json:"nodes"`
}

// Node is a question or a leaf: exactly one of its fields is set.
type Node struct {
	Question *Question `json:"question,omitempty"`
	// Probabilities of each class among the rows that ended in this leaf.
	Probabilities []float64 `json:"probabilities,omitempty"`
}

// Question is whether a feature is below a threshold.
type Question struct {
	Feature   int     `json:"feature"` // index in the model's features
	Threshold float64 `json:"threshold"`
	Below     int     `json:"below"` // index of the node for values below the threshold
	Above     int     `json:"above"` // index of the node for all others
}

func (t *Tree) predict(x []float64) []float64 {
	node := t.Nodes[0]
	for node.Question != nil {
		next := node.Question.Above
		if x[node.Question.Feature] < node.Question.Threshold {
			next = node.Question.Below
		}
		node = t.Nodes[next]
	}
	return slices.Clone(node.Probabilities)
}

func (t *Tree) validate(classes, features int) error {
	if len(t.Nodes) == 0 {
		return errors.New("tree.nodes: got none, want at least a leaf")
	}
	var errs []error
	wrong := func(i int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("tree.nodes[%d]%s", i, fmt.Sprintf(format, args...)))
	}
	for i, node := range t.Nodes {
		switch {
		case (node.Question == nil) == (len(node.Probabilities) == 0):
			wrong(i, ": want exactly one of question and probabilities")
		case node.Question != nil:
			q := node.Question
			if q.Feature < 0 || q.Feature >= features {
				wrong(i, ".question.feature: got %d, want 0 to %d", q.Feature, features-1)
			}
			if !finite(q.Threshold) {
				wrong(i, ".question.threshold: got %v, want a finite number", q.Threshold)
			}
			if q.Below <= i || q.Below >= len(t.Nodes) {
				wrong(i, ".question.below: got %d, want the index of a later node of %d", q.Below, len(t.Nodes))
			}
			if q.Above <= i || q.Above >= len(t.Nodes) {
				wrong(i, ".question.above: got %d, want the index of a later node of %d", q.Above, len(t.Nodes))
			}
		default:
			if len(node.Probabilities) != classes {
				wrong(i, ".probabilities: got %d numbers, want %d", len(node.Probabilities), classes)
			}
			for class, p := range node.Probabilities {
				if !(p >= 0 && p <= 1) { // false for NaN, too
					wrong(i, ".probabilities[%d]: got %v, want 0 to 1", class, p)
				}
			}
		}
	}
	return errors.Join(errs...)
}
