package stat_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/telemetry/drift/stat"
)

// twoSamples draws the counts of two samples over 2 to 20 cells, each with at least one value.
func twoSamples(t *rapid.T) (a, b []uint64) {
	k := rapid.IntRange(2, 20).Draw(t, "cells")
	counts := rapid.SliceOfN(rapid.Uint64Range(0, 500), k, k)
	a, b = counts.Draw(t, "a"), counts.Draw(t, "b")
	a[rapid.IntRange(0, k-1).Draw(t, "i")]++
	b[rapid.IntRange(0, k-1).Draw(t, "j")]++
	return a, b
}

// evenBins are bins of length 1 from 0 on, for counts of as many cells.
func evenBins(cells int) stat.Bins {
	b := stat.Bins{SD: 1}
	for i := range cells - 1 {
		b.Edges = append(b.Edges, float64(i))
	}
	return b
}

func wasserstein(a, b []uint64) float64 {
	bins := evenBins(len(a))
	spread := func(c []uint64) stat.Spread { return stat.Spread{Counts: c, Min: -1, Max: float64(len(c) - 1)} }
	return stat.Wasserstein(bins, spread(a), spread(b))
}

// measures are the statistics with what holds of them.
var measures = []struct {
	name      string
	of        func(a, b []uint64) float64
	most      func(cells int) float64
	unordered bool // the order of the cells does not matter
	metric    bool
	exact     bool // equal shares are at distance 0, whatever the sizes
}{
	{"PSI", func(a, b []uint64) float64 { return stat.PSI(a, b).Value }, nil, true, false, false},
	{"χ²", func(a, b []uint64) float64 { return stat.ChiSquare(a, b).Value }, nil, true, false, true},
	{"KS", func(a, b []uint64) float64 { return stat.KS(a, b).Value }, func(int) float64 { return 1 }, false, true, true},
	{"Jensen-Shannon", stat.JensenShannon, func(int) float64 { return 1 }, true, true, true},
	{"L∞", stat.LInfinity, func(int) float64 { return 1 }, true, true, true},
	{"Hellinger", stat.Hellinger, func(int) float64 { return 1 }, true, true, true},
	{"W1", wasserstein, func(k int) float64 { return float64(k) }, false, true, true},
}

const rounding = 1e-7 // of distances, roots of what rounding leaves of 0

func same(a, b float64) bool {
	return math.Abs(a-b) <= rounding*(1+math.Abs(a)) || math.IsNaN(a) && math.IsNaN(b)
}

func TestStatisticsAreSymmetricAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := twoSamples(t)
		for _, m := range measures {
			ab, ba := m.of(a, b), m.of(b, a)
			if !same(ab, ba) {
				t.Errorf("%s is %v one way and %v the other", m.name, ab, ba)
			}
			if ab < -rounding || m.most != nil && ab > m.most(len(a))+rounding {
				t.Errorf("%s = %v is out of bounds", m.name, ab)
			}
		}
		for name, p := range map[string]float64{
			"PSI": stat.PSI(a, b).P, "χ²": stat.ChiSquare(a, b).P, "KS": stat.KS(a, b).P,
		} {
			if p < 0 || p > 1+rounding {
				t.Errorf("P of %s = %v, want a probability", name, p)
			}
		}
	})
}

func TestEqualSharesAreNoDrift(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _ := twoSamples(t)
		times := rapid.Uint64Range(1, 50).Draw(t, "times")
		b := slices.Clone(a)
		for i := range b {
			b[i] *= times
		}
		for _, m := range measures {
			if times > 1 && !m.exact {
				continue // the added halves weigh less in the larger sample
			}
			if v := m.of(a, b); v > rounding {
				t.Errorf("%s of equal shares = %v, want 0", m.name, v)
			}
		}
	})
}

func TestOrderMattersOnlyWhereItMeansSomething(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := twoSamples(t)
		order := rapid.Permutation(indices(len(a))).Draw(t, "order")
		backwards := indices(len(a))
		slices.Reverse(backwards)
		for _, m := range measures {
			to := order
			if !m.unordered {
				to = backwards // which way numbers grow does not matter to any
			}
			if v, w := m.of(a, b), m.of(permuted(a, to), permuted(b, to)); !same(v, w) {
				t.Errorf("%s = %v, in another order %v", m.name, v, w)
			}
		}
	})
}

