package stat_test

import (
	"math"
	"testing"

	"sluice/telemetry/drift/stat"
)

// Two samples of 1,000 and 750 values in ten cells. The values expected of them below were computed by
// SciPy 1.17.1, by the functions named there.
var (
	refCounts = []uint64{200, 150, 120, 80, 60, 90, 110, 70, 70, 50}
	curCounts = []uint64{60, 90, 100, 110, 95, 85, 80, 70, 40, 20}
)

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-10*math.Abs(want)+1e-15 {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// NumPy from the formula; chi2.sf.
func TestPSIIsThatOfTheFormula(t *testing.T) {
	r := stat.PSI(refCounts, curCounts)
	near(t, "PSI", r.Value, 0.23678391312162894)
	near(t, "its P", r.P, 7.899655936818607e-18)
}

// chi2_contingency without correction, of the table with the cells pooled that expect fewer than five.
func TestChiSquareIsPearsons(t *testing.T) {
	tests := []struct {
		name     string
		ref, cur []uint64
		value, p float64
	}{
		{"all cells are large", refCounts, curCounts, 97.0273905141265, 6.272698529446586e-17},
		{"small cells are pooled", []uint64{300, 120, 3, 40, 1, 0}, []uint64{140, 80, 6, 20, 0, 2},
			4.635947910697633, 0.0984728941126187},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := stat.ChiSquare(tt.ref, tt.cur)
			near(t, "χ²", r.Value, tt.value)
			near(t, "its P", r.P, tt.p)
		})
	}
}

func TestKSIsExactForFewAndKolmogorovsForMany(t *testing.T) {
	tests := []struct {
		name     string
		ref, cur []uint64
		value, p float64
	}{
		// special.kolmogorov of Stephens' argument.
		{"many", refCounts, curCounts, 0.15, 6.662606898813043e-09},
		// ks_2samp(method="exact").
		{"few, unequal sizes", []uint64{3, 2, 4, 1, 0, 5, 2}, []uint64{1, 1, 2, 6, 4, 3, 1}, 0.30718954248366015, 0.3170863103275166},
		{"few, far apart", []uint64{7, 1, 0, 0}, []uint64{0, 2, 3, 4}, 0.875, 0.0013986013986013986},
		// Tables of the two-sample test, as in Massey 1951, give 0.0525 and 0.0123.
		{"ten against ten, six apart", []uint64{6, 0, 4}, []uint64{0, 10, 0}, 0.6, 0.05244755244755244},
		{"ten against ten, seven apart", []uint64{7, 0, 3}, []uint64{0, 10, 0}, 0.7, 0.012340600575894691},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := stat.KS(tt.ref, tt.cur)
			near(t, "D", r.Value, tt.value)
			near(t, "its P", r.P, tt.p)
		})
	}
}

// spatial.distance.jensenshannon of base 2; NumPy from the formulas.
func TestDistancesAreThoseOfTheFormulas(t *testing.T) {
	near(t, "Jensen-Shannon", stat.JensenShannon(refCounts, curCounts), 0.2053989956317523)
	near(t, "L∞", stat.LInfinity(refCounts, curCounts), 0.12)
	near(t, "Hellinger", stat.Hellinger(refCounts, curCounts), 0.17203131121643483)
}

// NumPy: the trapezoidal rule over four million points of the interpolated distributions.
func TestWassersteinIsTheAreaBetween(t *testing.T) {
	bins := stat.Bins{Edges: []float64{-1, 0, 1, 2.5, 4}, SD: 0.5}
	ref := stat.Spread{Counts: []uint64{0, 10, 20, 30, 40, 0}, Min: -1, Max: 4}
	cur := stat.Spread{Counts: []uint64{5, 10, 10, 30, 30, 15}, Min: -3, Max: 7}
	near(t, "W1", stat.Wasserstein(bins, ref, cur), 0.575)
	near(t, "W1 in standard deviations", stat.NormalisedWasserstein(bins, ref, cur), 1.15)
	far := stat.Spread{Counts: []uint64{0, 0, 0, 0, 0, 1}, Min: 9, Max: 9}
	// All of ref, whose mean is 0.1·-½ + 0.2·½ + 0.3·1¾ + 0.4·3¼ = 1.875, moves to between 4 and 9.
	near(t, "W1 to what lies outside", stat.Wasserstein(bins, ref, far), 6.5-1.875)
}

