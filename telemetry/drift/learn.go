package drift

import (
	"cmp"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// maxLearnt bounds the different strings that are told apart while a category is learnt.
const maxLearnt = MaxCategories + maxOthers

// Column gathers the values of one feature until its distribution can be learnt. It keeps every number, and
// the counts of strings.
type Column struct {
	numbers    []float64
	categories map[string]uint64
	rest       uint64 // strings too many to be told apart
	missing    uint64
}

// Number adds a number; NaN counts as missing.
func (c *Column) Number(v float64) {
	if math.IsNaN(v) {
		c.missing++
		return
	}
	c.numbers = append(c.numbers, v)
}

// Category adds a string.
func (c *Column) Category(s string) {
	if c.categories == nil {
		c.categories = make(map[string]uint64)
	}
	if _, known := c.categories[s]; known || len(c.categories) < maxLearnt {
		c.categories[s]++
		return
	}
	c.rest++
}

// Missing adds a row without a value.
func (c *Column) Missing() { c.missing++ }

// Feature returns the distribution of what was added; false if there was no value that can be counted. A column
// has numbers or strings; of both, the strings are taken.
func (c *Column) Feature(name string) (*driftv1.Feature, bool) {
	if len(c.categories) > 0 {
		return c.ofCategories(name), true
	}
	bins, ok := stat.LearnBins(c.numbers, stat.MaxBins)
	if !ok {
		return nil, false
	}
	f := &driftv1.Feature{Name: name, Missing: c.missing, Rows: c.missing + uint64(len(c.numbers)), Counts: make([]uint64, bins.Len())}
	for _, v := range c.numbers {
		if math.IsInf(v, 0) {
			f.Infinite++
			continue
		}
		f.Counts[bins.Index(v)]++
	}
	f.Cells = &driftv1.Feature_Numbers{Numbers: &driftv1.Numbers{Edges: bins.Edges, Mean: bins.Mean, Sd: bins.SD, Discrete: bins.Discrete}}
	return f, true
}

// ofCategories counts the most frequent strings that are short enough one by one, and the rest together.
func (c *Column) ofCategories(name string) *driftv1.Feature {
	names := make([]string, 0, len(c.categories))
	for s := range c.categories {
		names = append(names, s)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(c.categories[b], c.categories[a]), cmp.Compare(a, b))
	})
	cells := new(driftv1.Categories)
	other := c.rest
	f := &driftv1.Feature{Name: name, Missing: c.missing, Rows: c.missing + c.rest}
	for _, s := range names {
		n := c.categories[s]
		f.Rows += n
		if len(cells.Names) < MaxCategories && len(s) <= maxCategoryName && utf8.ValidString(s) {
			cells.Names = append(cells.Names, s)
			f.Counts = append(f.Counts, n)
			continue
		}
		if len(cells.Others) < maxOthers {
			cells.Others = append(cells.Others, xxhash.Sum64String(s))
		}
		other += n
	}
	slices.Sort(cells.Others)
	f.Counts = append(f.Counts, other, 0)
	f.Cells = &driftv1.Feature_Categories{Categories: cells}
	return f
}

// seen is how many rows were added.
func (c *Column) seen() int {
	n := len(c.numbers) + int(c.missing) + int(c.rest)
	for _, k := range c.categories {
		n += int(k)
	}
	return n
}
