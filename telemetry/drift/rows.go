package drift

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/cespare/xxhash/v2"
	gonum "gonum.org/v1/gonum/stat"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

const (
	// keptRows is how many rows are kept while an embedding is learnt: the first ones as they are, until the bandwidth
	// is known, and then the features of as many that chance picks.
	keptRows = 500
	// measuredRows is between how many of them distances are taken.
	measuredRows = 200
)

// rows gathers rows until their distribution can be learnt. Once the bandwidth is known, features are all that is kept.
type rows struct {
	waves     *stat.Waves
	first     [][]float64
	bandwidth float64 // 0 until it is known
	all       stat.Embedding
	parts     []stat.Embedding // the first ones of leastForPSI rows each, in the order in which they came
	kept      [][]float64      // features
	infinite  uint64
	chance    *rand.Rand
}

// add adds a row without NaN.
func (r *rows) add(row []float64) {
	if r.bandwidth > 0 {
		r.embed(row)
		return
	}
	if r.first = append(r.first, slices.Clone(row)); len(r.first) == keptRows {
		r.settle()
	}
}

// settle finds the bandwidth, and embeds the rows that have waited for it.
func (r *rows) settle() {
	finite := slices.DeleteFunc(slices.Clone(r.first), func(row []float64) bool { return !isFinite(row) })
	r.bandwidth = stat.MedianDistance(finite[:min(len(finite), measuredRows)])
	r.all = stat.NewEmbedding()
	r.chance = rand.New(rand.NewPCG(keptRows, uint64(r.waves.Width)))
	for _, row := range r.first {
		r.embed(row)
	}
	r.first = nil
}

func (r *rows) embed(row []float64) {
	features := make([]float64, stat.FourierFeatures)
	if !r.waves.Of(features, row, r.bandwidth) {
		r.infinite++
		return
	}
	r.all.Add(features)
	if part := int(r.all.Rows-1) / leastForPSI; part < mostWindows {
		if part == len(r.parts) {
			r.parts = append(r.parts, stat.NewEmbedding())
		}
		r.parts[part].Add(features)
	}
	// Each row that has come is kept with the same probability (Vitter's algorithm R).
	if len(r.kept) < keptRows {
		r.kept = append(r.kept, features)
	} else if at := r.chance.Uint64N(r.all.Rows); at < keptRows {
		r.kept[at] = features
	}
}

// n is how many were added.
func (r *rows) n() int { return len(r.first) + int(r.all.Rows) + int(r.infinite) }

// feature is their distribution, calibrated; false if there is no row that can be counted. It takes a third of a second.
func (r *rows) feature(name string, missing uint64) (*driftv1.Feature, bool) {
	if r.bandwidth == 0 {
		r.settle()
	}
	if r.all.Rows == 0 {
		return nil, false
	}
	f := &driftv1.Feature{
		Name: name, Rows: missing + r.infinite + r.all.Rows, Missing: missing, Infinite: r.infinite, Counts: []uint64{r.all.Rows},
		Cells: &driftv1.Feature_Embedding{Embedding: &driftv1.Embedding{
			Width: uint32(r.waves.Width), Bandwidth: r.bandwidth, Sums: slices.Clone(r.all.Sums), Square: r.all.Square,
		}},
		Mmd: nullTo(stat.CalibrateMMD(r.kept, stat.CalibrationDraws, xxhash.Sum64String(name))),
	}
	f.Usual = r.usual()
	return f, true
}

// usual is how far whole parts are from all rows; nil if there are too few.
func (r *rows) usual() *driftv1.Usual {
	var apart []float64
	for _, part := range r.parts {
		if part.Rows == leastForPSI {
			apart = append(apart, stat.NormalisedMMD(r.all, part))
		}
	}
	if len(apart) < leastWindows {
		return nil
	}
	mean, sd := gonum.MeanStdDev(apart, nil)
	return &driftv1.Usual{Windows: uint32(len(apart)), Mean: mean, Sd: sd}
}

func isFinite(row []float64) bool {
	return !slices.ContainsFunc(row, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}
