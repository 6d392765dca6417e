package drift

import (
	"maps"
	"math"
	"slices"
	"strings"

	"sluice/telemetry/drift/stat"
)

// Verdict says why two versions of a model stand as they do, judged by one window of both.
type Verdict uint8

// The verdicts.
const (
	// Unknown: there is no window of both with values enough.
	Unknown Verdict = iota
	// Unmoved: both are asked alike, nothing that they are asked has moved, and they answer alike.
	Unmoved
	// WorldMoved: what both are asked has moved away from their references, and they answer alike.
	WorldMoved
	// ModelsDiffer: they are asked alike, which is as it was, and answer differently.
	ModelsDiffer
	// BothMoved: what both are asked has moved, and they answer differently.
	BothMoved
	// TrafficDiffers: they are asked different things, so that their answers cannot be compared.
	TrafficDiffers
)

// String returns the verdict's name.
func (v Verdict) String() string {
	return [...]string{
		Unknown: "unknown", Unmoved: "unmoved", WorldMoved: "world moved", ModelsDiffer: "models differ",
		BothMoved: "world moved and models differ", TrafficDiffers: "traffic differs",
	}[v]
}

// Contrast sets two versions against each other, in the last whole window of both.
type Contrast struct {
	Base, Other string
	Verdict     Verdict
	Window      Span // of Other
	// Moved are the inputs that have moved in both against their references.
	Moved []string
	// Unlike are the features in which the versions differ from each other: those of inputs if traffic differs,
	// else those of answers.
	Unlike []Unlike
}

// Unlike is a feature in which two versions differ.
type Unlike struct {
	Feature string
	PSI     float64
	P       float64 // corrected for the number of features (Holm)
}

// Contrast compares two versions of a model. Their references may differ: where they count by different
// cells, one's counts are brought to the other's.
//
// Features differ on the terms on which windows are suspect: by the base's level and effect. With a split by chance,
// inputs differ no more often than the level says; with a sticky one, the callers of both versions may be others.
func (m *Monitor) Contrast(model, base, other string) Contrast {
	c := Contrast{Base: base, Other: other}
	a, okA := m.lastWindow(Key{model, base})
	b, okB := m.lastWindow(Key{model, other})
	if !okA || !okB || !a.span.To.Equal(b.span.To) || a.policy.Window != b.policy.Window {
		return c
	}
	c.Window = b.span
	unlike, compared := a.unlike(b)
	if compared == 0 {
		return c
	}
	for _, f := range a.findings {
		if !isOutput(f.Feature) && f.State >= Suspect && b.state(f.Feature) >= Suspect {
			c.Moved = append(c.Moved, f.Feature)
		}
	}
	slices.Sort(c.Moved)
	inputs := slices.DeleteFunc(slices.Clone(unlike), func(u Unlike) bool { return isOutput(u.Feature) })
	if len(inputs) > 0 {
		c.Verdict, c.Unlike = TrafficDiffers, inputs
		return c
	}
	c.Unlike = unlike
	switch moved := len(c.Moved) > 0; {
	case moved && len(unlike) > 0:
		c.Verdict = BothMoved
	case moved:
		c.Verdict = WorldMoved
	case len(unlike) > 0:
		c.Verdict = ModelsDiffer
	default:
		c.Verdict = Unmoved
	}
	return c
}

func isOutput(feature string) bool { return strings.HasPrefix(feature, outputPrefix) }

// wholeWindow is the last one of a version.
type wholeWindow struct {
	span     Span
	policy   Policy
	ref      *reference
	tally    *tally
	findings []Finding
}