func TestMetricsKeepTheTriangleInequality(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := twoSamples(t)
		c := rapid.SliceOfN(rapid.Uint64Range(1, 500), len(a), len(a)).Draw(t, "c")
		for _, m := range measures {
			if m.metric && m.of(a, b) > m.of(a, c)+m.of(c, b)+rounding {
				t.Errorf("%s is farther direct, %v, than by way of a third, %v + %v", m.name, m.of(a, b), m.of(a, c), m.of(c, b))
			}
		}
	})
}

func TestPartsAddUpToTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-5, 5), 1, 300).Draw(t, "values")
		bins, _ := stat.LearnBins(values[:1+len(values)/2], rapid.IntRange(3, stat.MaxBins).Draw(t, "bins"))
		whole, sum := make([]uint64, bins.Len()), make([]uint64, bins.Len())
		parts := [3][]uint64{make([]uint64, bins.Len()), make([]uint64, bins.Len()), make([]uint64, bins.Len())}
		for i, v := range values {
			whole[bins.Index(v)]++
			parts[rapid.IntRange(0, 2).Draw(t, "part")][bins.Index(v)]++
			_ = i
		}
		for _, p := range rapid.Permutation(parts[:]).Draw(t, "order") {
			stat.Add(sum, p)
		}
		if !slices.Equal(whole, sum) {
			t.Errorf("parts add up to %v, want %v", sum, whole)
		}
	})
}

// Bins with the same edges are searched by a loop over all of them.
func TestIndexIsTheFirstBinWhoseEdgeIsNotBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64(), 1, 200).Draw(t, "values")
		bins, ok := stat.LearnBins(values, stat.MaxBins)
		if !ok {
			t.Skip("no finite value")
		}
		v := rapid.OneOf(rapid.Float64(), rapid.SampledFrom(bins.Edges)).Draw(t, "v")
		if math.IsNaN(v) {
			t.Skip("not a number")
		}
		want := 0
		for want < len(bins.Edges) && bins.Edges[want] < v {
			want++
		}
		if got := bins.Index(v); got != want {
			t.Errorf("Index(%v) = %d, want %d of %v", v, got, want, bins.Edges)
		}
	})
}

func TestTheReferenceLiesInTheInnerBins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e300, 1e300), 1, 200).Draw(t, "values")
		most := rapid.IntRange(3, stat.MaxBins).Draw(t, "most")
		bins, _ := stat.LearnBins(values, most)
		if bins.Len() > most || !slices.IsSorted(bins.Edges) {
			t.Fatalf("%d bins with edges %v, want at most %d in order", bins.Len(), bins.Edges, most)
		}
		for _, v := range values {
			if i := bins.Index(v); i == 0 || i == bins.Len()-1 {
				t.Errorf("%v of the reference lies in bin %d of %v, which is for what lies outside", v, i, bins.Edges)
			}
		}
		if math.IsNaN(bins.SD) || math.IsInf(bins.SD, 0) || math.IsNaN(bins.Mean) {
			t.Errorf("mean %v, sd %v", bins.Mean, bins.SD)
		}
	})
}

func TestQuantileBinsHoldTheSameNumberOfValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	values := make([]float64, 11_800)
	for i := range values {
		values[i] = rng.NormFloat64()
	}
	bins, _ := stat.LearnBins(values, stat.MaxBins)
	counts := make([]uint64, bins.Len())
	for _, v := range values {
		counts[bins.Index(v)]++
	}
	for i, c := range counts[1 : len(counts)-1] {
		if c != 100 {
			t.Errorf("bin %d holds %d of 11,800 values, want a 118th", i+1, c)
		}
	}
	sums := stat.GroupEvenly(counts, 10).Sum(counts)
	if len(sums) != 10 {
		t.Fatalf("%d groups, want 10", len(sums))
	}
	for i, c := range sums {
		if c < 1100 || c > 1200 { // eleven or twelve bins
			t.Errorf("group %d holds %d of 11,800 values, want about a tenth", i, c)
		}
	}
}

