package score_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"sluice/telemetry/labels/score"
)

type example struct {
	p           []float64
	best, truth int
	number      float64
}

func count(classes int, examples []example) (*score.Classes, score.Numbers) {
	c := score.NewClasses(classes)
	var n score.Numbers
	for _, e := range examples {
		c.Add(e.best, e.truth)
		c.AddProbabilities(e.p, e.truth)
		n.Add(e.number, float64(e.truth))
	}
	return c, n
}

// Counts of parts, merged in any order, are those of the whole.
func TestMergedPartsAreTheWholeInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := rapid.IntRange(2, 5).Draw(t, "classes")
		seed := congruential(rapid.Uint64().Draw(t, "seed"))
		examples := make([]example, rapid.IntRange(0, 60).Draw(t, "examples"))
		for i := range examples {
			e := &examples[i]
			e.p, e.best, e.truth = predictions(&seed, classes)
			e.number = 1e6 * (seed.next() - 0.5)
		}
		whole, numbers := count(classes, examples)
		parts := rapid.IntRange(1, 4).Draw(t, "parts")
		shares := make([][]example, parts)
		for _, i := range rapid.Permutation(indices(len(examples))).Draw(t, "order") {
			k := rapid.IntRange(0, parts-1).Draw(t, "part")
			shares[k] = append(shares[k], examples[i])
		}
		merged, sum := count(classes, nil)
		for _, k := range rapid.Permutation(indices(parts)).Draw(t, "merging") {
			c, n := count(classes, shares[k])
			merged.Merge(c)
			sum.Merge(n)
		}
		if !reflect.DeepEqual(merged.Confusion, whole.Confusion) || !reflect.DeepEqual(merged.Ranks, whole.Ranks) {
			t.Fatal("counts of merged parts are not those of the whole")
		}
		for what, pair := range map[string][2]float64{
			"log-loss": {merged.LogLoss.Average(), whole.LogLoss.Average()}, "Brier": {merged.Brier.Average(), whole.Brier.Average()},
			"spread of log-loss": {merged.LogLoss.Variance(), whole.LogLoss.Variance()},
			"calibration error":  {merged.Calibration.Error(), whole.Calibration.Error()},
			"RMSE":               {sum.RMSE(), numbers.RMSE()}, "MAE": {sum.MAE(), numbers.MAE()}, "bias": {sum.Bias(), numbers.Bias()},
		} {
			a, b := pair[0], pair[1]
			if math.IsNaN(a) != math.IsNaN(b) || math.Abs(a-b) > 1e-9*(1+math.Abs(b)) {
				t.Fatalf("%s of merged parts = %v, want that of the whole, %v", what, a, b)
			}
		}
	})
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Whatever is counted, shares are shares, and turning the classes of two around turns the area around.
func TestScoresStayWithinTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := congruential(rapid.Uint64().Draw(t, "seed"))
		var there, back score.Ranks
		c := score.NewClasses(2)
		for range rapid.IntRange(2, 200).Draw(t, "examples") {
			p, best, truth := predictions(&seed, 2)
			c.Add(best, truth)
			c.AddProbabilities(p, truth)
			there.Add(p[1], truth == 1)
			back.Add(p[1], truth == 0)
		}
		auc, bound := c.AUC()
		for what, v := range map[string]float64{"accuracy": c.Accuracy(), "F1": c.F1(0), "macro F1": c.MacroF1(), "Brier": c.Brier.Average(), "AUC": auc, "bound": bound} {
			if v < 0 || v > 1 {
				t.Fatalf("%s = %v, want 0 to 1", what, v)
			}
		}
		a, _ := there.AUC()
		b, _ := back.AUC()
		if math.Abs(a+b-1) > 1e-12 {
			t.Fatalf("areas %v and %v of a class and of the other, want their sum to be 1", a, b)
		}
	})
}

// Two arms with the same rate, the canary with one call in ten, are looked at after every 50 labels: the true
// difference is outside of the interval at any look in at most 5 of 100 runs.
func TestDifferenceHoldsHoweverOftenOneLooks(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.02, 0.1, 0.5} {
		const runs, labels = 600, 10_000
		missed := 0
		rng := rand.New(rand.NewPCG(1, uint64(1000*rate)))
		for range runs {
			var arms [2]score.Moments
			for i := range labels {
				arm := 0
				if rng.Float64() < 0.1 {
					arm = 1
				}
				x := 0.0
				if rng.Float64() < rate {
					x = 1
				}
				arms[arm].Add(x)
				if i%50 == 49 {
					if _, in := score.Difference(arms[0], arms[1], 1, 0.05); in.Low > 0 || in.High < 0 {
						missed++
						break
					}
				}
			}
		}
		t.Logf("rate %v: in %d of %d runs the interval was wrong once", rate, missed, runs)
		if missed > runs/20 {
			t.Errorf("rate %v: in %d of %d runs the interval was wrong once, want at most %d", rate, missed, runs, runs/20)
		}
	}
}

// With twice the error rate of stable in the canary, 10 % against 20 %, the interval leaves 0 within 6,000 labels.
func TestDifferenceSeesAWorseCanary(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	const runs = 100
	found := 0
	for range runs {
		var arms [2]score.Moments
		for range 6000 {
			arm, rate := 0, 0.1
			if rng.Float64() < 0.1 {
				arm, rate = 1, 0.2
			}
			x := 0.0
			if rng.Float64() < rate {
				x = 1
			}
			arms[arm].Add(x)
		}
		if _, in := score.Difference(arms[0], arms[1], 1, 0.05); in.Low > 0 {
			found++
		}
	}
	if found < 90 {
		t.Errorf("found in %d of %d runs, want at least 90", found, runs)
	}
}
