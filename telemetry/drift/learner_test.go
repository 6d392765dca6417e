package drift_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift"
)

// spread offers n samples over a window, and waits until they are counted.
func (g *gateways) spread(v *drift.Version, n int, next func(i int) *sample) {
	for i := range n {
		g.nextID++
		v.Offer(g.nextID, next(i))
		time.Sleep(window / time.Duration(n))
	}
	time.Sleep(time.Minute)
	synctest.Wait()
}

// stored is the reference of v1 in the store; nil if there is none.
func (g *gateways) stored() (*driftv1.Reference, []byte) {
	g.t.Helper()
	data, err := g.store.Shelf("drift-references").Get(g.t.Context(), "m v1")
	if err != nil {
		g.t.Fatal(err)
	}
	if data == nil {
		return nil, nil
	}
	doc := new(driftv1.Reference)
	if err := proto.Unmarshal(data, doc); err != nil {
		g.t.Fatal(err)
	}
	return doc, data
}

func featureNames(doc *driftv1.Reference) (names []string) {
	for _, f := range doc.GetFeatures() {
		names = append(names, f.GetName())
	}
	return names
}

// A third of all calls have an input that others lack, from the first sample on, and when another version's traffic is taken.
func TestAnInputThatIsOptionalIsNotAbsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		s := settings()
		s.Learn, s.Columns = 1000, map[string][]string{"x": {"a"}}
		v := g.all[0].Watch(key, s, "")
		rng := rand.New(rand.NewPCG(61, 0))
		share := 3
		next := func(i int) *sample {
			c := &sample{row: []float64{rng.NormFloat64()}}
			if i%share == 0 {
				c.name = "extra"
			}
			return c
		}
		g.spread(v, 1000, next)
		doc, _ := g.stored()
		if at := slices.Index(featureNames(doc), "extra"); at < 0 || doc.GetFeatures()[at].GetAbsent() != 666 || doc.GetFeatures()[at].GetRows() != 334 {
			t.Fatalf("learnt %v, want that 666 of 1,000 calls have no extra", doc)
		}
		toWindow(window)
		g.spread(v, 1500, next)
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms %v, want none", got)
		}
		doc, err := g.all[0].FromTraffic(key, "v1")
		if err != nil {
			t.Fatal(err)
		}
		g.put(doc)
		time.Sleep(10 * time.Second)
		toWindow(window)
		g.spread(v, 1500, next)
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms against traffic that was alike: %v, want none", got)
		}
		share = 10
		toWindow(window)
		g.spread(v, 1500, next)
		if got := g.raised(); !slices.Contains(got, "extra absent") {
			t.Errorf("alarms %v once a tenth has it, want that it is absent", got)
		}
	})
}

// Training data has a column that the model is never asked about. One that has been there, and is not any more, is something else.
func TestWhatNoCallHasEverHadIsNotAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		doc := normal(t, 62, 5000)
		doc.Features = append(doc.Features, normalFeature(t, "species", 63, 0))
		g.put(doc)
		v := g.all[0].Watch(key, settings(), "")
		toWindow(window)
		rng := rand.New(rand.NewPCG(64, 0))
		columns := 3
		next := func(int) *sample {
			return &sample{row: []float64{rng.NormFloat64(), rng.NormFloat64(), rng.NormFloat64()}[:columns], answer: answerOf(rng)}
		}
		g.spread(v, 1000, next)
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms %v, want none", got)
		}
		for _, f := range g.all[0].Reports(key.Model)[0].Findings {
			if want := map[bool]drift.State{true: drift.Insufficient, false: drift.OK}[f.Feature == "species"]; f.State != want {
				t.Errorf("%s is %v, want %v", f.Feature, f.State, want)
			}
		}
		columns = 2
		g.spread(v, 1000, next)
		if got := g.raised(); !slices.Equal(got, []string{"c absent"}) {
			t.Errorf("alarms %v once there is no c, want that", got)
		}
	})
}

