package stat_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/telemetry/drift/stat"
)

// knownWaves are those of the script below, and of no chance: w = 1.3·sin(1+3i+7j), b = i/20.
func knownWaves() *stat.Waves {
	w := &stat.Waves{Width: 3, Stride: 3}
	for i := range stat.FourierFeatures {
		for j := range 3 {
			w.Frequencies = append(w.Frequencies, 1.3*math.Sin(float64(1+3*i+7*j)))
		}
		w.Phases = append(w.Phases, float64(i)/20)
	}
	return w
}

// knownRows are sin(i·(j+1)) for i from from to to, with some more in the middle column.
func knownRows(from, to int, more float64) (rows [][]float64) {
	for i := from; i < to; i++ {
		rows = append(rows, []float64{math.Sin(float64(i)), math.Sin(float64(2*i)) + more, math.Sin(float64(3 * i))})
	}
	return rows
}

// featuresOf says of each row what its waves say.
func featuresOf(t testing.TB, w *stat.Waves, rows [][]float64, bandwidth float64) [][]float64 {
	all := make([][]float64, len(rows))
	for i, row := range rows {
		all[i] = make([]float64, stat.FourierFeatures)
		if !w.Of(all[i], row, bandwidth) {
			t.Fatalf("row %v has no features", row)
		}
	}
	return all
}

func embeddingOf(features [][]float64) stat.Embedding {
	e := stat.NewEmbedding()
	for _, f := range features {
		e.Add(f)
	}
	return e
}

// NumPy 2.4.6, with W, b and rows x and y of the formulas above: s = median(pdist(x)); phi = sqrt(2/128)·cos(r @ W.T / s + b); the
// squared norm of phi(x).mean(0) − phi(y).mean(0); the trace of cov(phi(x).T, bias=True).
func TestMMDIsTheDistanceBetweenMeanFeatures(t *testing.T) {
	x, y := knownRows(0, 40, 0), knownRows(7, 37, 0.5)
	bandwidth := stat.MedianDistance(x)
	near(t, "median distance", bandwidth, 1.6920403387770913)
	near(t, "median distance of three rows", stat.MedianDistance(x[:3]), 1.2469202401838677)
	near(t, "median distance of four rows", stat.MedianDistance(x[:4]), 1.2312521996655876)
	px, py := featuresOf(t, knownWaves(), x, bandwidth), featuresOf(t, knownWaves(), y, bandwidth)
	for i, want := range map[int]float64{0: 0.75928754, 1: 0.79588266, 127: 0.47853544} {
		if math.Abs(px[5][i]-want) > 1e-8 {
			t.Errorf("feature %d of row 5 = %v, want %v", i, px[5][i], want)
		}
	}
	ex, ey := embeddingOf(px), embeddingOf(py)
	for _, tt := range []struct {
		what      string
		got, want float64
	}{
		{"MMD²", stat.SquaredMMD(ex, ey), 0.04605064176097443},
		{"spread", ex.Spread(), 0.3622702209412453},
		{"MMD in standard deviations", stat.NormalisedMMD(ex, ey), 0.26226607817243625},
	} {
		if math.Abs(tt.got-tt.want) > 1e-7 { // sums are rounded to 2⁻²⁴
			t.Errorf("%s = %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

// Quantiles of 200,000 pairs of samples, of 1,000 and 750 rows, that NumPy has drawn from the 40 rows x above (multinomial).
func TestCalibrationOfMMDFindsTheProbabilitiesThatNumPyDraws(t *testing.T) {
	t.Parallel()
	null := stat.CalibrateMMD(featuresOf(t, knownWaves(), knownRows(0, 40, 0), 1.6920403387770913), stat.CalibrationDraws, 3)
	for _, tt := range []struct{ p, within, mmd float64 }{
		{0.5, 0.05, 0.0006339470615658481},
		{0.05, 0.15, 0.0022847662644859944},
		{0.01, 0.35, 0.0034899314122488123},
		{0.001, 0.7, 0.005326040766528807},
	} {
		if got := null.P(tt.mmd, 1000, 750); math.Abs(got-tt.p) > tt.within*tt.p {
			t.Errorf("P of MMD² %v = %.5f, want %v", tt.mmd, got, tt.p)
		}
	}
}

// The kernel's own estimate, over all pairs of rows: mean k(x,x') + mean k(y,y') − 2·mean k(x,y).
func TestWavesStandForTheGaussianKernel(t *testing.T) {
	t.Parallel()
	const width, bandwidth = 70, 11.0
	rng := rand.New(rand.NewPCG(41, 0))
	x, y := normalRows(rng, 300, width, 0), normalRows(rng, 300, width, 0.4)
	kernel := func(a, b [][]float64) float64 {
		var sum float64
		for _, r := range a {
			for _, s := range b {
				var square float64
				for j := range r {
					square += (r[j] - s[j]) * (r[j] - s[j])
				}
				sum += math.Exp(-square / (2 * bandwidth * bandwidth))
			}
		}
		return sum / float64(len(a)*len(b))
	}
	exact := kernel(x, x) + kernel(y, y) - 2*kernel(x, y)
	w := stat.NewWaves(width)
	got := stat.SquaredMMD(embeddingOf(featuresOf(t, w, x, bandwidth)), embeddingOf(featuresOf(t, w, y, bandwidth)))
	if math.Abs(got-exact) > 0.25*exact { // 1/√128, and as much again
		t.Errorf("MMD² by 128 waves = %v, by the kernel %v", got, exact)
	}
}

// normalRows draws rows of independent normal columns.
func normalRows(rng *rand.Rand, n, width int, mean float64) [][]float64 {
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = make([]float64, width)
		for j := range rows[i] {
			rows[i][j] = rng.NormFloat64() + mean
		}
	}
	return rows
}

// twoEmbeddings draws the features of two samples of one to fifty rows.
func twoEmbeddings(t *rapid.T) (a, b [][]float64) {
	w := stat.NewWaves(3)
	row := rapid.SliceOfN(rapid.Float64Range(-1e3, 1e3), 3, 3)
	draw := func(name string) (all [][]float64) {
		for _, r := range rapid.SliceOfN(row, 1, 50).Draw(t, name) {
			features := make([]float64, stat.FourierFeatures)
			if !w.Of(features, r, 2) {
				t.Fatalf("row %v has no features", r)
			}
			all = append(all, features)
		}
		return all
	}
	return draw("a"), draw("b")
}

func TestMMDIsSymmetricAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fa, fb := twoEmbeddings(t)
		a, b := embeddingOf(fa), embeddingOf(fb)
		ab, ba := stat.SquaredMMD(a, b), stat.SquaredMMD(b, a)
		if ab != ba || ab < 0 || ab > 8 {
			t.Errorf("MMD² is %v one way and %v the other, want one number from 0 to 8", ab, ba)
		}
		if s := a.Spread(); s < 0 || s > 2 {
			t.Errorf("spread %v, want 0 to 2", s)
		}
		if d := stat.SquaredMMD(a, a); d != 0 {
			t.Errorf("MMD² of a sample and itself = %v, want 0", d)
		}
		if !a.Valid() || !b.Valid() {
			t.Error("embeddings of rows are not valid")
		}
	})
}

