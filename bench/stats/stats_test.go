package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestSummarize(t *testing.T) {
	for _, test := range []struct {
		samples []float64
		want    Summary
	}{
		{[]float64{7}, Summary{Median: 7, Min: 7, Max: 7}},
		{[]float64{3, 1, 2}, Summary{Median: 2, Min: 1, Max: 3}},
		{[]float64{4, 1, 3, 2}, Summary{Median: 2.5, Min: 1, Max: 4}},
		{[]float64{10, 10, 500}, Summary{Median: 10, Min: 10, Max: 500}},
	} {
		if got := Summarize(test.samples); got.Median != test.want.Median || got.Min != test.want.Min || got.Max != test.want.Max {
			t.Errorf("Summarize(%v) = %v, want %v", test.samples, got, test.want)
		}
	}
}

func TestSummarizeLeavesSamplesInOrder(t *testing.T) {
	samples := []float64{3, 1, 2}
	Summarize(samples)
	if samples[0] != 3 || samples[1] != 1 || samples[2] != 2 {
		t.Errorf("samples became %v: rounds no longer match", samples)
	}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	// The machine was half as fast in the second round. The ratio of the
	// medians would be 0.5 as well, but its range would be meaningless.
	got, err := Ratios([]float64{10, 20, 10}, []float64{20, 40, 20})
	if want := (Summary{Median: 0.5, Min: 0.5, Max: 0.5}); err != nil || got.Median != want.Median || got.Min != want.Min || got.Max != want.Max {
		t.Errorf("Ratios = %v, %v, want %v", got, err, want)
	}
}

func TestRatiosRefuseWhatCannotBeDivided(t *testing.T) {
	for _, test := range [][2][]float64{{{1}, {1, 2}}, {{}, {}}, {{1}, {0}}} {
		if got, err := Ratios(test[0], test[1]); err == nil {
			t.Errorf("Ratios(%v, %v) = %v, want an error", test[0], test[1], got)
		}
	}
}

func TestRatiosOfAScaledSeriesAreTheScale(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SliceOfN(rapid.Float64Range(0.1, 1e6), 1, 20).Draw(t, "base")
		scale := rapid.Float64Range(0.01, 100).Draw(t, "scale")
		scaled := make([]float64, len(base))
		for i, b := range base {
			scaled[i] = b * scale
		}
		got, err := Ratios(scaled, base)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []float64{got.Median, got.Min, got.Max} {
			if math.Abs(v/scale-1) > 1e-9 {
				t.Fatalf("Ratios = %v, want %v throughout", got, scale)
			}
		}
	})
}

// TestBoundsEncloseTheMedianAsOftenAsTheySay draws many series from a skewed distribution
// whose median is known.
func TestBoundsEncloseTheMedianAsOftenAsTheySay(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const series = 20_000
	for n, sure := range map[int]float64{1: 0, 5: 0.9375, 6: 0.96875, 9: 0.9609375, 15: 0.96484375} {
		enclosed := 0
		samples := make([]float64, n)
		for range series {
			for i := range samples {
				samples[i] = random.ExpFloat64()
			}
			s := Summarize(samples)
			if math.Abs(s.Sure-sure) > 1e-12 {
				t.Fatalf("%d samples: sure %g, want %g", n, s.Sure, sure)
			}
			if s.Low <= math.Ln2 && math.Ln2 <= s.High {
				enclosed++
			}
		}
		if got := float64(enclosed) / series; math.Abs(got-sure) > 0.01 { // three standard errors are 0.006
			t.Errorf("%d samples: bounds enclose the median in %g of the series, want %g", n, got, sure)
		}
	}
}