// Columns get names when their numbers have been learnt already.
func TestColumnsThatAreNamedLaterAreLearntAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		s := settings()
		s.Learn, s.Columns = 600, nil
		rng := rand.New(rand.NewPCG(65, 0))
		next := func(int) *sample {
			return &sample{row: []float64{rng.NormFloat64(), rng.NormFloat64()}, answer: answerOf(rng)}
		}
		g.spread(g.all[0].Watch(key, s, ""), 700, next)
		doc, _ := g.stored()
		if got := featureNames(doc); !slices.Equal(got, []string{"output.y", "x[0]", "x[1]"}) {
			t.Fatalf("learnt %v", got)
		}
		s.Columns = map[string][]string{"x": {"age", "income"}}
		v := g.all[0].Watch(key, s, "")
		g.spread(v, 700, next)
		doc, _ = g.stored()
		if got := featureNames(doc); !slices.Equal(got, []string{"age", "income", "output.y"}) {
			t.Errorf("after columns were named, %v, want the new names and what has kept its own", got)
		}
		toWindow(window)
		g.spread(v, 1000, next)
		states := make(map[string]drift.State)
		for _, f := range g.all[0].Reports(key.Model)[0].Findings {
			states[f.Feature] = f.State
		}
		if want := map[string]drift.State{"age": drift.OK, "income": drift.OK, "output.y": drift.OK}; !maps.Equal(states, want) {
			t.Errorf("states %v, want %v", states, want)
		}
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms %v, want none", got)
		}
	})
}

// A new input appears long after all others were learnt.
func TestAnInputThatComesLaterIsLearntThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		s := settings()
		s.Learn = 600
		v := g.all[0].Watch(key, s, "")
		rng := rand.New(rand.NewPCG(66, 0))
		name := ""
		next := func(int) *sample { return &sample{row: []float64{rng.NormFloat64()}, name: name} }
		g.spread(v, 3000, next)
		name = "new"
		g.spread(v, 700, next)
		doc, _ := g.stored()
		if got := featureNames(doc); !slices.Equal(got, []string{"a", "new"}) {
			t.Errorf("learnt %v, want what is new, too", got)
		}
	})
}

// Strings of calls may be anybody's: of what is learnt, the store gets hashes.
func TestNoStringOfACallIsStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		s := settings()
		s.Learn, s.Columns = 600, nil
		v := g.all[0].Watch(key, s, "")
		rng := rand.New(rand.NewPCG(67, 0))
		answers := []string{"IBAN DE00", "IBAN DE11"}
		next := func(i int) *sample {
			return &sample{row: []float64{rng.NormFloat64()}, answer: answers[min(1, rng.IntN(3))]}
		}
		g.spread(v, 700, next)
		doc, data := g.stored()
		if doc == nil || bytes.Contains(data, []byte("IBAN")) {
			t.Fatalf("the store has %v, want a reference without strings of calls", doc)
		}
		// It serves all the same.
		toWindow(window)
		g.spread(v, 1000, next)
		r := g.all[0].Reports(key.Model)[0]
		at := slices.IndexFunc(r.Findings, func(f drift.Finding) bool { return f.Feature == "output.y" })
		if f := r.Findings[at]; f.State != drift.OK || f.Current[0] < 0.6 || f.Current[1] < 0.27 || f.Current[0]+f.Current[1] < 0.999 {
			t.Errorf("%+v, want two thirds and a third", f)
		}
		answers[0] = "IBAN DE22"
		g.spread(v, 1000, next)
		if got := g.raised(); !slices.Contains(got, "output.y outside") {
			t.Errorf("alarms %v of a string never seen, want that it is outside", got)
		}
	})
}

