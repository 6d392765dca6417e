package redact

import (
	"regexp"
	"strconv"
	"strings"

	"sluice/proto/inference/tensor"
)

// Hidden stands in place of every value that must not be written.
const Hidden = "[redacted]"

// OutputPrefix begins the names of an answer's tensors in patterns. A pattern without it means those of
// requests and of answers: models like to echo what they are asked.
const OutputPrefix = "output."

// Rules say which values must not be written. The zero value hides nothing.
type Rules struct {
	hide, keep patterns
	columns    map[string][]string
}

// New returns rules that hide what a pattern of hide matches and none of keep. A pattern is a name in which * stands for any
// characters, none included; "*" hides everything. columns are the names of input tensors' columns, by tensor.
func New(hide, keep []string, columns map[string][]string) *Rules {
	return &Rules{compile(hide), compile(keep), columns}
}

type patterns []*regexp.Regexp

func compile(texts []string) patterns {
	all := make(patterns, len(texts))
	for i, text := range texts {
		all[i] = regexp.MustCompile(`(?s)^` + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `.*`) + `$`)
	}
	return all
}

func (p patterns) match(name string) bool {
	for _, re := range p {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}

// side is whose tensors are written.
type side string

const (
	input  side = ""
	output side = OutputPrefix
)

// hides reports whether the values of a column are hidden. All of its names count: the tensor's, the tensor's with the
// column's number, and its own.
func (r *Rules) hides(of side, tensor string, column int, given []string) bool {
	names := []string{tensor, tensor + "[" + strconv.Itoa(column) + "]"}
	if column < len(given) {
		names = append(names, given[column])
	}
	hidden := false
	for _, name := range names {
		if r.keep.match(string(of) + name) {
			return false
		}
		hidden = hidden || r.hide.match(string(of)+name) || r.hide.match(name)
	}
	return hidden
}

// layout says what is hidden of one tensor. It is asked for its elements in order.
type layout struct {
	rules   *Rules
	of      side
	tensor  string
	given   []string
	width   int
	all     bool
	columns []bool // of those asked for so far
}

func (r *Rules) layout(of side, t *tensor.Tensor) layout {
	l := layout{rules: r, of: of, tensor: t.Name}
	if of == input {
		l.given = r.columns[t.Name]
	}
	_, l.width = t.Rows(len(l.given))
	if len(l.given) > 0 && len(l.given) != l.width {
		// Which column is which cannot be told, so that one hidden is all hidden.
		for i := range l.given {
			l.all = l.all || r.hides(of, t.Name, i, l.given)
		}
	}
	return l
}

func (l *layout) hides(element int) bool {
	if l.all || len(l.rules.hide) == 0 {
		return l.all
	}
	column := element % l.width
	if column == len(l.columns) {
		l.columns = append(l.columns, l.rules.hides(l.of, l.tensor, column, l.given))
	}
	return l.columns[column]
}
