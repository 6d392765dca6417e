package drift

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// Bounds of a reference.
const (
	// MaxFeatures is the most features that are watched of one version.
	MaxFeatures = 256
	// MaxCategories is the most categories that are counted one by one.
	MaxCategories = 50

	maxOthers       = 1024
	maxNameBytes    = 256
	maxCategoryName = 64
	// decisionCells is the number of cells on which PSI and its kin are defined.
	decisionCells = 10
)

// reference is a [driftv1.Reference], ready for counting.
type reference struct {
	doc      *driftv1.Reference
	print    uint64 // fingerprint of what is counted by
	features []*feature
	byName   map[string]int
}

// feature is one feature of a reference.
type feature struct {
	doc    *driftv1.Feature
	bins   stat.Bins           // of numbers
	names  map[uint64]int      // of categories: cells, by hash
	others map[uint64]struct{} // and the rest of them
	groups stat.Groups         // what PSI and its kin are computed on
	bounds [rateKinds]float64  // what the reference allows for
	null   struct{ wasserstein, jensenShannon, mmd stat.Null }
	// embedding is set of whole rows, and rows is what the reference has of them.
	embedding *driftv1.Embedding
	rows      stat.Embedding
}

// Check returns an error that says what is wrong with a reference, nil if it can be used.
func Check(doc *driftv1.Reference) error {
	_, err := newReference(doc)
	return err
}

func newReference(doc *driftv1.Reference) (*reference, error) {
	if n := len(doc.GetFeatures()); n == 0 || n > MaxFeatures {
		return nil, fmt.Errorf("features: got %d, want 1 to %d", n, MaxFeatures)
	}
	r := &reference{doc: doc, byName: make(map[string]int, len(doc.GetFeatures()))}
	var problems []error
	for i, f := range doc.GetFeatures() {
		if _, twice := r.byName[f.GetName()]; twice || f.GetName() == "" || len(f.GetName()) > maxNameBytes {
			problems = append(problems, fmt.Errorf("features[%d].name: got %.64q, want a name of its own of 1 to %d bytes", i, f.GetName(), maxNameBytes))
			continue
		}
		ft, err := newFeature(f)
		if err != nil {
			problems = append(problems, fmt.Errorf("features[%d] (%q): %w", i, f.GetName(), err))
			continue
		}
		r.byName[f.GetName()] = len(r.features)
		r.features = append(r.features, ft)
	}
	print, err := fingerprint(doc)
	r.print = print
	return r, errors.Join(append(problems, err)...)
}

