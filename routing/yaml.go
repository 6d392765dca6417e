package routing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// SyntaxError says why a file could not be read as YAML at all.
type SyntaxError struct {
	File   string
	Line   int // from 1
	Reason string
}

// Error puts it all in one line.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d: not YAML: %s", e.File, e.Line, e.Reason)
}

// ReadYAML returns the content of a file's one YAML document. A file without
// any is an empty mapping.
func ReadYAML(file string, data []byte) (*yaml.Node, error) {
	documents, err := decodeYAML(data)
	switch {
	case err != nil:
		return nil, syntaxError(file, data, err)
	case len(documents) == 0:
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1}, nil
	case len(documents) > 1:
		return nil, &SyntaxError{file, documents[1].Line, "a second document begins here, want only one"}
	}
	return documents[0].Content[0], nil
}

// decodeYAML returns the documents in data.
func decodeYAML(data []byte) ([]*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var documents []*yaml.Node
	for {
		document := new(yaml.Node)
		switch err := decoder.Decode(document); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return nil, err
		}
		documents = append(documents, document)
	}
}

// yamlMessage takes the parser's messages apart.
var yamlMessage = regexp.MustCompile(`^yaml: (?:line (\d+): )?((?s:.*))$`)

// syntaxError finds the line of a problem, which the parser's own number often
// is not: it may be missing, off by one, or that of a structure around it.
func syntaxError(file string, data []byte, err error) error {
	e := &SyntaxError{File: file, Line: 1, Reason: err.Error()}
	m := yamlMessage.FindStringSubmatch(e.Reason)
	if m == nil {
		return e
	}
	e.Reason = m[2]
	switch e.Reason {
	case "did not find expected ',' or ']'", "did not find expected ',' or '}'",
		"did not find expected node content", "found undefined tag handle":
		// Where what was not closed begins, or the end of the file, counted from 0.
		line, _ := strconv.Atoi(m[1])
		e.Line = min(line, bytes.Count(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))) + 1
	case "did not find expected key", "did not find expected '-' indicator", "did not find expected <document start>":
		e.Line = firstLineWith(data, e.Reason)
	default:
		if m[1] == "" {
			e.Line = firstLineWith(data, e.Reason)
			break
		}
		e.Line, _ = strconv.Atoi(m[1])
	}
	return e
}

// firstLineWith returns the line without which the parser would not complain so.
// What it complains about in the first lines it also does with more of them.
func firstLineWith(data []byte, reason string) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		_, err := decodeYAML(bytes.Join(lines[:i+1], nil))
		return err != nil && strings.HasSuffix(err.Error(), reason)
	})
}