func TestOneFrequentValueHasAGroupOfItsOwn(t *testing.T) {
	counts := []uint64{0, 50, 800, 50, 50, 50, 0}
	groups := stat.GroupEvenly(counts, 10)
	sums := groups.Sum(counts)
	if !slices.Contains(sums, 800) || stat.Total(sums) != 1000 {
		t.Errorf("groups %v of %v, want one of the 800 alone", sums, counts)
	}
	if groups[0] != groups[1] || groups[6] != groups[5] {
		t.Errorf("groups %v, want what lies outside to join its neighbours", groups)
	}
}

// Two samples of as many values, spread evenly over their bins, are at the mean distance of their values in
// order.
func TestWassersteinMovesEveryValueToItsRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(3, 8).Draw(t, "cells")
		points := func(name string) (counts []uint64, values []float64) {
			counts = make([]uint64, k)
			for range 60 {
				counts[rapid.IntRange(0, k-1).Draw(t, name)]++
			}
			const fine = 40
			for i, c := range counts {
				for j := range int(c) * fine {
					values = append(values, float64(i-1)+(float64(j)+0.5)/float64(int(c)*fine))
				}
			}
			return counts, values
		}
		a, x := points("a")
		b, y := points("b")
		var want float64
		for i := range x {
			want += math.Abs(x[i]-y[i]) / float64(len(x))
		}
		if got := wasserstein(a, b); math.Abs(got-want) > 0.002 {
			t.Errorf("W1 of %v and %v = %v, want %v", a, b, got, want)
		}
	})
}

func TestNothingToCompareIsNoValue(t *testing.T) {
	empty, some := []uint64{0, 0, 0}, []uint64{1, 2, 3}
	for _, m := range measures {
		if v := m.of(empty, some); !math.IsNaN(v) {
			t.Errorf("%s of an empty reference = %v, want NaN", m.name, v)
		}
		if v := m.of(some, empty); !math.IsNaN(v) {
			t.Errorf("%s of an empty window = %v, want NaN", m.name, v)
		}
	}
	if r := stat.ChiSquare([]uint64{9, 0}, []uint64{7, 0}); !math.IsNaN(r.P) {
		t.Errorf("χ² of one category = %v, want NaN", r)
	}
	if _, ok := stat.LearnBins([]float64{math.NaN(), math.Inf(1)}, 10); ok {
		t.Error("bins were learnt from no finite value")
	}
}

// Numbers that are as near each other as numbers can be.
func TestNeighboursHaveAscendingEdges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Float64Range(-1e18, 1e18).Draw(t, "first")
		var values []float64
		for _, steps := range rapid.SliceOfN(rapid.IntRange(0, 40), 1, 60).Draw(t, "steps") {
			v := first
			for range steps {
				v = math.Nextafter(v, math.Inf(1))
			}
			values = append(values, v)
		}
		bins, ok := stat.LearnBins(values, rapid.IntRange(3, stat.MaxBins).Draw(t, "most"))
		if !ok {
			t.Fatal("no bins")
		}
		for i, e := range bins.Edges {
			if i > 0 && e <= bins.Edges[i-1] {
				t.Fatalf("edges %v of %v are not ascending", bins.Edges, values)
			}
		}
	})
}

func TestAConstantHasBins(t *testing.T) {
	bins, ok := stat.LearnBins([]float64{7, 7, 7}, stat.MaxBins)
	if !ok || bins.Len() != 3 || bins.Index(7) != 1 || bins.Index(6.9) != 0 || bins.Index(7.1) != 2 || bins.SD != 0 {
		t.Errorf("bins of a constant: %+v", bins)
	}
}

func indices(n int) []int {
	x := make([]int, n)
	for i := range x {
		x[i] = i
	}
	return x
}

func permuted(counts []uint64, order []int) []uint64 {
	p := make([]uint64, len(counts))
	for i, j := range order {
		p[i] = counts[j]
	}
	return p
}
