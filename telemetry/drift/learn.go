package drift

import (
	"cmp"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	gonum "gonum.org/v1/gonum/stat"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// maxLearnt bounds the different strings that are told apart while a category is learnt.
const maxLearnt = MaxCategories + maxOthers

// Column gathers the values of one feature until its distribution can be learnt. It keeps every number, the counts
// of strings, and of rows what [rows] says.
type Column struct {
	numbers    []float64
	categories map[string]uint64
	rest       uint64 // strings too many to be told apart
	rows       *rows
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

// Category adds a string; an empty one counts as missing.
func (c *Column) Category(s string) {
	if s == "" {
		c.missing++
		return
	}
	if c.categories == nil {
		c.categories = make(map[string]uint64)
	}
	if _, known := c.categories[s]; known || len(c.categories) < maxLearnt {
		c.categories[s]++
		return
	}
	c.rest++
}

// row adds what is embedded of a wide row; one with NaN counts as missing.
func (c *Column) row(e *embedded) {
	switch {
	case slices.ContainsFunc(e.row, math.IsNaN):
		c.missing++
		return
	case c.rows == nil:
		c.rows = &rows{waves: e.waves}
	case c.rows.waves.Width != e.waves.Width:
		c.missing++ // of another tensor by the same name
		return
	}
	c.rows.add(e.row)
}

// Missing adds a row without a value.
func (c *Column) Missing() { c.missing++ }

// Feature returns the distribution of what was added; false if there was no value that can be counted. A column
// has numbers or strings; of both, the strings are taken.
func (c *Column) Feature(name string) (*driftv1.Feature, bool) {
	if c.rows != nil {
		return c.rows.feature(name, c.missing)
	}
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
	f.Usual = c.usual(f)
	return f, true
}

const (
	// leastWindows is how many parts of a reference it takes to say how much they usually differ; mostWindows
	// are as many as are taken.
	leastWindows = 20
	mostWindows  = 50
)

// usual sets parts of the values, in the order in which they came, against all of them; nil if there are too few.
func (c *Column) usual(doc *driftv1.Feature) *driftv1.Usual {
	windows := min(mostWindows, len(c.numbers)/leastForPSI)
	if windows < leastWindows {
		return nil
	}
	f, err := newFeature(doc)
	if err != nil {
		return nil // whoever checks the reference will say why
	}
	ref := f.groups.Sum(doc.GetCounts())
	psi := make([]float64, windows)
	part := make([]uint64, len(doc.GetCounts()))
	for i := range psi {
		clear(part)
		for _, v := range c.numbers[i*len(c.numbers)/windows : (i+1)*len(c.numbers)/windows] {
			if !math.IsInf(v, 0) {
				part[f.bins.Index(v)]++
			}
		}
		psi[i] = stat.PSI(ref, f.groups.Sum(part)).Value
	}
	mean, sd := gonum.MeanStdDev(psi, nil)
	if math.IsNaN(mean + sd) {
		return nil // a constant, or parts of infinities alone
	}
	return &driftv1.Usual{Windows: uint32(windows), Mean: mean, Sd: sd}
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
		} else {
			cells.Unlisted = true
		}
		other += n
	}
	cells.Unlisted = cells.Unlisted || c.rest > 0
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
	if c.rows != nil {
		n += c.rows.n()
	}
	return n
}
