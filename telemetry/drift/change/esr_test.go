package change_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"sluice/telemetry/drift/change"
)

func esr(t testing.TB, base, limit float64, factors []float64) *change.ESR {
	t.Helper()
	d, err := change.NewESR(base, limit, factors)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// alarmAfter returns after how many labels a detector of a 10 % error rate raises an alarm at a true rate, and
// most if it has not by then.
func alarmAfter(d interface{ Add(events, n uint64) bool }, rng *rand.Rand, rate float64, most int) int {
	for i := 1; i <= most; i++ {
		var event uint64
		if rng.Float64() < rate {
			event = 1
		}
		if d.Add(event, 1) {
			return i
		}
	}
	return most
}

// By hand, base ½, one factor of 1.5: L is 1.5 for an event, 0.5 for none.
func TestESRFollowsItsRecursion(t *testing.T) {
	d := esr(t, 0.5, 9, []float64{1.5})
	for i, step := range []struct {
		event uint64
		want  bool // R after it
	}{{1, false} /* 1.5 */, {0, false} /* 1.25 */, {1, false} /* 3.375 */, {1, false} /* 6.5625 */, {1, true} /* 11.34 */, {1, false}} {
		if got := d.Add(step.event, 1); got != step.want {
			t.Errorf("step %d: alarm = %v, want %v", i, got, step.want)
		}
	}
}

// The theorem: on average at least A steps, here A = 2,000, at the rate of before. Runs that are cut at 5A
// count as that long, which only makes the mean smaller.
func TestFalseAlarmsAreAsRareAsTheLimitSays(t *testing.T) {
	t.Parallel()
	const runs, limit = 150, 2000
	for _, base := range []float64{0.01, 0.1, 0.4} {
		rng := rand.New(rand.NewPCG(1, uint64(1000*base)))
		var sum, square float64
		for range runs {
			n := float64(alarmAfter(esr(t, base, limit, change.ErrorFactors), rng, base, 5*limit))
			sum += n
			square += n * n
		}
		mean := sum / runs
		se := math.Sqrt((square/runs - mean*mean) / runs)
		t.Logf("rate %v: mean time to a false alarm %.0f ± %.0f labels, promised %d", base, mean, se, limit)
		if mean+3*se < limit {
			t.Errorf("rate %v: mean time to a false alarm %.0f ± %.0f labels, want at least %d", base, mean, se, limit)
		}
	}
}

// Mean delays from 10 % with A = 10⁵ after 2,000 labels without a change, which an independent simulation
// gave: 2,416, 513, 163, 58.
func TestGrownRatesAreFoundWithinTheStatedLabels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rate, delay float64 }{{0.12, 2416}, {0.15, 513}, {0.2, 163}, {0.3, 58}} {
		rng := rand.New(rand.NewPCG(2, uint64(1000*tt.rate)))
		const runs = 200
		var sum float64
		for range runs {
			d := esr(t, 0.1, 1e5, change.ErrorFactors)
			alarmAfter(d, rng, 0.1, 2000)
			sum += float64(alarmAfter(d, rng, tt.rate, 100_000))
		}
		t.Logf("from 10 %% to %.0f %%: found after %.0f labels on average", 100*tt.rate, sum/runs)
		if got := sum / runs; math.Abs(got-tt.delay) > 0.15*tt.delay {
			t.Errorf("from 10 %% to %.0f %%: found after %.0f labels on average, want about %.0f", 100*tt.rate, got, tt.delay)
		}
	}
}

// Of a field that was never missing in 1,000 rows, the rate with half a count added is 0.0005.
func TestThreeHitsAreEnoughWhereThereWasNone(t *testing.T) {
	d := esr(t, 0.5/1001, 1e5, change.RareFactors)
	var alarms []int
	for i := range 3 {
		if d.Add(1, 1) {
			alarms = append(alarms, i+1)
		}
	}
	if len(alarms) != 1 || alarms[0] != 3 {
		t.Errorf("alarms after hits %v, want one after the third", alarms)
	}
}

func TestWindowsOfAnySizeAreTaken(t *testing.T) {
	d := esr(t, 0.1, 1e5, change.ErrorFactors)
	if d.Add(100_000_000, 1_000_000_000) {
		t.Error("alarm at the rate of before")
	}
	if !d.Add(900_000_000, 1_000_000_000) {
		t.Error("no alarm at nine times the rate")
	}
	if r := d.Reach(); r != 0 {
		t.Errorf("reach after an alarm = %v, want 0", r)
	}
}

func TestReachGrowsTowardsTheLimit(t *testing.T) {
	d := esr(t, 0.1, 1e5, change.ErrorFactors)
	last := d.Reach()
	for range 8 {
		if d.Add(1, 1) {
			t.Fatal("alarm after eight events, want more to be needed")
		}
		if r := d.Reach(); r <= last || r > 1 {
			t.Errorf("reach = %v after %v, want it to grow up to 1", r, last)
		}
		last = d.Reach()
	}
}

func TestRatesThatCannotBeAreRefused(t *testing.T) {
	for _, base := range []float64{0, 1, -0.1, math.NaN()} {
		if _, err := change.NewESR(base, 1e5, change.ErrorFactors); err == nil {
			t.Errorf("base %v was taken", base)
		}
	}
	if _, err := change.NewESR(0.1, 1, change.ErrorFactors); err == nil {
		t.Error("limit 1 was taken")
	}
}