// Whatever the order of rows, and however they are divided.
func TestEmbeddingsOfPartsAddUpExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		features, _ := twoEmbeddings(t)
		whole := embeddingOf(features)
		parts := [3]stat.Embedding{stat.NewEmbedding(), stat.NewEmbedding(), stat.NewEmbedding()}
		for _, f := range rapid.Permutation(features).Draw(t, "order") {
			parts[rapid.IntRange(0, 2).Draw(t, "part")].Add(f)
		}
		sum := stat.NewEmbedding()
		for _, p := range rapid.Permutation(parts[:]).Draw(t, "order of parts") {
			sum.Merge(p)
		}
		if sum.Rows != whole.Rows || sum.Square != whole.Square || !slices.Equal(sum.Sums, whole.Sums) {
			t.Errorf("parts add up to %v, want %v", sum, whole)
		}
		sum.Reset()
		if sum.Rows != 0 || sum.Square != 0 || slices.Max(sum.Sums) != 0 || slices.Min(sum.Sums) != 0 {
			t.Errorf("after a reset, %v", sum)
		}
	})
}

func TestEmbeddingsThatCannotBeAreNotValid(t *testing.T) {
	good := func() stat.Embedding {
		return embeddingOf(featuresOf(t, knownWaves(), knownRows(0, 9, 0), 1))
	}
	if !good().Valid() {
		t.Fatal("one of nine rows is not valid")
	}
	for name, spoil := range map[string]func(*stat.Embedding){
		"fewer rows than sums":    func(e *stat.Embedding) { e.Rows = 1 },
		"too few sums":            func(e *stat.Embedding) { e.Sums = e.Sums[1:] },
		"a sum too small":         func(e *stat.Embedding) { e.Sums[3] = math.MinInt64 },
		"a sum too large":         func(e *stat.Embedding) { e.Sums[3] = 9<<24 + 1 },
		"a square below 0":        func(e *stat.Embedding) { e.Square = -1 },
		"a square too large":      func(e *stat.Embedding) { e.Square = 18<<24 + 1 },
		"more rows than counters": func(e *stat.Embedding) { e.Rows = 1<<32 + 1 },
	} {
		e := good()
		if spoil(&e); e.Valid() {
			t.Errorf("%s: %v is valid", name, e)
		}
	}
}

