package routing

import (
	"fmt"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Parse reads a routing document in YAML and checks it as [Validate] does. A
// file has at least one route: an empty one is more likely to be a mistake than
// a wish to serve nothing.
//
// Everything that is wrong is reported at once, as [*FieldError]s joined by
// [errors.Join], with lines in the named file. What is not YAML at all is a
// [*SyntaxError].
func Parse(file string, data []byte) (*routingv1.Document, error) {
	root, err := ReadYAML(file, data)
	if err != nil {
		return nil, err
	}
	src := &source{file: file, root: root}
	doc := new(routingv1.Document)
	shape := checkShape(root, doc.ProtoReflect().Descriptor())
	decoder := protoyaml.UnmarshalOptions{CustomUnmarshaler: graft{doc, root}}
	if err := decoder.Unmarshal([]byte("{}"), doc); err != nil { // graft has the file's tree, read already
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	rest, err := check(doc)
	if err != nil {
		return nil, err
	}
	if len(doc.GetRoutes()) == 0 {
		rest = append(rest, problem{at: path{}.field("routes"), got: "nothing", want: "at least one route"})
	}
	if err := join(merge(shape, rest), src); err != nil {
		return nil, err
	}
	return doc, nil
}

// graft makes protoyaml decode a tree from which what does not fit the schema
// has been cut, so that the rest can be checked as well.
type graft struct {
	doc  proto.Message
	root *yaml.Node
}

// Unmarshal implements [protoyaml.CustomUnmarshaler]; it leaves the decoding to
// protoyaml.
func (g graft) Unmarshal(node *yaml.Node, m proto.Message) (bool, error) {
	if m == g.doc {
		*node = *g.root
	}
	return false, nil
}

// merge adds the problems that do not follow from those of the shape: a value
// that was cut is not missing.
func merge(shape, rest []problem) []problem {
	all := shape
	for _, p := range rest {
		if !causedBy(shape, p) {
			all = append(all, p)
		}
	}
	return all
}

func causedBy(shape []problem, p problem) bool {
	for _, s := range shape {
		if s.at.touches(p.at) {
			return true
		}
	}
	return false
}
