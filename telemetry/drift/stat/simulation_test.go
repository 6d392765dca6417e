package stat_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"sluice/telemetry/drift/stat"
)

// atMost fails unless hits of n trials, with a 99.9 % lower confidence bound (Clopper and Pearson), leave room
// for a probability of at most most. Seeds are fixed, so the test cannot fail by chance now and then.
func atMost(t *testing.T, what string, hits, n int, most float64) {
	t.Helper()
	lower := 0.0
	if hits > 0 {
		lower = distuv.Beta{Alpha: float64(hits), Beta: float64(n - hits + 1)}.Quantile(0.001)
	}
	t.Logf("%s: %d of %d, promised %.3g", what, hits, n, most)
	if lower > most {
		t.Errorf("%s: %d of %d, at least %.3g with confidence, want at most %.3g", what, hits, n, lower, most)
	}
}

func atLeast(t *testing.T, what string, hits, n int, least float64) {
	t.Helper()
	atMost(t, "not: "+what, n-hits, n, 1-least)
}

// sample draws n values of a normal distribution and counts them.
func sample(rng *rand.Rand, bins stat.Bins, n int, mean, sd float64) []uint64 {
	counts := make([]uint64, bins.Len())
	for range n {
		counts[bins.Index(rng.NormFloat64()*sd+mean)]++
	}
	return counts
}

// learnt draws a reference of a standard normal distribution.
func learnt(rng *rand.Rand, n int) (stat.Bins, []uint64, stat.Groups) {
	values := make([]float64, n)
	for i := range values {
		values[i] = rng.NormFloat64()
	}
	bins, _ := stat.LearnBins(values, stat.MaxBins)
	counts := make([]uint64, bins.Len())
	for _, v := range values {
		counts[bins.Index(v)]++
	}
	return bins, counts, stat.GroupEvenly(counts, 10)
}

// A reference is learnt anew for each trial, since it is chance that made it, too.
func TestWithoutDriftSmallPsAreAsRareAsTheySay(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 0))
	const trials = 3000
	var psi, ks, chi int
	for range trials {
		bins, ref, deciles := learnt(rng, 2000)
		cur := sample(rng, bins, 1000, 0, 1)
		if stat.PSI(deciles.Sum(ref), deciles.Sum(cur)).P <= 0.01 {
			psi++
		}
		if stat.KS(ref, cur).P <= 0.01 {
			ks++
		}
		if stat.ChiSquare(deciles.Sum(ref), deciles.Sum(cur)).P <= 0.01 {
			chi++
		}
	}
	atMost(t, "PSI with P ≤ 0.01", psi, trials, 0.01)
	atMost(t, "KS with P ≤ 0.01", ks, trials, 0.01)
	atMost(t, "χ² with P ≤ 0.01", chi, trials, 0.01)
}

// Half a standard deviation moves the mean of what PSI measures to about 0.25.
func TestAShiftOfHalfAStandardDeviationIsFoundIn500Values(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(12, 0))
	bins, ref, deciles := learnt(rng, 10_000)
	const trials = 300
	var psi, ks int
	for range trials {
		cur := sample(rng, bins, 500, 0.5, 1)
		if stat.PSI(deciles.Sum(ref), deciles.Sum(cur)).P <= 1e-5 {
			psi++
		}
		if stat.KS(ref, cur).P <= 1e-5 {
			ks++
		}
	}
	atLeast(t, "PSI finds it at 1e-5", psi, trials, 0.99)
	atLeast(t, "KS finds it at 1e-5", ks, trials, 0.99)
}

// Calibrated for 1,000 values, judged at 500 and at 5,000.
func TestCalibrationHoldsAtOtherSizes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(13, 0))
	bins, ref, deciles := learnt(rng, 2000)
	spread := func(c []uint64) stat.Spread { return stat.Spread{Counts: c, Min: bins.Min(), Max: bins.Max()} }
	w1 := func(a, b []uint64) float64 { return stat.NormalisedWasserstein(bins, spread(a), spread(b)) }
	js := func(a, b []uint64) float64 { return stat.JensenShannon(deciles.Sum(a), deciles.Sum(b)) }
	psi := func(a, b []uint64) float64 { return stat.PSI(deciles.Sum(a), deciles.Sum(b)).Value }
	nulls := stat.Calibrate(ref, []stat.Statistic{{w1, 0.5}, {js, 0.5}, {psi, 1}}, 2000, 1)
	again := stat.Calibrate(ref, []stat.Statistic{{w1, 0.5}}, 2000, 1)
	if !slices.Equal(nulls[0].Quantiles, again[0].Quantiles) || nulls[0].Tail != again[0].Tail {
		t.Error("the same seed gives another calibration")
	}
	for _, n := range []int{500, 5000} {
		const trials = 1000
		var hits [3]int
		for range trials {
			// The reference is drawn again, too: that is what P is about.
			other, cur := sample(rng, bins, 2000, 0, 1), sample(rng, bins, n, 0, 1)
			for i, v := range []float64{w1(other, cur), js(other, cur), psi(other, cur)} {
				if nulls[i].P(v, 2000, uint64(n)) <= 0.02 {
					hits[i]++
				}
			}
		}
		for i, name := range []string{"W1", "Jensen-Shannon", "PSI"} {
			atMost(t, name+" with P ≤ 0.02", hits[i], trials, 0.02)
			atLeast(t, name+" is not blunt", hits[i], trials, 0.005)
		}
	}
	if p := nulls[0].P(w1(ref, sample(rng, bins, 1000, 0.5, 1)), 2000, 1000); p > 1e-6 {
		t.Errorf("P of W1 half a standard deviation off = %v, want at most 1e-6", p)
	}
}

