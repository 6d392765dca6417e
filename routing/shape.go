package routing

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// shape compares a YAML tree with the schema's messages before it is decoded.
// It is stricter than protoyaml, which accepts a key twice, fields by number and
// in camel case, numbers with unit prefixes and null for text; and it knows the
// path of everything it refuses.
type shape struct{ problems []problem }

// checkShape returns what does not fit, and cuts it out of the tree.
func checkShape(root *yaml.Node, want protoreflect.MessageDescriptor) []problem {
	var s shape
	if !s.message(root, want, nil) {
		*root = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: root.Line, Column: root.Column}
	}
	return s.problems
}

func (s *shape) report(node *yaml.Node, at path, got, want string) {
	s.problems = append(s.problems, problem{at: at, got: got, want: want, line: node.Line})
}

// message checks the fields of a mapping. It reports false when nothing of the
// node can be used, as do all methods below.
func (s *shape) message(node *yaml.Node, want protoreflect.MessageDescriptor, at path) bool {
	switch want.FullName() {
	case "google.protobuf.Duration":
		return s.duration(node, at)
	case "google.protobuf.Timestamp":
		return s.timestamp(node, at)
	}
	names := fieldNames(want)
	if !isMapping(node) {
		s.report(node, at, showNode(node), "a mapping with "+names)
		return false
	}
	s.entries(node, at, func(key, value *yaml.Node) bool {
		f := want.Fields().ByName(protoreflect.Name(key.Value))
		if f == nil {
			s.report(key, at.field(key.Value), "an unknown field", "one of "+names)
			return false
		}
		return s.field(value, f, at.field(key.Value))
	}, path.field)
	return true
}

// entries checks every entry of a mapping and removes those that do not fit.
func (s *shape) entries(node *yaml.Node, at path, fits func(key, value *yaml.Node) bool, step func(path, string) path) {
	first := map[string]int{}
	var kept []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if !isScalar(key) {
			s.report(key, at, showNode(key), "a name")
			continue
		}
		if line, ok := first[key.Value]; ok {
			s.report(key, step(at, key.Value), "it a second time", fmt.Sprintf("it once: it is on line %d already", line))
			continue
		}
		first[key.Value] = key.Line
		if fits(key, value) {
			kept = append(kept, key, value)
		}
	}
	node.Content = kept
}

func (s *shape) field(node *yaml.Node, f protoreflect.FieldDescriptor, at path) bool {
	switch {
	case f.IsList():
		return s.list(node, f, at)
	case f.IsMap():
		if !isMapping(node) {
			s.report(node, at, showNode(node), "a mapping from names to values")
			return false
		}
		s.entries(node, at, func(key, value *yaml.Node) bool {
			return s.single(value, f.MapValue(), at.key(key.Value))
		}, path.key)
		return true
	default:
		return s.single(node, f, at)
	}
}

// list checks every entry of a sequence. An entry that does not fit is replaced
// by an empty one, so that the others keep their index.
func (s *shape) list(node *yaml.Node, f protoreflect.FieldDescriptor, at path) bool {
	if !isSequence(node) {
		s.report(node, at, showNode(node), "a list, such as [a, b]")
		return false
	}
	for i, entry := range node.Content {
		if s.single(entry, f, at.index(i)) {
			continue
		}
		empty := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: entry.Line, Column: entry.Column}
		if f.Message() != nil {
			empty.Kind, empty.Tag = yaml.MappingNode, "!!map"
		}
		node.Content[i] = empty
	}
	return true
}

// single checks one value that is neither list nor map.
func (s *shape) single(node *yaml.Node, f protoreflect.FieldDescriptor, at path) bool {
	if f.Message() != nil {
		return s.message(node, f.Message(), at)
	}
	want, ok := "", false
	switch scalar := isScalar(node); f.Kind() {
	case protoreflect.StringKind:
		want, ok = "text", scalar
	case protoreflect.BoolKind:
		want, ok = "true or false", scalar && node.Tag == "!!bool" && (node.Value == "true" || node.Value == "false")
	case protoreflect.Uint32Kind:
		want, ok = fmt.Sprintf("a whole number from 0 to %d", uint32(math.MaxUint32)), scalar && isUint32(node.Value)
	case protoreflect.DoubleKind:
		want, ok = "a number", scalar && isFinite(node.Value)
	default:
		panic(fmt.Sprintf("routing: no YAML form for %s of kind %s", f.FullName(), f.Kind()))
	}
	if !ok {
		s.report(node, at, showNode(node), want)
	}
	return ok
}

func (s *shape) duration(node *yaml.Node, at path) bool {
	if isScalar(node) {
		if d, err := protoyaml.ParseDuration(node.Value); err == nil && d.IsValid() {
			return true
		}
	}
	s.report(node, at, showNode(node), "a duration with a unit, such as 500ms, 15s or 5m")
	return false
}

func (s *shape) timestamp(node *yaml.Node, at path) bool {
	if isScalar(node) {
		if t, err := time.Parse(time.RFC3339Nano, node.Value); err == nil && timestamppb.New(t).IsValid() {
			return true
		}
	}
	s.report(node, at, showNode(node), "a time with a zone, such as 2026-11-23T17:32:15Z")
	return false
}

// The tags are those that the parser gives to plain values. Others, !!null,
// !!binary and the author's own, would be lost in decoding.

func isMapping(node *yaml.Node) bool {
	return node.Kind == yaml.MappingNode && node.Tag == "!!map"
}

func isSequence(node *yaml.Node) bool {
	return node.Kind == yaml.SequenceNode && node.Tag == "!!seq"
}

func isScalar(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode &&
		slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, node.Tag)
}

func isUint32(text string) bool {
	_, err := strconv.ParseUint(text, 10, 32)
	return err == nil
}

func isFinite(text string) bool {
	x, err := strconv.ParseFloat(text, 64)
	return err == nil && !math.IsInf(x, 0) && !math.IsNaN(x)
}

func fieldNames(m protoreflect.MessageDescriptor) string {
	var names []string
	for i := range m.Fields().Len() {
		names = append(names, string(m.Fields().Get(i).Name()))
	}
	return strings.Join(names, ", ")
}

// showNode writes what was found in place of what was wanted.
func showNode(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.AliasNode:
		return "an alias (*" + node.Value + ")"
	case node.Tag == "!!null":
		return "nothing"
	case node.Tag == "!!merge":
		return "a merge (<<)"
	case !isMapping(node) && !isSequence(node) && !isScalar(node):
		return "the tag " + quote(node.Tag)
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.Tag == "!!str":
		return quote(node.Value)
	default:
		return node.Value
	}
}