func TestRowsWithoutFeaturesAndSamplesWithoutRows(t *testing.T) {
	w, to := stat.NewWaves(2), make([]float64, stat.FourierFeatures)
	for _, row := range [][]float64{{math.NaN(), 0}, {0, math.Inf(1)}, {math.Inf(-1), math.Inf(1)}, {math.MaxFloat64, math.MaxFloat64}} {
		if w.Of(to, row, 1) {
			t.Errorf("row %v has features", row)
		}
	}
	if w.Of(to, []float64{1e100, -1e100}, 1); slices.ContainsFunc(to, func(v float64) bool { return !(v >= -1 && v <= 1) }) {
		t.Errorf("features of a large row: %v, want cosines", to)
	}
	some, empty := embeddingOf(featuresOf(t, w, [][]float64{{1, 2}, {3, 4}}, 1)), stat.NewEmbedding()
	if v := stat.SquaredMMD(some, empty); !math.IsNaN(v) {
		t.Errorf("MMD² of an empty window = %v, want NaN", v)
	}
	if v := stat.NormalisedMMD(empty, some); !math.IsNaN(v) {
		t.Errorf("MMD of an empty reference = %v, want NaN", v)
	}
	if v := stat.MedianDistance([][]float64{{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 4}}); v != 3 {
		t.Errorf("bandwidth where most rows are alike = %v, want the distance of the other, 3", v)
	}
	for _, rows := range [][][]float64{nil, {{1, 1}}, {{1, 1}, {1, 1}}} {
		if v := stat.MedianDistance(rows); v != 1 {
			t.Errorf("bandwidth of %v = %v, want 1", rows, v)
		}
	}
	if null := stat.CalibrateMMD(nil, stat.CalibrationDraws, 1); null.Known() {
		t.Error("a calibration without rows knows something")
	}
	// Of a constant, anything else is far.
	same, other := embeddingOf(featuresOf(t, w, slices.Repeat([][]float64{{1, 2}}, 500), 1)), embeddingOf(featuresOf(t, w, [][]float64{{1, 2.5}}, 1))
	if v := stat.NormalisedMMD(same, other); !(v > 100 && v < 1e4) {
		t.Errorf("MMD to a constant = %v, want a large number", v)
	}
}

// wideReference learns what a gateway would of rows of independent normal columns.
type wideReference struct {
	waves     *stat.Waves
	bandwidth float64
	all       stat.Embedding
	null      stat.Null
}

func learnWide(t testing.TB, rng *rand.Rand, width, n, draws int) wideReference {
	rows := normalRows(rng, n, width, 0)
	r := wideReference{waves: stat.NewWaves(width), bandwidth: stat.MedianDistance(rows[:200])}
	features := featuresOf(t, r.waves, rows, r.bandwidth)
	r.all, r.null = embeddingOf(features), stat.CalibrateMMD(features[:500], draws, 1)
	return r
}

func (r wideReference) p(t testing.TB, rows [][]float64) (p, mmd float64) {
	cur := embeddingOf(featuresOf(t, r.waves, rows, r.bandwidth))
	return r.null.P(stat.SquaredMMD(r.all, cur), r.all.Rows, cur.Rows), stat.NormalisedMMD(r.all, cur)
}

// Every trial learns a reference of its own, since that is a sample, too.
func TestWithoutDriftSmallPsOfMMDAreAsRareAsTheySay(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(42, 0))
	const trials = 200
	var hits int
	for range trials {
		r := learnWide(t, rng, 20, 1000, 500)
		p, mmd := r.p(t, normalRows(rng, 600, 20, 0))
		if p <= 0.05 {
			hits++
		}
		if mmd > 0.15 {
			t.Errorf("MMD of two samples of one distribution = %.3f, want next to nothing", mmd)
		}
	}
	atMost(t, "MMD with P ≤ 0.05", hits, trials, 0.05)
	atLeast(t, "MMD is not blunt", hits, trials, 0.02)
}

// A quarter of a standard deviation in every column is 0.2 and more in the space of the kernel.
func TestAShiftOfWideRowsIsFoundIn500Rows(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(43, 0))
	r := learnWide(t, rng, 100, 2000, 2000)
	const trials = 100
	var found int
	for range trials {
		if p, mmd := r.p(t, normalRows(rng, 500, 100, 0.25)); p <= 1e-5 && mmd >= 0.2 && mmd < 0.3 {
			found++
		}
	}
	atLeast(t, "MMD finds it at 1e-5", found, trials, 0.95)
}

func BenchmarkWaves(b *testing.B) {
	w := stat.NewWaves(1024)
	row := normalRows(rand.New(rand.NewPCG(44, 0)), 1, 1024, 0)[0]
	to := make([]float64, stat.FourierFeatures)
	b.ReportAllocs()
	for b.Loop() {
		w.Of(to, row, 45)
	}
}

func BenchmarkCalibrateMMD(b *testing.B) {
	features := featuresOf(b, stat.NewWaves(8), normalRows(rand.New(rand.NewPCG(45, 0)), 500, 8, 0), 4)
	for b.Loop() {
		stat.CalibrateMMD(features, stat.CalibrationDraws, 1)
	}
}
