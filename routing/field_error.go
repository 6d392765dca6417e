package routing

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// FieldError says what is wrong with one field of a routing document.
type FieldError struct {
	File  string // empty for a document that did not come from a file
	Line  int    // from 1; 0 without a file
	Field string // as in "routes[2].versions[0].endpoints[1]"
	Got   string // the value found, text in quotes, or "nothing"
	Want  string // what is accepted
}

// Error puts it all in one line, such as
//
//	routes.yaml:12: routes[0].weights.v9: got "v9", want one of the route's versions (v7, v8)
func (e *FieldError) Error() string {
	text := fmt.Sprintf("%s: got %s, want %s", e.Field, e.Got, e.Want)
	if e.File == "" {
		return text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, text)
}

// problem is a FieldError in the making.
type problem struct {
	at   path
	got  string
	want string
	line int // 0 if it is still to be found in the file
}

// join makes one error of all problems, with lines from the file if there is
// one, in the order of their lines.
func join(problems []problem, in *source) error {
	var found []*FieldError
	for _, p := range problems {
		e := &FieldError{Field: p.at.String(), Got: p.got, Want: p.want}
		if in != nil {
			e.File, e.Line = in.file, p.line
			if p.line == 0 {
				e.Line = in.line(p.at)
			}
		}
		found = append(found, e)
	}
	slices.SortStableFunc(found, func(a, b *FieldError) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(found))
	for i, e := range found {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// quoteLimit bounds what an error repeats of somebody else's text, in bytes.
const quoteLimit = 64

// quote puts text in quotes, and cuts it where it gets long.
func quote(s string) string {
	if len(s) <= quoteLimit {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:quoteLimit]) + fmt.Sprintf("... (%d bytes)", len(s))
}
