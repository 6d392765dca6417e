package routing

import (
	"errors"
	"fmt"
	"sync"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Validate checks a document against all rules: those that stand in the schema
// and those of this package. Everything that is wrong is reported at once, as
// [*FieldError]s joined by [errors.Join], without file and line. A document
// without routes is valid.
func Validate(doc *routingv1.Document) error {
	problems, err := check(doc)
	if err != nil {
		return err
	}
	return join(problems, nil)
}

// check returns what is wrong with a document. The error is one of the schema's
// rules themselves.
func check(doc *routingv1.Document) ([]problem, error) {
	problems, err := checkSchema(doc)
	if err != nil {
		return nil, err
	}
	return append(problems, checkRules(doc)...), nil
}

// schema compiles the rules in the schema, once, when they are first needed.
var schema = sync.OnceValues(func() (protovalidate.Validator, error) {
	return protovalidate.New(protovalidate.WithMessages(&routingv1.Document{}))
})

// checkSchema applies the rules in the schema, whose messages complete
// "want ...".
func checkSchema(doc *routingv1.Document) ([]problem, error) {
	validator, err := schema()
	if err != nil {
		return nil, fmt.Errorf("rules of the routing document: %w", err)
	}
	err = validator.Validate(doc)
	if err == nil {
		return nil, nil
	}
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return nil, fmt.Errorf("rules of the routing document: %w", err)
	}
	var problems []problem
	for _, v := range invalid.Violations {
		problems = append(problems, problem{
			at:   violationPath(v),
			got:  show(v.FieldValue),
			want: v.Proto.GetMessage(),
		})
	}
	return problems, nil
}

// violationPath translates protovalidate's path.
func violationPath(v *protovalidate.Violation) path {
	var at path
	for _, e := range v.Proto.GetField().GetElements() {
		at = at.field(e.GetFieldName())
		switch {
		case e.HasIndex():
			at = at.index(int(e.GetIndex()))
		case e.HasStringKey():
			at = at.key(e.GetStringKey())
		}
	}
	return at
}

// show writes a value the way the document's author knows it.
func show(v protoreflect.Value) string {
	switch value := v.Interface().(type) {
	case nil:
		return "nothing"
	case string:
		if value == "" {
			return "nothing"
		}
		return quote(value)
	case protoreflect.List:
		if value.Len() == 0 {
			return "nothing"
		}
		return fmt.Sprintf("%d entries", value.Len())
	case protoreflect.Message:
		if d, ok := value.Interface().(*durationpb.Duration); ok {
			return d.AsDuration().String()
		}
		return "{" + fmt.Sprint(value.Interface()) + "}"
	default:
		return fmt.Sprint(value)
	}
}
