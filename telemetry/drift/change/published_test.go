package change_test

import (
	"fmt"
	"testing"

	"sluice/telemetry/drift/change"
)

// congruential is Knuth's linear congruential generator, which is a line in any language: the streams below were
// made anew in Python and given to river 0.26.1.
type congruential uint64

func (c *congruential) outcome(rate float64) float64 {
	*c = *c*6364136223846793005 + 1442695040888963407
	if float64(*c>>11)/(1<<53) < rate {
		return 1
	}
	return 0
}

// alarmsOf returns at which outcomes a detector raises alarms; each rate holds for as many outcomes.
func alarmsOf(observe func(float64) bool, seed congruential, each int, rates ...float64) (at []int) {
	for i := range each * len(rates) {
		if observe(seed.outcome(rates[i/each])) {
			at = append(at, i+1)
		}
	}
	return at
}

// river's PageHinkley(min_instances=30, delta=0.005, threshold=50, alpha=1, mode="up").
func TestPageHinkleyAgreesWithRiver(t *testing.T) {
	for _, tt := range []struct {
		seed  congruential
		each  int
		rates []float64
		want  string
	}{
		{1, 3000, []float64{0.1, 0.3}, "[3308]"},
		{2, 3000, []float64{0.1, 0.3}, "[3152]"},
		{1, 2000, []float64{0.05, 0.5, 0.2}, "[2122]"},
		{2, 2000, []float64{0.05, 0.5, 0.2}, "[2123]"},
		{1, 5000, []float64{0.2, 0.2}, "[]"},
		{2, 5000, []float64{0.2, 0.2}, "[4422]"},
		{1, 20000, []float64{0.1, 0.15}, "[20744]"},
		{2, 20000, []float64{0.1, 0.15}, "[20591 39090]"},
	} {
		if got := fmt.Sprint(alarmsOf(change.NewPageHinkley(0.005, 50).Observe, tt.seed, tt.each, tt.rates...)); got != tt.want {
			t.Errorf("rates %v, seed %d: alarms at %s, want %s", tt.rates, tt.seed, got, tt.want)
		}
	}
}

// river's ADWIN(delta=0.002). It makes small parts of a window count for less than the paper does, so that it may be
// one look, 32 outcomes, later.
func TestADWINAgreesWithRiver(t *testing.T) {
	for _, tt := range []struct {
		seed  congruential
		each  int
		rates []float64
		want  int // 0: no alarm
	}{
		{1, 3000, []float64{0.1, 0.3}, 3200},
		{2, 3000, []float64{0.1, 0.3}, 3136},
		{1, 2000, []float64{0.05, 0.5, 0.2}, 2048},
		{2, 2000, []float64{0.05, 0.5, 0.2}, 2048},
		{1, 5000, []float64{0.2, 0.2}, 0},
		{2, 5000, []float64{0.2, 0.2}, 0},
		{1, 20000, []float64{0.1, 0.15}, 21024},
		{2, 20000, []float64{0.1, 0.15}, 20288},
	} {
		got := 0
		if at := alarmsOf(change.NewADWIN(0.002).Observe, tt.seed, tt.each, tt.rates...); len(at) > 0 {
			got = at[0]
		}
		if got > tt.want || got < tt.want-32 {
			t.Errorf("rates %v, seed %d: first alarm at %d, want %d or one look before", tt.rates, tt.seed, got, tt.want)
		}
	}
}

func TestADWINSaysNothingOfWhatGetsBetter(t *testing.T) {
	a := change.NewADWIN(0.002)
	if at := alarmsOf(a.Observe, 3, 4000, 0.4, 0.1); len(at) > 0 {
		t.Errorf("alarms at %v, want none where the rate falls", at)
	}
	if w, m := a.Width(), a.Mean(); w > 5000 || m > 0.15 {
		t.Errorf("window of %d outcomes with mean %v, want it to have dropped the time before", w, m)
	}
}

func TestADWINKeepsTheWholeWindowInFewBuckets(t *testing.T) {
	a := change.NewADWIN(1e-9)
	alarmsOf(a.Observe, 4, 200_000, 0.3)
	if a.Width() != 200_000 {
		t.Fatalf("window of %d outcomes, want all 200000", a.Width())
	}
	if m := a.Mean(); m < 0.295 || m > 0.305 {
		t.Errorf("mean %v, want about 0.3", m)
	}
	if n := a.Buckets(); n > 5*18 {
		t.Errorf("%d buckets, want at most 5 for each doubling", n)
	}
}

// What several gateways have counted comes as sums, and is taken as if it had come evenly.
func TestSumsAreSpreadEvenly(t *testing.T) {
	sums := change.NewPageHinkley(0.005, 20)
	for range 100 {
		if sums.Add(2, 20) {
			t.Fatal("alarm at the rate of before")
		}
	}
	alarm := false
	for range 10 {
		alarm = alarm || sums.Add(10, 20)
	}
	if !alarm {
		t.Error("no alarm at five times the rate")
	}
	if sums.Add(7, 5) {
		t.Error("more events than outcomes raise an alarm")
	}
}

// A sum that nobody can have counted does not keep whoever adds it busy for ever.
func TestEnormousSumsTakeNoTime(t *testing.T) {
	for name, d := range map[string]change.Detector{"ADWIN": change.NewADWIN(0.002), "Page-Hinkley": change.NewPageHinkley(0.005, 50)} {
		d.Add(100, 1000)
		if !d.Add(1<<59, 1<<60) {
			t.Errorf("%s: no alarm at five times the rate", name)
		}
	}
}
