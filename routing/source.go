package routing

import (
	"go.yaml.in/yaml/v3"
)

// source finds the lines of a document's fields in the YAML it came from.
type source struct {
	file string
	root *yaml.Node // the document's mapping
}

// line returns the line of a field's name, of a list's entry or of a map's key;
// for what is not there, the line of what it would be in.
func (s *source) line(at path) int {
	node, line := s.root, s.root.Line
	for _, st := range at {
		child, childLine := childOf(node, st)
		if child == nil {
			break
		}
		node, line = child, childLine
	}
	return line
}

// childOf returns the value one step below a node and the line it is named on.
func childOf(node *yaml.Node, s step) (*yaml.Node, int) {
	if node.Kind == yaml.SequenceNode {
		if s.index < len(node.Content) {
			return node.Content[s.index], node.Content[s.index].Line
		}
		return nil, 0
	}
	name := s.field
	if s.isKey {
		name = s.key
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return node.Content[i+1], node.Content[i].Line
		}
	}
	return nil, 0
}