// The two ways to the same probability, drawing and the formula, agree.
func TestCalibratedPAgreesWithTheFormulas(t *testing.T) {
	t.Parallel()
	ref := []uint64{400, 400, 400, 400, 400, 400, 400, 400, 400, 400}
	value := func(a, b []uint64) float64 { return stat.PSI(a, b).Value }
	null := stat.Calibrate(ref, []stat.Statistic{{value, 1}}, stat.CalibrationDraws, 2)[0]
	for _, tt := range []struct{ p, within float64 }{{0.5, 0.05}, {0.1, 0.1}, {0.01, 0.25}, {1e-3, 0.5}, {1e-4, 0.8}} {
		n, m := 4000.0, 1000.0
		v := (1/n + 1/m) * (distuv.ChiSquared{K: 9}).Quantile(1-tt.p)
		if got := null.P(v, 4000, 1000); math.Abs(got-tt.p) > tt.within*tt.p {
			t.Errorf("P by drawing = %v where χ² says %v", got, tt.p)
		}
	}
}

func TestTheTailsOfKnownDistributionsAreFitted(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(14, 0))
	for _, want := range []stat.Pareto{{Shape: 0.2, Scale: 1.5}, {Shape: 0, Scale: 1}, {Shape: -0.3, Scale: 2}} {
		excess := make([]float64, 20_000)
		for i := range excess {
			excess[i] = want.Quantile(1 - rng.Float64())
		}
		slices.Sort(excess)
		got, ok := stat.FitPareto(excess)
		if !ok || math.Abs(got.Shape-want.Shape) > 0.05 || math.Abs(got.Scale-want.Scale) > 0.1 {
			t.Errorf("fitted %+v, %v to 20,000 draws of %+v", got, ok, want)
		}
	}
	for _, excess := range [][]float64{nil, {1}, {2, 2, 2}} {
		if got, ok := stat.FitPareto(excess); ok {
			t.Errorf("fitted %+v to %v, want no fit", got, excess)
		}
	}
}

func TestNoCalibrationKnowsNoP(t *testing.T) {
	var unknown stat.Null
	if p := unknown.P(1, 100, 100); unknown.Known() || !math.IsNaN(p) {
		t.Errorf("P without calibration = %v, want NaN", p)
	}
	if n := stat.Calibrate([]uint64{0, 0}, []stat.Statistic{{stat.JensenShannon, 0.5}}, 1000, 1); n[0].Known() {
		t.Error("an empty reference was calibrated")
	}
}

// Projections keep the distribution of sums: of independent normals, each is a normal of the same variance.
func TestDirectionsAreFixedAndOfUnitLength(t *testing.T) {
	t.Parallel()
	d, again := stat.NewDirections(16, 50), stat.NewDirections(16, 50)
	unit := make([]float64, 50)
	lengths := make([]float64, 16)
	for j := range unit {
		clear(unit)
		unit[j] = 1
		p := d.Project(nil, unit)
		if !slices.Equal(p, again.Project(nil, unit)) {
			t.Fatal("directions differ from one time to the next")
		}
		for i, v := range p {
			lengths[i] += v * v
		}
	}
	for i, l := range lengths {
		if math.Abs(l-1) > 1e-5 {
			t.Errorf("direction %d has length %v, want 1", i, math.Sqrt(l))
		}
	}
}

// NumPy: row @ W, where W has the projections of the unit vectors in its rows.
func TestProjectionsAreThoseOfNumPy(t *testing.T) {
	t.Parallel()
	few := []float64{33.486822267875226, 79.66054362178257, -50.67257969285689}
	many := []float64{
		11.85772839837794, 2.2411393144360536, -6.142546007096678, -9.924710950012766, -17.956722815168565, -8.051508552842513,
		-17.982495840946513, 2.958859398286707, -13.373116673750417, 0.4534050694413102, 3.9568080185590935, -7.242388573093285,
		0.0890124171462463, -15.460320616356695, -0.432606725443752, -1.8492955341818074,
	}
	row := make([]float64, 100)
	for j := range row {
		row[j] = float64(j * j % 17)
	}
	for _, tt := range []struct{ row, want []float64 }{{[]float64{1, -2, 3.5, 100}, few}, {row, many}} {
		got := stat.NewDirections(len(tt.want), len(tt.row)).Project(nil, tt.row)
		for i, want := range tt.want {
			if math.Abs(got[i]-want) > 1e-9 {
				t.Errorf("projection %d of %d columns = %v, want %v", i, len(tt.row), got[i], want)
			}
		}
	}
}