// genpareto.sf and isf.
func TestParetoIsTheGeneralisedOne(t *testing.T) {
	tests := []struct {
		p               stat.Pareto
		x, tail, isf001 float64
	}{
		{stat.Pareto{Shape: 0.2, Scale: 1.5}, 3, 0.18593443208187063, 11.33914823632185},
		{stat.Pareto{Shape: -0.3, Scale: 2}, 4, 0.047155603182596956, 4.992075712326947},
		{stat.Pareto{Shape: 0, Scale: 1}, 2.5, 0.0820849986238988, 4.605170185988091},
	}
	for _, tt := range tests {
		near(t, "survival", tt.p.Survival(tt.x), tt.tail)
		near(t, "quantile", tt.p.Quantile(0.01), tt.isf001)
	}
	if got := (stat.Pareto{Shape: -0.3, Scale: 2}).Survival(7); got != 0 {
		t.Errorf("survival beyond the end of a distribution that has one = %v, want 0", got)
	}
}

// Quantiles of 200,000 pairs of samples, of 1,000 and 750 values, that NumPy has drawn (multinomial) from the smoothed shares of
// refCounts: the distance's and the area's formulas over arrays. Drawing 10,000 of its own, for windows of 1,000, the calibration
// finds their probabilities.
func TestCalibrationFindsTheProbabilitiesThatNumPyDraws(t *testing.T) {
	t.Parallel()
	nulls := stat.Calibrate(refCounts, []stat.Statistic{{Of: stat.JensenShannon, Order: 0.5}, {Of: wasserstein, Order: 0.5}}, stat.CalibrationDraws, 3)
	for _, tt := range []struct{ p, within, js, w1 float64 }{
		{0.5, 0.05, 0.05941007883662819, 0.12411518166742083},
		{0.05, 0.15, 0.08455226786508109, 0.2781364898989901},
		{0.01, 0.35, 0.0959326382273668, 0.36300000000000016},
		{0.001, 0.7, 0.10846760735874836, 0.4673336666666629},
	} {
		for i, v := range []float64{tt.js, tt.w1} {
			if got := nulls[i].P(v, 1000, 750); math.Abs(got-tt.p) > tt.within*tt.p {
				t.Errorf("P of %s %v = %.5f, want %v", []string{"Jensen-Shannon", "W1"}[i], v, got, tt.p)
			}
		}
	}
}

// SciPy's false_discovery_control; Holm's by hand: 6·0.005, 5·0.01, 4·0.011 (less than the one before), 3·0.03,
// 2·0.04 (less than the one before), 0.2.
func TestManyTestsAreAdjustedTogether(t *testing.T) {
	p := []float64{0.01, 0.04, 0.03, 0.005, math.NaN(), 0.2, 0.011}
	holm := []float64{0.05, 0.09, 0.09, 0.03, math.NaN(), 0.2, 0.05}
	bh := []float64{0.022, 0.048, 0.045, 0.022, math.NaN(), 0.2, 0.022}
	gotHolm, gotBH := stat.Holm(p), stat.BenjaminiHochberg(p)
	for i := range p {
		if i == 4 {
			if !math.IsNaN(gotHolm[i]) || !math.IsNaN(gotBH[i]) {
				t.Errorf("adjusted NaN = %v and %v, want NaN", gotHolm[i], gotBH[i])
			}
			continue
		}
		near(t, "Holm", gotHolm[i], holm[i])
		near(t, "Benjamini-Hochberg", gotBH[i], bh[i])
	}
}