// fingerprint is equal for references by which is counted and judged alike, whether they are calibrated or not.
func fingerprint(doc *driftv1.Reference) (uint64, error) {
	bare := &driftv1.Reference{Features: make([]*driftv1.Feature, len(doc.GetFeatures()))}
	for i, f := range doc.GetFeatures() {
		bare.Features[i] = &driftv1.Feature{
			Name: f.GetName(), Rows: f.GetRows(), Missing: f.GetMissing(), Infinite: f.GetInfinite(), Cells: f.GetCells(), Counts: f.GetCounts(),
			Usual: f.GetUsual(), Absent: f.GetAbsent(),
		}
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	return xxhash.Sum64(data), err
}

const (
	// maxStored is how much a reference may take in the store, in bytes: what a shelf takes.
	maxStored = 1 << 20
	// calibrationSize is how much a calibration adds to each feature, at most.
	calibrationSize = 2000
)

// encode says a reference in the words of the store. If it is too large, the hashes of rare strings are what is left out first.
func encode(doc *driftv1.Reference) ([]byte, error) {
	for proto.Size(doc)+calibrationSize*len(doc.GetFeatures()) > maxStored {
		var most *driftv1.Categories
		for _, f := range doc.GetFeatures() {
			if c := f.GetCategories(); len(c.GetOthers()) > len(most.GetOthers()) {
				most = c
			}
		}
		if most == nil {
			return nil, fmt.Errorf("reference: got %d bytes for %d features, want at most %d with calibrations of %d bytes each: fewer columns", proto.Size(doc), len(doc.GetFeatures()), maxStored, calibrationSize)
		}
		most.Others, most.Unlisted = nil, true
	}
	return proto.Marshal(doc)
}

func newFeature(doc *driftv1.Feature) (*feature, error) {
	f := &feature{doc: doc}
	var cells int
	switch {
	case doc.GetNumbers() != nil:
		n := doc.GetNumbers()
		f.bins = stat.Bins{Edges: n.GetEdges(), Mean: n.GetMean(), SD: n.GetSd(), Discrete: n.GetDiscrete()}
		if len(f.bins.Edges) < 2 || f.bins.Len() > stat.MaxBins || !ascending(f.bins.Edges) {
			return nil, fmt.Errorf("numbers.edges: got %d, want 2 to %d finite numbers in ascending order", len(f.bins.Edges), stat.MaxBins-1)
		}
		cells = f.bins.Len()
	case doc.GetCategories() != nil:
		c := doc.GetCategories()
		if n := len(c.GetNames()) + len(c.GetHashes()); n > MaxCategories || len(c.GetOthers()) > maxOthers {
			return nil, fmt.Errorf("categories: got %d names or hashes and %d others, want at most %d and %d", n, len(c.GetOthers()), MaxCategories, maxOthers)
		}
		f.names = make(map[uint64]int)
		for i, name := range c.GetNames() {
			f.names[xxhash.Sum64String(name)] = i
		}
		for i, h := range c.GetHashes() {
			f.names[h] = len(c.GetNames()) + i
		}
		if n := len(c.GetNames()) + len(c.GetHashes()); len(f.names) != n {
			return nil, fmt.Errorf("categories: got %d names or hashes, %d of them different, want each once", n, len(f.names))
		}
		f.others = make(map[uint64]struct{}, len(c.GetOthers()))
		for _, h := range c.GetOthers() {
			f.others[h] = struct{}{}
		}
		cells = len(f.names) + 2
	case doc.GetEmbedding() != nil:
		f.embedding, cells = doc.GetEmbedding(), 1
	default:
		return nil, errors.New("got neither numbers nor categories nor an embedding, want one of them")
	}
	if len(doc.GetCounts()) != cells {
		return nil, fmt.Errorf("counts: got %d, want one for each of %d cells", len(doc.GetCounts()), cells)
	}
	if n := stat.Total(doc.GetCounts()); n == 0 || n > math.MaxUint32 || doc.GetMissing()+doc.GetInfinite()+n != doc.GetRows() {
		return nil, fmt.Errorf("rows: got %d, want the sum of %d counts (at least 1), %d missing and %d infinite", doc.GetRows(), n, doc.GetMissing(), doc.GetInfinite())
	}
	if f.embedding != nil {
		if err := f.embed(); err != nil {
			return nil, err
		}
	}
	f.groups = groupsOf(f, doc.GetCounts())
	for k := range rateKinds {
		f.bounds[k] = f.rateBound(k)
	}
	f.null.wasserstein, f.null.jensenShannon = nullFrom(doc.GetWasserstein()), nullFrom(doc.GetJensenShannon())
	f.null.mmd = nullFrom(doc.GetMmd())
	return f, nil
}

// embed takes what the reference has of whole rows.
func (f *feature) embed() error {
	e := f.embedding
	if e.GetWidth() < 1 || e.GetWidth() > maxEmbedded || !(e.GetBandwidth() > 0) || math.IsInf(e.GetBandwidth(), 0) {
		return fmt.Errorf("embedding: got a width of %d and a bandwidth of %g, want 1 to %d and a number above 0", e.GetWidth(), e.GetBandwidth(), maxEmbedded)
	}
	f.rows = stat.Embedding{Rows: f.doc.GetCounts()[0], Sums: e.GetSums(), Square: e.GetSquare()}
	if !f.rows.Valid() {
		return fmt.Errorf("embedding.sums: got %d, want %d that %d rows can have", len(e.GetSums()), stat.FourierFeatures, f.rows.Rows)
	}
	return nil
}

// groupsOf joins bins to tenths of the reference. Single values stay what they are, but for what lies outside of
// the reference, which joins its neighbour; categories stay what they are.
func groupsOf(f *feature, counts []uint64) stat.Groups {
	switch {
	case !f.isNumber():
		each := make(stat.Groups, len(counts))
		for i := range each {
			each[i] = i
		}
		return each
	case f.bins.Discrete:
		return stat.GroupEvenly(counts, len(counts)*int(min(stat.Total(counts), 1<<20))) // finer than any cell
	}
	return stat.GroupEvenly(counts, decisionCells)
}

// effect is the PSI from which on a change matters: what is said, or more if parts of the reference itself differ by more
// from the whole (NannyML's rule).
func (f *feature) effect(said float64) float64 {
	u := f.doc.GetUsual()
	if u.GetWindows() < leastWindows {
		return said
	}
	return max(said, u.GetMean()+3*u.GetSd())
}

func (f *feature) isNumber() bool { return f.names == nil && f.embedding == nil }

// cells is the number of cells that are counted.
func (f *feature) cells() int { return len(f.doc.GetCounts()) }

// category returns the cell of a string.
func (f *feature) category(s []byte) int {
	h := xxhash.Sum64(s)
	if i, ok := f.names[h]; ok {
		return i
	}
	if _, ok := f.others[h]; ok || f.doc.GetCategories().GetUnlisted() {
		return len(f.names)
	}
	return len(f.names) + 1
}

// statistics are those that have to be calibrated.
func (f *feature) statistics() []stat.Statistic {
	js := func(ref, cur []uint64) float64 { return stat.JensenShannon(f.groups.Sum(ref), f.groups.Sum(cur)) }
	if !f.isNumber() {
		return []stat.Statistic{{Of: js, Order: 0.5}}
	}
	spread := func(c []uint64) stat.Spread { return stat.Spread{Counts: c, Min: f.bins.Min(), Max: f.bins.Max()} }
	w := func(ref, cur []uint64) float64 { return stat.NormalisedWasserstein(f.bins, spread(ref), spread(cur)) }
	return []stat.Statistic{{Of: js, Order: 0.5}, {Of: w, Order: 0.5}}
}

// Calibrate adds to a reference, where that is missing, how its statistics are distributed while nothing changes, by drawing from it: about
// a second for each number. pause, unless nil, is called after each feature and may say that it is enough. The
// seed is the feature's name, so that equal references are calibrated equally. Embeddings are calibrated when they are
// learnt, from rows that are gone afterwards.
func Calibrate(doc *driftv1.Reference, pause func(feature string) error) error {
	return calibrate(doc, stat.CalibrationDraws, pause)
}

func calibrate(doc *driftv1.Reference, draws int, pause func(feature string) error) error {
	r, err := newReference(doc)
	if err != nil {
		return err
	}
	for _, f := range r.features {
		if f.calibrated() {
			continue
		}
		nulls := stat.Calibrate(f.doc.GetCounts(), f.statistics(), draws, xxhash.Sum64String(f.doc.GetName()))
		f.doc.JensenShannon = nullTo(nulls[0])
		if f.isNumber() {
			f.doc.Wasserstein = nullTo(nulls[1])
		}
		if pause != nil {
			if err := pause(f.doc.GetName()); err != nil {
				return err
			}
		}
	}
	return nil
}

// calibrated reports whether [Calibrate] has nothing to add to a feature.
func (f *feature) calibrated() bool {
	return f.embedding != nil || f.null.jensenShannon.Known() && (!f.isNumber() || f.null.wasserstein.Known())
}

func ascending(edges []float64) bool {
	for i, e := range edges {
		if math.IsNaN(e) || math.IsInf(e, 0) || i > 0 && e <= edges[i-1] {
			return false
		}
	}
	return true
}

func nullFrom(n *driftv1.Null) stat.Null {
	return stat.Null{
		Quantiles: n.GetQuantiles(), Order: n.GetOrder(), From: n.GetFrom(), TailShare: n.GetTailShare(),
		Tail: stat.Pareto{Shape: n.GetTailShape(), Scale: n.GetTailScale()},
	}
}

func nullTo(n stat.Null) *driftv1.Null {
	if !n.Known() {
		return nil
	}
	return &driftv1.Null{
		Quantiles: n.Quantiles, Order: n.Order, From: n.From, TailShare: n.TailShare,
		TailShape: n.Tail.Shape, TailScale: n.Tail.Scale,
	}
}

// sortFeatures puts features into the order that references keep.
func sortFeatures(features []*driftv1.Feature) {
	slices.SortFunc(features, func(a, b *driftv1.Feature) int { return strings.Compare(a.GetName(), b.GetName()) })
}