// The directions of narrower rows are the beginnings of those of wider ones, of unit length again.
func TestNarrowerRowsHaveTheFirstColumns(t *testing.T) {
	t.Parallel()
	d := stat.NewDirections(5, 40)
	wide := make([]float64, 40)
	for j := range 10 {
		wide[j] = float64(j) - 3.5
	}
	long, short := d.Project(nil, wide), d.First(10).Project(nil, wide[:10])
	lengths := make([]float64, 5)
	for j := range 10 {
		unit := make([]float64, 10)
		unit[j] = 1
		for i, v := range d.First(10).Project(nil, unit) {
			lengths[i] += v * v
		}
	}
	for i := range long {
		if math.Abs(lengths[i]-1) > 1e-12 {
			t.Errorf("direction %d of ten columns has length %v, want 1", i, math.Sqrt(lengths[i]))
		}
		if ratio, first := short[i]/long[i], short[0]/long[0]; ratio < 1 || math.Abs(ratio-first) < 1e-12 && i > 0 {
			t.Errorf("direction %d: %v of ten columns, %v of forty", i, short[i], long[i])
		}
	}
	w, row := stat.NewWaves(40), make([]float64, 10)
	a, b := make([]float64, stat.FourierFeatures), make([]float64, stat.FourierFeatures)
	copy(row, wide)
	if !w.Of(a, wide, 3) || !w.First(10).Of(b, row, 3) || !slices.Equal(a, b) {
		t.Error("waves of ten columns are not those of forty of which the others are 0")
	}
}

// Python: the sum of ±(j+1) for j = 0 to 149 by j mod 7, with a minus where bit j mod 64 of the (j div 64)-th number of SplitMix64 is
// set; that begins with 0xe220a8397b1dcdaf.
func TestAFoldAddsColumnsWithTheirSigns(t *testing.T) {
	row, to := make([]float64, 150), []float64{9, 9, 9, 9, 9, 9, 9}
	for j := range row {
		row[j] = float64(j + 1)
	}
	if stat.Fold(to, row); !slices.Equal(to, []float64{103, 111, 167, -524, -473, 408, 175}) {
		t.Errorf("folded %v", to)
	}
}

// Each element of a direction has a mean of 0 and, since there are width of them, a mean square of 1/width; elements of different
// directions have nothing to do with each other.
func TestDirectionsFavourNoColumn(t *testing.T) {
	t.Parallel()
	const count, width = 64, 400
	d := stat.NewDirections(count, width)
	unit, sum := make([]float64, width), 0.0
	products := make([]float64, count-1) // of a direction with the next
	for j := range unit {
		clear(unit)
		unit[j] = 1
		p := d.Project(nil, unit)
		for i, v := range p {
			sum += v
			if i > 0 {
				products[i-1] += v * p[i-1]
			}
		}
	}
	if mean := sum / (count * width); math.Abs(mean) > 4*0.05/math.Sqrt(count*width) {
		t.Errorf("the mean of all elements is %v, want 0", mean)
	}
	for i, p := range products {
		if math.Abs(p) > 5*0.05 {
			t.Errorf("directions %d and %d have an inner product of %v, want next to nothing", i, i+1, p)
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	rng := rand.New(rand.NewPCG(15, 0))
	bins, _, _ := learnt(rng, 10_000)
	values := make([]float64, 4096)
	for i := range values {
		values[i] = rng.NormFloat64()
	}
	counts := make([]uint32, bins.Len())
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		counts[bins.Index(values[i&4095])]++
		i++
	}
}

func BenchmarkCalibrate(b *testing.B) {
	rng := rand.New(rand.NewPCG(16, 0))
	bins, ref, deciles := learnt(rng, 10_000)
	spread := func(c []uint64) stat.Spread { return stat.Spread{Counts: c, Min: bins.Min(), Max: bins.Max()} }
	statistics := []stat.Statistic{
		{func(a, b []uint64) float64 { return stat.NormalisedWasserstein(bins, spread(a), spread(b)) }, 0.5},
		{func(a, b []uint64) float64 { return stat.JensenShannon(deciles.Sum(a), deciles.Sum(b)) }, 0.5},
	}
	for b.Loop() {
		stat.Calibrate(ref, statistics, stat.CalibrationDraws, 1)
	}
}
