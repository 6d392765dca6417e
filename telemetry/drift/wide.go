package drift

import (
	"sync"

	"sluice/telemetry/drift/stat"
)

const (
	// projections is how many random directions there are.
	projections = 16
	// foldedWidth is the widest row that is projected as it is; wider ones are folded to it. That bounds the work at
	// 65,536 multiplications and an addition a column.
	foldedWidth = 4096
	// maxEmbedded is the widest row of which the whole is embedded, by 131,072 multiplications. Of wider ones, the projections are.
	maxEmbedded = 1024
)

// What rows are multiplied by that are too wide to look at column by column: the same for all widths, tensors and
// versions, so callers may send as many as they like.
var (
	directions = sync.OnceValue(func() stat.Directions { return stat.NewDirections(projections, foldedWidth) })
	waves      = sync.OnceValue(func() *stat.Waves { return stat.NewWaves(maxEmbedded) })
)

// lens is how rows of one width are looked at.
type lens struct {
	width      int
	directions stat.Directions
	waves      *stat.Waves // of rows, or of their projections
	folded     []float64
}

func newLens(width int) *lens {
	l := &lens{width: width, directions: directions().First(min(width, foldedWidth))}
	if width > foldedWidth {
		l.folded = make([]float64, foldedWidth)
	}
	if width > maxEmbedded {
		l.waves = waves().First(projections)
	} else {
		l.waves = waves().First(width)
	}
	return l
}

// project appends the projections of a row.
func (l *lens) project(to, row []float64) []float64 {
	if l.folded != nil {
		stat.Fold(l.folded, row)
		row = l.folded
	}
	return l.directions.Project(to, row)
}

// embedded is what of a wide row is embedded, and by which waves.
type embedded struct {
	row   []float64
	waves *stat.Waves
}

// holds reports whether a row can be counted by what a feature was made of.
func (f *feature) holds(e *embedded) bool {
	return f.embedding != nil && int(f.embedding.GetWidth()) == e.waves.Width
}
