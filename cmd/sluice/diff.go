package main

import (
	"fmt"
	"io"
	"strings"

	"sluice/cmd/sluice/internal/linediff"
	routingv1 "sluice/proto/sluice/routing/v1"
)

const (
	// mostDiffs bounds how many routes a diff shows in full.
	mostDiffs = 20
	// diffContext is the number of equal lines shown around a difference.
	diffContext = 2
)

// writeDiff shows what a change does, route by route: weights in a table, what
// else changes in lines of YAML.
func writeDiff(out io.Writer, c *routingv1.Change) {
	routes := c.GetRoutes()
	for i, r := range routes {
		if i == mostDiffs {
			fmt.Fprintf(out, "and %s more\n", plural(len(routes)-i, "route"))
			return
		}
		before, after := r.GetBefore(), r.GetAfter()
		if before == nil || after == nil || !sameVersions(before, after) || weightWords(before, after) == "" {
			fmt.Fprintln(out, strong.Render(r.GetModel())+": "+visible(inWords(r), 200))
			writeLines(out, yamlLines(before), yamlLines(after))
			continue
		}
		fmt.Fprintln(out, strong.Render(r.GetModel()))
		writeWeights(out, r)
		writeLines(out, yamlLines(withoutSplit(before)), yamlLines(withoutSplit(after)))
	}
}

func writeWeights(out io.Writer, r *routingv1.RouteChange) {
	t := newTable("  VERSION", ">BEFORE", ">", ">AFTER", ">")
	for _, v := range r.GetAfter().GetVersions() {
		name := v.GetName()
		was, is := r.GetBefore().GetWeights()[name], r.GetAfter().GetWeights()[name]
		style := plain
		switch {
		case is > was:
			style = more
		case is < was:
			style = less
		}
		t.add("  "+name, fmt.Sprint(was), share(r.GetBefore(), name), style.Render(fmt.Sprint(is)), style.Render(share(r.GetAfter(), name)))
	}
	t.write(out)
}

func writeLines(out io.Writer, before, after []string) {
	for _, l := range linediff.Of(before, after, diffContext) {
		switch l.Op {
		case linediff.Added:
			fmt.Fprintln(out, more.Render("  + "+l.Text))
		case linediff.Removed:
			fmt.Fprintln(out, less.Render("  - "+l.Text))
		case linediff.Skipped:
			fmt.Fprintln(out, faint.Render("    ..."))
		case linediff.Same:
			fmt.Fprintln(out, "    "+l.Text)
		}
	}
}

// yamlLines is a route as a file of routes has it, line by line.
func yamlLines(r *routingv1.Route) []string {
	if r == nil {
		return nil
	}
	text, err := toYAML(r)
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}
