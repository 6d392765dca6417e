package routing

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// lineBreak matches what YAML counts as the end of a line, beyond the usual.
var lineBreak = regexp.MustCompile("\n|\r|\u0085|\u2028|\u2029")

// FuzzParse: whatever the bytes, there is either a document that makes a working
// table, or errors that name a line of the file.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(readTestFile(f, file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := Parse("routes.yaml", data)
		if err != nil {
			checkErrors(t, err, len(lineBreak.FindAll(data, -1))+1)
			return
		}
		if len(doc.GetRoutes()) == 0 {
			t.Fatal("Parse accepts a file without routes")
		}
		checkTable(t, doc)
	})
}

// checkErrors fails unless every problem says where and what.
func checkErrors(t *testing.T, err error, lines int) {
	t.Helper()
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		if syntax.Line < 1 || syntax.Line > lines || syntax.Reason == "" {
			t.Fatalf("Parse = %#v, want one of %d lines and a reason", syntax, lines)
		}
		return
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("Parse = %v (%T), want a SyntaxError or FieldErrors", err, err)
	}
	for _, err := range joined.Unwrap() {
		var e *FieldError
		if !errors.As(err, &e) || e.Line < 1 || e.Line > lines || e.Field == "" || e.Got == "" || e.Want == "" {
			t.Fatalf("Parse = %#v, want a FieldError on one of %d lines", err, lines)
		}
	}
}

// checkTable fails unless every route of a valid document chooses versions
// whose names can be headers.
func checkTable(t *testing.T, doc *routingv1.Document) {
	t.Helper()
	table, err := Build(doc, 1)
	if err != nil {
		t.Fatalf("Build = %v for a document that Parse accepts", err)
	}
	for r := range table.Routes() {
		for _, key := range []string{"", "key"} {
			c, err := r.Choose("", key, 1<<63)
			if err != nil || c.Version.Dark() || strings.ContainsAny(r.Model+c.Version.Name, " ,\r\n") {
				t.Fatalf("Choose = %+v, %v", c.Version, err)
			}
		}
	}
}

// FuzzBuild does the same with a document as the admin API or a store gets it,
// without a file.
func FuzzBuild(f *testing.F) {
	doc, err := Parse("rich.good.yaml", readTestFile(f, "testdata/rich.good.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	wire, err := proto.Marshal(doc)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		doc := new(routingv1.Document)
		if proto.Unmarshal(wire, doc) != nil {
			return
		}
		if Validate(doc) == nil {
			checkTable(t, doc)
		}
	})
}
