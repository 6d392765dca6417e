package drift

import (
	"slices"
	"strconv"
	"strings"
)

// label is what metrics call a feature. Names that come from an operator, by way of the route or of a
// reference that was set, are used as they are. Those that were only seen in calls are a caller's or a server's choice and
// become "input[0]", "output[1]" and so on, in the order of their names.
func (r *reference) label(i int, columns map[string][]string) string {
	f := r.features[i].doc
	if !f.GetLearnt() || named(f.GetName(), columns) {
		return f.GetName()
	}
	output, n := isOutput(f.GetName()), 0
	for _, other := range r.features[:i] {
		if o := other.doc; o.GetLearnt() && isOutput(o.GetName()) == output && !named(o.GetName(), columns) {
			n++
		}
	}
	side := "input"
	if output {
		side = "output"
	}
	return side + "[" + strconv.Itoa(n) + "]"
}

// named reports whether the route gives a feature its name: as a column's, or as what is made of a tensor that is listed.
func named(feature string, columns map[string][]string) bool {
	for tensor, names := range columns {
		if feature == tensor || slices.Contains(names, feature) {
			return true
		}
		rest, ok := strings.CutPrefix(feature, tensor)
		if !ok {
			continue
		}
		if number, isColumn := strings.CutPrefix(rest, "["); isColumn {
			n, err := strconv.Atoi(strings.TrimSuffix(number, "]"))
			ok = err == nil && n >= 0 && n < maxColumns && rest == "["+strconv.Itoa(n)+"]"
		} else {
			ok = slices.Contains(summaryNames(""), rest)
		}
		if ok {
			return true
		}
	}
	return false
}
