package drift

import (
	"math"
	"slices"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// tally is what was counted of one version by the cells of one reference, in four bytes a cell. It is not safe for
// concurrent use.
type tally struct {
	samples  uint64
	features []counts
}

type counts struct {
	cells            []uint32
	absent, nan, inf uint32
	min, max         float64         // of the numbers in cells
	rows             *stat.Embedding // of an embedding; its only cell is their number
}

func newTally(r *reference) *tally {
	t := &tally{features: make([]counts, len(r.features))}
	total := 0
	for _, f := range r.features {
		total += f.cells()
	}
	cells := make([]uint32, total)
	for i, f := range r.features {
		t.features[i].cells, cells = cells[:f.cells():f.cells()], cells[f.cells():]
		if f.embedding != nil {
			rows := stat.NewEmbedding()
			t.features[i].rows = &rows
		}
	}
	t.reset()
	return t
}

func (t *tally) reset() {
	t.samples = 0
	for i := range t.features {
		c := &t.features[i]
		clear(c.cells)
		*c = counts{cells: c.cells, rows: c.rows, min: math.Inf(1), max: math.Inf(-1)}
		if c.rows != nil {
			c.rows.Reset()
		}
	}
}

// number counts a value of a feature.
func (c *counts) number(f *feature, v float64) {
	switch {
	case v-v == 0: // neither NaN nor infinite
		c.cells[f.bins.Index(v)]++
		c.min, c.max = min(c.min, v), max(c.max, v)
	case math.IsNaN(v):
		c.nan++
	default:
		c.inf++
	}
}

// row counts a wide row; room is for its features.
func (c *counts) row(f *feature, e *embedded, room []float64) {
	switch {
	case e.waves.Of(room, e.row, f.embedding.GetBandwidth()):
		c.cells[0]++
		c.rows.Add(room)
	case slices.ContainsFunc(e.row, math.IsNaN):
		c.nan++
	default:
		c.inf++
	}
}

// add adds what another tally by the same reference has.
func (t *tally) add(other *tally) {
	t.samples += other.samples
	for i := range t.features {
		to, from := &t.features[i], &other.features[i]
		for j, n := range from.cells {
			to.cells[j] = addCapped(to.cells[j], n)
		}
		to.absent, to.nan, to.inf = addCapped(to.absent, from.absent), addCapped(to.nan, from.nan), addCapped(to.inf, from.inf)
		to.min, to.max = min(to.min, from.min), max(to.max, from.max)
		if to.rows != nil {
			to.rows.Merge(*from.rows)
		}
	}
}

// addCapped adds, and stays at the largest number rather than begin anew: what others have written may be
// anything.
func addCapped(a, b uint32) uint32 {
	if b > math.MaxUint32-a {
		return math.MaxUint32
	}
	return a + b
}

// wide returns the counts of the cells and their sum.
func (c *counts) wide() (cells []uint64, n uint64) {
	cells = make([]uint64, len(c.cells))
	for i, v := range c.cells {
		cells[i] = uint64(v)
		n += uint64(v)
	}
	return cells, n
}

// encode says a tally in the words of the store.
func (t *tally) encode() []*driftv1.Counts {
	all := make([]*driftv1.Counts, len(t.features))
	for i := range t.features {
		c := &t.features[i]
		all[i] = &driftv1.Counts{Cells: c.cells, Absent: c.absent, Nan: c.nan, Infinite: c.inf}
		if c.min <= c.max {
			all[i].Min, all[i].Max = c.min, c.max
		}
		if c.rows != nil {
			all[i].Sums, all[i].Square = c.rows.Sums, c.rows.Square
		}
	}
	return all
}

// addEncoded adds what another gateway has stored; it reports false, and adds nothing, if that was not counted by
// the same cells.
func (t *tally) addEncoded(stored *driftv1.Tally) bool {
	if len(stored.GetFeatures()) != len(t.features) {
		return false
	}
	for i, c := range stored.GetFeatures() {
		if len(c.GetCells()) != len(t.features[i].cells) || math.IsNaN(c.GetMin()) || math.IsNaN(c.GetMax()) {
			return false
		}
		if t.features[i].rows != nil && !storedRows(c).Valid() {
			return false
		}
	}
	t.samples += stored.GetSamples()
	for i, c := range stored.GetFeatures() {
		to := &t.features[i]
		if to.rows != nil {
			to.rows.Merge(storedRows(c))
		}
		any := false
		for j, n := range c.GetCells() {
			to.cells[j] = addCapped(to.cells[j], n)
			any = any || n > 0
		}
		to.absent, to.nan, to.inf = addCapped(to.absent, c.GetAbsent()), addCapped(to.nan, c.GetNan()), addCapped(to.inf, c.GetInfinite())
		if any {
			to.min, to.max = min(to.min, c.GetMin()), max(to.max, c.GetMax())
		}
	}
	return true
}

// storedRows is what a store has of an embedding.
func storedRows(c *driftv1.Counts) stat.Embedding {
	return stat.Embedding{Rows: uint64(c.GetCells()[0]), Sums: c.GetSums(), Square: c.GetSquare()}
}
