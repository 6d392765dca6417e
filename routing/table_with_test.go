package routing

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// TestTablesByChangeEqualTablesByDocument makes a table change by change and
// compares it with one that is built at once.
func TestTablesByChangeEqualTablesByDocument(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		docs := map[string]*routingv1.Route{}
		table := newTable(nil, 0)
		first := table
		free := []string{"pkg.A", "pkg.B", "pkg.C"}
		for revision := range uint64(rapid.IntRange(1, 8).Draw(rt, "changes")) {
			changed := map[string]*Route{}
			models := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 0, 3, rapid.ID).Draw(rt, "models")
			for _, model := range models {
				if old := docs[model]; old != nil {
					free = append(free, old.GetServices()...)
				}
				delete(docs, model)
				changed[model] = nil
			}
			for _, model := range models {
				if rapid.Bool().Draw(rt, "deleted") {
					continue
				}
				doc := document(weight{fmt.Sprint("v", revision), 1})
				doc.Model = model
				n := rapid.IntRange(0, len(free)).Draw(rt, "services")
				doc.Services, free = slices.Clone(free[:n]), slices.Clone(free[n:])
				docs[model], changed[model] = doc, newRoute(doc)
			}
			before := fmt.Sprint(contents(table))
			next := table.with(changed, revision+1)
			if after := fmt.Sprint(contents(table)); after != before {
				rt.Fatalf("the table before became %s, was %s", after, before)
			}
			for _, from := range []*Table{table, first, next, new(Table)} {
				if got, want := slices.Sorted(next.ChangedSince(from)), otherwise(next, from); !slices.Equal(got, want) {
					rt.Fatalf("changed since revision %s: %q, want %q", from.RevisionText(), got, want)
				}
			}
			table = next
			var all []*Route
			for _, doc := range docs {
				all = append(all, newRoute(doc))
			}
			if got, want := fmt.Sprint(contents(table)), fmt.Sprint(contents(newTable(all, revision+1))); got != want {
				rt.Fatalf("revision %d is %s, want %s", revision+1, got, want)
			}
		}
	})
}

// otherwise returns the models whose routes differ, sorted, by looking at all.
func otherwise(a, b *Table) []string {
	models := map[string]bool{}
	for _, pair := range [][2]*Table{{a, b}, {b, a}} {
		for r := range pair[0].Routes() {
			if other, ok := pair[1].Route(r.Model); !ok || other != r {
				models[r.Model] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(models))
}

// contents is what a table says, in comparable form.
func contents(t *Table) []string {
	out := []string{t.RevisionText(), fmt.Sprint(t.Len())}
	for r := range t.Routes() {
		out = append(out, r.Model+"="+r.Versions[0].Name)
	}
	for _, s := range []string{"pkg.A", "pkg.B", "pkg.C"} {
		if r, ok := t.RouteForService(s); ok {
			out = append(out, s+"="+r.Model)
		}
	}
	return out
}