// References that nobody has calibrated are, one after the other: several at once, and those that were made of traffic.
func TestEveryReferenceIsCalibratedAfterAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		for i := range 4 {
			name := fmt.Sprint("v", i)
			g.all[0].Watch(drift.Key{Model: "m", Version: name}, settings(), "")
			f := normalFeature(t, "a", uint64(70+i), 0)
			g.put(&driftv1.Reference{Model: "m", Version: name, Source: "a test", Features: []*driftv1.Feature{f}})
		}
		time.Sleep(5 * time.Minute)
		all, err := g.store.Shelf("drift-references").All(t.Context())
		if err != nil || len(all) != 4 {
			t.Fatalf("%d references, %v", len(all), err)
		}
		for name, data := range all {
			doc := new(driftv1.Reference)
			if err := proto.Unmarshal(data, doc); err != nil {
				t.Fatal(err)
			}
			if f := doc.GetFeatures()[0]; len(f.GetWasserstein().GetQuantiles()) != 101 || len(f.GetJensenShannon().GetQuantiles()) != 101 {
				t.Errorf("%s is not calibrated", name)
			}
		}
	})
}

// Many columns of many different strings are more than the store takes.
func TestALargeReferenceLeavesRareStringsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		doc := &driftv1.Reference{Model: key.Model, Version: key.Version, Source: "a test"}
		for i := range 200 {
			var c drift.Column
			for j := range 1000 {
				c.Category(fmt.Sprint("value ", i, " ", j))
			}
			f, _ := c.Feature(fmt.Sprintf("f%03d", i))
			doc.Features = append(doc.Features, f)
		}
		g.put(doc)
		stored, data := g.stored()
		if len(data) > 1<<20 {
			t.Errorf("%d bytes", len(data))
		}
		whole, cut := 0, 0
		for _, f := range stored.GetFeatures() {
			if c := f.GetCategories(); c.GetUnlisted() && c.GetOthers() == nil {
				cut++
			} else if len(c.GetOthers()) == 950 && !c.GetUnlisted() {
				whole++
			}
		}
		if cut == 0 || whole == 0 || cut+whole != 200 {
			t.Errorf("%d columns lack the rare strings and %d have them, want some of each", cut, whole)
		}
	})
}

// Nothing is outside of what is not known whole.
func TestStringsThatAreNotListedAreNotOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		rng := rand.New(rand.NewPCG(68, 0))
		next := func() string { return fmt.Sprint(rng.IntN(20_000)) }
		var c drift.Column
		for range 50_000 {
			c.Category(next())
		}
		f, _ := c.Feature("output.y")
		g.put(&driftv1.Reference{Model: key.Model, Version: key.Version, Source: "a test", Features: []*driftv1.Feature{f}})
		v := g.all[0].Watch(key, settings(), "")
		toWindow(window)
		g.spread(v, 1000, func(int) *sample { return &sample{row: []float64{0}, answer: next()} })
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms %v, want none", got)
		}
		if f := g.all[0].Reports(key.Model)[0].Findings[0]; f.State != drift.OK || f.PSI.Value > 0.2 {
			t.Errorf("%v with PSI %.2f, want ok", f.State, f.PSI.Value)
		}
	})
}

// An empty string is no value, in files and in calls.
func TestAnEmptyStringIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, nil)
		rng := rand.New(rand.NewPCG(69, 0))
		var c drift.Column
		for i := range 5000 {
			if i%10 == 0 {
				c.Category("")
				continue
			}
			c.Category(answerOf(rng))
		}
		f, _ := c.Feature("output.y")
		if f.GetMissing() != 500 || f.GetRows() != 5000 {
			t.Fatalf("learnt %v, want 500 missing", f)
		}
		g.put(&driftv1.Reference{Model: key.Model, Version: key.Version, Source: "a test", Features: []*driftv1.Feature{f}})
		v := g.all[0].Watch(key, settings(), "")
		toWindow(window)
		g.spread(v, 1000, func(i int) *sample {
			if i%10 == 0 {
				return &sample{row: []float64{0}, answer: emptyAnswer}
			}
			return &sample{row: []float64{0}, answer: answerOf(rng)}
		})
		if got := g.raised(); len(got) > 0 {
			t.Errorf("alarms %v, want none", got)
		}
		if f := g.all[0].Reports(key.Model)[0].Findings[0]; f.Values != 900 || f.Rates[drift.NaN].Count != 100 {
			t.Errorf("%d values and %+v, want 900 and 100", f.Values, f.Rates[drift.NaN])
		}
	})
}
