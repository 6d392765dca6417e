package drift_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift"
)

// Stable and canary have references of their own, by other cells. Each case is told apart from all others.
func TestTheWorldMovingIsToldFromModelsThatDiffer(t *testing.T) {
	t.Parallel()
	warmer := func(s *sample) { s.row[1] += 0.6 }
	yes := func(s *sample) { s.answer = "yes" }
	for _, tt := range []struct {
		name           string
		stable, canary func(*sample)
		samples        int  // of the canary
		warm           bool // the canary's reference has been warm already
		verdict        drift.Verdict
		moved, unlike  []string
	}{
		{"nothing", nil, nil, 2000, false, drift.Unmoved, nil, nil},
		{"the world", warmer, warmer, 2000, false, drift.WorldMoved, []string{"b"}, nil},
		{"the model", nil, yes, 2000, false, drift.ModelsDiffer, nil, []string{"output.y"}},
		{"both", warmer, func(s *sample) { warmer(s); yes(s) }, 2000, false, drift.BothMoved, []string{"b"}, []string{"output.y"}},
		{"the traffic", nil, func(s *sample) { warmer(s); yes(s) }, 2000, false, drift.TrafficDiffers, nil, []string{"b"}},
		{"one that knows it already", warmer, warmer, 2000, true, drift.Unmoved, nil, nil},
		{"too few to tell", warmer, func(s *sample) { warmer(s); yes(s) }, 400, false, drift.Unknown, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t, 1, nil)
				m := g.all[0]
				canary := drift.Key{Model: key.Model, Version: "v2"}
				g.put(normal(t, 31, 5000))
				other := normal(t, 32, 5000)
				other.Version = canary.Version
				if tt.warm {
					other.Features[1] = normalFeature(t, "b", 37, 0.6)
				}
				g.put(other)
				m.Watch(key, settings(), "")
				v2 := m.Watch(canary, settings(), "")
				toWindow(window)
				rng := rand.New(rand.NewPCG(33, 0))
				every := 2000 / tt.samples
				n := 0
				g.send(rng, 2000, window, func(s *sample) {
					if n++; n%every == 0 {
						c := &sample{row: []float64{rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64()}, answer: answerOf(rng)}
						if tt.canary != nil {
							tt.canary(c)
						}
						v2.Offer(uint64(n), c)
					}
					if tt.stable != nil {
						tt.stable(s)
					}
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				c := m.Contrast(key.Model, "v1", "v2")
				var unlike []string
				for _, u := range c.Unlike {
					unlike = append(unlike, u.Feature)
				}
				if c.Verdict != tt.verdict || !slices.Equal(c.Moved, tt.moved) || !slices.Equal(unlike, tt.unlike) {
					t.Errorf("verdict %q, moved %v, unlike %+v; want %q, %v, %v", c.Verdict, c.Moved, c.Unlike, tt.verdict, tt.moved, tt.unlike)
				}
			})
		})
	}
}

// normalFeature is that of 5,000 numbers with a mean.
func normalFeature(t *testing.T, name string, seed uint64, mean float64) *driftv1.Feature {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	var c drift.Column
	for range 5000 {
		c.Number(rng.NormFloat64() + mean)
	}
	f, ok := c.Feature(name)
	if !ok {
		t.Fatal("nothing learnt")
	}
	return f
}

func TestVersionsWithoutACommonWindowAreNotSetAgainstEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		g.put(normal(t, 34, 5000))
		g.all[0].Watch(key, settings(), "")
		toWindow(window)
		g.send(rand.New(rand.NewPCG(35, 0)), 1000, window, nil)
		time.Sleep(time.Minute)
		for _, other := range []string{"v2", "nobody"} {
			if c := g.all[0].Contrast(key.Model, "v1", other); c.Verdict != drift.Unknown {
				t.Errorf("against %s: %q, want that nothing is known", other, c.Verdict)
			}
		}
	})
}

// Names that somebody sent may be shown, but are no labels.
func TestOnlyNamesOfOperatorsLabelMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		m := g.all[0]
		s := settings()
		s.Learn, s.Columns = 600, map[string][]string{"x": {"a", "b"}} // the third column has no name
		v := m.Watch(key, s, "")
		rng := rand.New(rand.NewPCG(36, 0))
		feed := func() {
			for i := range 700 {
				v.Offer(uint64(i), &sample{row: []float64{rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64()}, name: "bait{}", answer: "no"})
				time.Sleep(window / 700)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		labels := func(version string) map[string]string {
			all := make(map[string]string)
			for _, r := range m.Reports(key.Model) {
				for _, f := range r.Findings {
					if r.Version == version {
						all[f.Feature] = f.Label
					}
				}
			}
			return all
		}
		feed()
		toWindow(window)
		feed()
		want := map[string]string{"a": "a", "b": "b", "x[2]": "x[2]", "bait{}": "input[0]", "output.y": "output[0]"}
		if got := labels("v1"); !maps.Equal(got, want) {
			t.Errorf("labels %v, want %v", got, want)
		}
		// Whoever makes a reference of traffic has seen the names, and confirms them.
		doc, err := m.FromTraffic(key, "v1")
		if err != nil {
			t.Fatal(err)
		}
		g.put(doc)
		time.Sleep(10 * time.Second)
		toWindow(window)
		feed()
		want["bait{}"], want["output.y"] = "bait{}", "output.y"
		if got := labels("v1"); !maps.Equal(got, want) {
			t.Errorf("labels of a confirmed reference %v, want %v", got, want)
		}
	})
}