func (m *Monitor) lastWindow(key Key) (wholeWindow, bool) {
	v := m.version(key)
	if v == nil {
		return wholeWindow{}, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ref == nil || v.findings == nil {
		return wholeWindow{}, false
	}
	t := newTally(v.ref)
	t.add(v.done)
	return wholeWindow{v.last, v.settings.Policy, v.ref, t, v.findings}, true
}

func (w wholeWindow) state(feature string) State {
	for _, f := range w.findings {
		if f.Feature == feature {
			return f.State
		}
	}
	return Insufficient
}

// unlike tests every feature that both have, and returns those that differ, and how many could be tested.
func (w wholeWindow) unlike(o wholeWindow) (differ []Unlike, compared int) {
	var all []Unlike
	var ps []float64
	for _, name := range slices.Sorted(maps.Keys(w.ref.byName)) {
		j, ok := o.ref.byName[name]
		if !ok {
			continue
		}
		i := w.ref.byName[name]
		x, y, ok := commonCells(w.ref.features[i], &w.tally.features[i], o.ref.features[j], &o.tally.features[j])
		if !ok || min(stat.Total(x), stat.Total(y)) < leastForPSI {
			continue
		}
		psi := stat.PSI(x, y)
		if math.IsNaN(psi.P) {
			continue
		}
		all = append(all, Unlike{Feature: name, PSI: psi.Value})
		ps = append(ps, psi.P)
	}
	for i, p := range stat.Holm(ps) {
		if all[i].P = p; p <= w.policy.Level() && all[i].PSI >= w.policy.Effect {
			differ = append(differ, all[i])
		}
	}
	return differ, len(all)
}

// commonCells says both counts by the same cells, few enough for PSI; false if one has numbers and the other
// categories, and of embeddings: each reference has a bandwidth of its own, and projections tell as well.
func commonCells(f *feature, a *counts, g *feature, b *counts) (x, y []uint64, ok bool) {
	if f.isNumber() != g.isNumber() || f.embedding != nil || g.embedding != nil {
		return nil, nil, false
	}
	ca, n := a.wide()
	cb, _ := b.wide()
	if !f.isNumber() {
		x, y = commonCategories(f, ca, g, cb)
		return x, y, true
	}
	if n == 0 {
		return nil, nil, false
	}
	cb = recount(g, cb, b, f.bins.Edges)
	groups := f.groups
	if !f.bins.Discrete {
		groups = stat.GroupEvenly(ca, decisionCells) // tenths of what the base is asked now
	}
	return groups.Sum(ca), groups.Sum(cb), true
}

// recount says counts by cells with other edges. Within a cell, numbers are taken as spread evenly, or, if
// each cell is one value, as in its middle; so what is moved wrongly is at most the mass of one cell at each edge.
func recount(g *feature, cells []uint64, c *counts, edges []float64) []uint64 {
	if slices.Equal(g.bins.Edges, edges) {
		return cells
	}
	counts := make([]uint64, len(edges)+1)
	var before uint64
	for j, edge := range edges {
		below := uint64(math.Round(massBelow(g, cells, c, edge)))
		counts[j] = max(below, before) - before
		before = max(below, before)
	}
	counts[len(edges)] = stat.Total(cells) - before
	return counts
}

// massBelow is how many values are at most edge.
func massBelow(g *feature, cells []uint64, c *counts, edge float64) float64 {
	var mass float64
	last := len(cells) - 1
	for i, n := range cells {
		if n == 0 {
			continue
		}
		lo, hi := c.min, c.max // of the outer cells, as far as there were values
		if i > 0 {
			lo = max(lo, g.bins.Edges[i-1])
		}
		if i < last {
			hi = min(hi, g.bins.Edges[i])
		}
		switch middle := lo/2 + hi/2; {
		case edge >= hi:
			mass += float64(n)
		case edge <= lo:
			// none of them
		case !g.bins.Discrete:
			mass += float64(n) * (edge - lo) / (hi - lo)
		case middle <= edge:
			mass += float64(n)
		}
	}
	return mass
}

// commonCategories counts the names that both have one by one, and all else together.
func commonCategories(f *feature, a []uint64, g *feature, b []uint64) (x, y []uint64) {
	restA, restB := stat.Total(a), stat.Total(b)
	for _, name := range slices.Sorted(maps.Keys(f.names)) { // by hash
		j, ok := g.names[name]
		if !ok {
			continue
		}
		na, nb := a[f.names[name]], b[j]
		x, y = append(x, na), append(y, nb)
		restA, restB = restA-na, restB-nb
	}
	return append(x, restA), append(y, restB)
}
