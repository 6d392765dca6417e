package drift

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// learntFrom makes a reference of n rows of standard normal columns.
func learntFrom(t testing.TB, rng *rand.Rand, columns, n int) *reference {
	t.Helper()
	doc := new(driftv1.Reference)
	for i := range columns {
		var c Column
		for range n {
			c.Number(rng.NormFloat64())
		}
		f, _ := c.Feature(fmt.Sprint("f", i))
		doc.Features = append(doc.Features, f)
	}
	r, err := newReference(doc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Of windows in which nothing moves, at most the promised share has any suspect feature, even if the smallest change
// were to matter. Every trial learns a reference of its own, since that is a sample, too.
func TestWithoutDriftSuspectWindowsAreAsRareAsPromised(t *testing.T) {
	t.Parallel()
	const trials, columns, promised = 400, 4, 0.02
	rng := rand.New(rand.NewPCG(21, 0))
	p := Policy{Window: time.Hour, ExpectedRun: 50 * time.Hour}
	var suspects int
	for range trials {
		r := learntFrom(t, rng, columns, 2000)
		w := newTally(r)
		for i := range columns {
			for range 1000 {
				w.features[i].number(r.features[i], rng.NormFloat64())
			}
		}
		for _, f := range judge(r, w, p) {
			if f.State == Suspect {
				suspects++
				break
			}
		}
	}
	lower := 0.0
	if suspects > 0 {
		lower = distuv.Beta{Alpha: float64(suspects), Beta: float64(trials - suspects + 1)}.Quantile(0.001)
	}
	t.Logf("%d of %d windows are suspect, at least %.4f with a confidence of 99.9 %%; promised are %.4f", suspects, trials, lower, promised)
	if p.Level() != promised || lower > promised {
		t.Errorf("%d of %d windows are suspect, want at most a share of %v", suspects, trials, promised)
	}
}

// Fewer values do for KS than for PSI; fewer than that say nothing at all.
func TestEachStatisticWantsValuesEnough(t *testing.T) {
	rng := rand.New(rand.NewPCG(29, 0))
	r := learntFrom(t, rng, 1, 2000)
	for _, tt := range []struct {
		n       int
		ks, psi bool
	}{{99, false, false}, {100, true, false}, {499, true, false}, {500, true, true}} {
		w := newTally(r)
		for range tt.n {
			w.features[0].number(r.features[0], rng.NormFloat64())
		}
		f := judge(r, w, Policy{Window: time.Hour, ExpectedRun: 720 * time.Hour, Effect: 0.2})[0]
		if f.State != map[bool]State{false: Insufficient, true: OK}[tt.psi] {
			t.Errorf("%d values are %v", tt.n, f.State)
		}
		for name, is := range map[string]struct{ defined, want bool }{
			"KS": {!math.IsNaN(f.KS.Value), tt.ks}, "PSI": {!math.IsNaN(f.PSI.Value), tt.psi}, "W1": {!math.IsNaN(f.Wasserstein.Value), tt.psi},
			"Jensen-Shannon": {!math.IsNaN(f.JensenShannon.Value), tt.psi}, "P": {!math.IsNaN(f.P), tt.psi},
		} {
			if is.defined != is.want {
				t.Errorf("%s of %d values is defined: %v", name, tt.n, is.defined)
			}
		}
	}
}

// Windows in the order in which they come, and what is thought of a feature after each.
func TestDriftIsTwoSuspectWindowsOfThree(t *testing.T) {
	for _, tt := range []struct{ windows, want []State }{
		{[]State{Suspect, OK, OK, Suspect}, []State{Suspect, OK, OK, Suspect}},
		{[]State{Suspect, Suspect, Suspect, OK}, []State{Suspect, Drift, Drift, OK}},
		{[]State{Suspect, OK, Suspect, OK, Suspect, OK, OK, Suspect}, []State{Suspect, OK, Drift, OK, Drift, OK, OK, Suspect}},
		{[]State{Suspect, Insufficient, Insufficient, Suspect}, []State{Suspect, Insufficient, Insufficient, Drift}},
	} {
		var r recent
		var got []State
		for _, s := range tt.windows {
			got = append(got, r.next(s))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("after %v: %v, want %v", tt.windows, got, tt.want)
		}
	}
}

// By day and by night, numbers are others, and the reference knows it: a window of the night is no drift, and one as far from
// the whole reference as three times the day is.
func TestWhatIsUsualInTheReferenceIsNoDrift(t *testing.T) {
	rng := rand.New(rand.NewPCG(27, 0))
	shift := func(hour int) float64 { return 1.5 * math.Sin(2*math.Pi*float64(hour)/24) }
	var days Column
	for i := range 24_000 {
		days.Number(rng.NormFloat64() + shift(i/500%24))
	}
	f, _ := days.Feature("f")
	r, err := newReference(&driftv1.Reference{Features: []*driftv1.Feature{f}})
	if err != nil {
		t.Fatal(err)
	}
	if u := f.GetUsual(); u.GetWindows() != 48 || u.GetMean() < 0.2 || u.GetSd() <= 0 {
		t.Fatalf("usual %v, want 48 windows that differ", u)
	}
	state := func(mean float64) Finding {
		w := newTally(r)
		for range 1000 {
			w.features[0].number(r.features[0], rng.NormFloat64()+mean)
		}
		return judge(r, w, Policy{Window: time.Hour, ExpectedRun: 720 * time.Hour, Effect: 0.2})[0]
	}
	for hour := range 24 {
		if found := state(shift(hour)); found.State != OK {
			t.Errorf("hour %d is %v with PSI %.2f, of which %.2f matter; want ok", hour, found.State, found.PSI.Value, found.Effect)
		}
	}
	if found := state(4.5); found.State != Suspect {
		t.Errorf("three times the day's swing is %v with PSI %.2f, of which %.2f matter; want suspect", found.State, found.PSI.Value, found.Effect)
	}
	var few Column
	for range 9999 {
		few.Number(rng.NormFloat64())
	}
	if f, _ := few.Feature("f"); f.GetUsual() != nil {
		t.Errorf("usual %v of fewer than 20 parts of 500, want none", f.GetUsual())
	}
}

// Six months of slots in which 1 in 200 values is missing, as in the reference: one alarm is expected in 100 years of
// slots, so there is none.
func TestRatesThatStayRaiseNoAlarm(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(22, 0))
	r := learntFrom(t, rng, 1, 2000)
	r.features[0].doc.Missing, r.features[0].doc.Rows = 10, 2010
	r, err := newReference(r.doc)
	if err != nil {
		t.Fatal(err)
	}
	w := newWatch(r, 30*24*12)
	slot := newTally(r)
	alarms := 0
	for range 6 * 30 * 24 * 12 {
		slot.reset()
		for range 20 {
			if rng.IntN(200) == 0 {
				slot.features[0].nan++
				continue
			}
			slot.features[0].number(r.features[0], rng.NormFloat64())
		}
		w.next(r, slot, make([]bool, 1), func(int, Rate) { alarms++ })
	}
	if alarms > 0 {
		t.Errorf("%d alarms of rates that have not grown, want none", alarms)
	}
}

// Counts by the cells of one reference, said by those of another, are nearly what counting by those would have given.
func TestCountsAreBroughtToOtherCells(t *testing.T) {
	rng := rand.New(rand.NewPCG(26, 0))
	to, from := learntFrom(t, rng, 1, 3000), learntFrom(t, rng, 1, 2000)
	want, have := newTally(to), newTally(from)
	for range 5000 {
		v := 1.2*rng.NormFloat64() + 0.5
		want.features[0].number(to.features[0], v)
		have.features[0].number(from.features[0], v)
	}
	f, g := to.features[0], from.features[0]
	cells, n := have.features[0].wide()
	exact, _ := want.features[0].wide()
	got := recount(g, cells, &have.features[0], f.bins.Edges)
	if stat.Total(got) != n {
		t.Errorf("%d values became %d", n, stat.Total(got))
	}
	groups := stat.GroupEvenly(exact, decisionCells)
	if psi := stat.PSI(groups.Sum(exact), groups.Sum(got)).Value; psi > 0.005 {
		t.Errorf("PSI between what was counted and what was brought there is %.4f, want next to nothing", psi)
	}
	if again := recount(f, exact, &want.features[0], f.bins.Edges); !slices.Equal(again, exact) {
		t.Error("counts by the same cells have changed")
	}
}

// What is kept of a feature beside its reference: the open slot, the window under way, the last one, detectors.
func TestAFeatureTakesAtMostSixKilobytes(t *testing.T) {
	r := learntFrom(t, rand.New(rand.NewPCG(23, 0)), 200, 2000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := newVersion(New(Config{}), Key{"m", "v"})
	v.configure(Settings{Policy: Policy{Window: time.Hour, ExpectedRun: time.Hour * 720}}, "", time.Now())
	v.setReference(r, []byte("stored"), time.Now())
	v.closed = append(v.closed, closedSlot{tally: newTally(r)})
	v.findings = judge(r, v.window, v.settings.Policy)
	runtime.GC()
	runtime.ReadMemStats(&after)
	perFeature := int64(after.HeapAlloc-before.HeapAlloc) / 200
	t.Logf("%d bytes for each feature", perFeature)
	if perFeature > 6<<10 {
		t.Errorf("%d bytes for each feature, want at most 6144", perFeature)
	}
	runtime.KeepAlive(v)
}

// Whatever a stranger sends is counted or refused, in bounded time and memory.
func FuzzObserve(f *testing.F) {
	request := func(datatype string, shape []int64, c *inference.InferTensorContents, raw ...[]byte) []byte {
		data, err := proto.Marshal(&inference.ModelInferRequest{
			Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: datatype, Shape: shape, Contents: c}}, RawInputContents: raw,
		})
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	nan := bytes.Repeat([]byte{0, 0, 0xc0, 0x7f}, 3)
	f.Add(request("FP32", []int64{1, 3}, nil, nan), uint64(1))
	f.Add(request("FP32", []int64{1 << 40, 1 << 40}, nil, nan), uint64(2))
	f.Add(request("FP32", []int64{0, 3}, nil, nil), uint64(3))
	f.Add(request("BYTES", []int64{2}, &inference.InferTensorContents{BytesContents: [][]byte{{0xff}, nil}}), uint64(4))
	f.Add(request("INT64", []int64{3}, &inference.InferTensorContents{Fp32Contents: []float32{1}}), uint64(5))
	f.Add(request("FP64", []int64{1, 100}, nil, make([]byte, 800)), uint64(6))
	// One of numbers after one of strings: their layouts have the same name and width.
	f.Add(slices.Concat(
		request("BYTES", []int64{1, 100}, &inference.InferTensorContents{BytesContents: make([][]byte, 100)}),
		request("FP64", []int64{1, 100}, &inference.InferTensorContents{Fp64Contents: make([]float64, 100)})), uint64(7))
	f.Fuzz(func(t *testing.T, data []byte, pick uint64) {
		req := new(inference.ModelInferRequest)
		if proto.Unmarshal(data, req) != nil {
			return
		}
		tensors, err := tensor.Inputs(req)
		if err != nil {
			return
		}
		o := newObserver(map[string][]string{"x": {"a", "b", "c"}})
		if n := len(tensors); n > 0 {
			o.look(tensors[:n-1], tensors[n-1:], nil, pick) // layouts that others of the same name and width may find
		}
		l := newLearner(2)
		for range 2 {
			// The same tensors as an answer, too: those are looked at in another way.
			l.learn(o.look(tensors, tensors, nil, pick))
		}
		if len(l.columns) > MaxFeatures {
			t.Fatalf("%d columns are learnt, want at most %d", len(l.columns), MaxFeatures)
		}
		features := l.features(nil)
		if len(features) == 0 {
			return
		}
		r, err := newReference(&driftv1.Reference{Features: features})
		if err != nil {
			t.Fatalf("what was learnt cannot be used: %v", err)
		}
		v := newVersion(New(Config{}), Key{"m", "v"})
		v.configure(Settings{Policy: Policy{Window: time.Hour, ExpectedRun: time.Hour * 720}}, "", time.Now())
		v.setReference(r, data, time.Now())
		v.tally(o.look(tensors, tensors, r, pick+1))
		for _, c := range v.open.features {
			cells, n := c.wide()
			if n+uint64(c.absent+c.nan+c.inf) != 1 {
				t.Errorf("counted %v, %d absent, %d nan, %d infinite, want one in all", cells, c.absent, c.nan, c.inf)
			}
		}
	})
}

func TestFilesTellNumbersFromCategories(t *testing.T) {
	var file strings.Builder
	w := csv.NewWriter(&file)
	rows := [][]string{{"age", "city", "id"}, {"31", "Bonn", "1"}, {"NA", "Köln", "2"}, {"40.5", "Bonn", "x"}, {" 31 ", "", "3"}}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	features, err := FromCSV(strings.NewReader(file.String()), []string{"city", "age"})
	if err != nil {
		t.Fatal(err)
	}
	age, city := features[0], features[1]
	if age.GetNumbers() == nil || age.GetRows() != 4 || age.GetMissing() != 1 || !age.GetNumbers().GetDiscrete() {
		t.Errorf("age = %v, want three numbers of two values and one missing", age)
	}
	if names := city.GetCategories().GetNames(); len(names) != 2 || names[0] != "Bonn" || city.GetCounts()[0] != 2 || city.GetMissing() != 1 {
		t.Errorf("city = %v, want Bonn twice, Köln once and one missing", city)
	}
	for _, bad := range []struct{ file, want string }{
		{"", "header"}, {"a,b\n1,2\n", `no column "c"`}, {"c\n\"\"\n", "no value"}, {"c,d\n1\n", "line 2"},
	} {
		if _, err := FromCSV(strings.NewReader(bad.file), []string{"c"}); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("FromCSV(%q) = %v, want an error with %q", bad.file, err, bad.want)
		}
	}
}

// As spreadsheets and other programs write them.
func TestFilesOfManyKindsAreRead(t *testing.T) {
	for name, file := range map[string]string{
		"commas":         "a,b\n1,x\n2,y\n",
		"semicolons":     "a;b\n1;x\n2;y\n",
		"tabs":           "a\tb\n1\tx\n2\ty\n",
		"a mark":         "\ufeffa,b\r\n1,x\r\n2,y\r\n",
		"an empty one":   "a,b,c\n1,x,\n2,y,NA\n",
		"commas in text": "a,\"b\"\n1,\"x\"\n2,y\n",
		"truth values":   "a,b\ntrue,x\nFalse,y\n",
	} {
		features, err := FromCSV(strings.NewReader(file), nil)
		if err != nil || len(features) != 2 || features[0].GetName() != "a" || features[0].GetNumbers() == nil || features[1].GetName() != "b" || features[1].GetCategories() == nil {
			t.Errorf("%s: %v, %v, want numbers a and categories b", name, features, err)
		}
	}
	for _, bad := range []struct{ file, want string }{
		{"a,b,a\n1,2,3\n", `column "a" twice`}, {"a,b\n,\n", "in any of 2 columns"},
	} {
		if _, err := FromCSV(strings.NewReader(bad.file), nil); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("FromCSV(%q) = %v, want an error with %q", bad.file, err, bad.want)
		}
	}
}

// A class is a number to a reference that has numbers, as one from a file does, and a category to one that was learnt.
func TestAClassIsANumberAndACategory(t *testing.T) {
	var numbers, learnt Column
	for i := range 3000 {
		numbers.Number(float64(i % 3))
		learnt.Category(fmt.Sprint(i % 3))
	}
	for _, c := range []*Column{&numbers, &learnt} {
		f, _ := c.Feature("output.p.class")
		r, err := newReference(&driftv1.Reference{Features: []*driftv1.Feature{f}})
		if err != nil {
			t.Fatal(err)
		}
		v := newVersion(New(Config{}), Key{"m", "v"})
		v.configure(Settings{Policy: Policy{Window: time.Hour, ExpectedRun: time.Hour * 720}}, "", time.Now())
		v.setReference(r, []byte("stored"), time.Now())
		for i := range 600 {
			scores := []float64{0, 0, 0}
			scores[i%3] = 1
			v.tally(v.observer.look(nil, []tensor.Tensor{wideTensor(t, "p", scores)}, r, 0))
		}
		found := compare(r.features[0], &v.open.features[0])
		if found.Values != 600 || !(found.PSI.Value < 0.01) {
			t.Errorf("%v: %d values with PSI %v, want 600 as in the reference", f.GetCells(), found.Values, found.PSI.Value)
		}
	}
}

func TestReferencesThatCannotBeUsedAreRefused(t *testing.T) {
	good := func() *driftv1.Reference {
		return proto.CloneOf(learntFrom(t, rand.New(rand.NewPCG(24, 0)), 2, 100).doc)
	}
	if err := Check(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*driftv1.Reference){
		"no features": func(r *driftv1.Reference) { r.Features = nil },
		"names twice": func(r *driftv1.Reference) { r.Features[0].Name = r.Features[1].Name },
		"edges":       func(r *driftv1.Reference) { r.Features[0].GetNumbers().Edges[3] = -9 },
		"counts":      func(r *driftv1.Reference) { r.Features[0].Counts = r.Features[0].Counts[1:] },
		"rows":        func(r *driftv1.Reference) { r.Features[0].Rows++ },
		"cells":       func(r *driftv1.Reference) { r.Features[0].Cells = nil },
		"hashes": func(r *driftv1.Reference) {
			r.Features[0].Cells = &driftv1.Feature_Categories{Categories: &driftv1.Categories{Hashes: []uint64{7, 7}}}
			r.Features[0].Counts = []uint64{50, 50, 0, 0}
		},
	} {
		r := good()
		if spoil(r); Check(r) == nil {
			t.Errorf("a reference with wrong %s was taken", name)
		}
	}
}

// One numeric value, from a tensor to its cell: per value of rows with 16 columns, drawn at random, since a processor soon knows by heart which
// way a search for the same values goes.
func BenchmarkValue(b *testing.B) {
	r := learntFrom(b, rand.New(rand.NewPCG(25, 0)), 16, 10_000)
	v := newVersion(New(Config{}), Key{"m", "v"})
	names := make([]string, 16)
	for i := range names {
		names[i] = fmt.Sprint("f", i)
	}
	v.configure(Settings{Policy: Policy{Window: time.Hour, ExpectedRun: time.Hour * 720}, Columns: map[string][]string{"x": names}}, "", time.Now())
	v.setReference(r, []byte("stored"), time.Now())
	calls := make([][]tensor.Tensor, 1024)
	rng := rand.New(rand.NewPCG(28, 0))
	for i := range calls {
		calls[i] = []tensor.Tensor{wideTensor(b, "x", wideRow(rng, 16, 0))}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		v.tally(v.observer.look(calls[n/16%len(calls)], nil, r, 1))
		n += 16
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/value")
}

// What a call costs that is not sampled.
func BenchmarkWants(b *testing.B) {
	v := newVersion(New(Config{}), Key{"m", "v"})
	v.gate.seen.Store(1_000_000)
	v.gate.adjust(50, 1)
	b.ReportAllocs()
	for b.Loop() {
		v.Wants(rand.Uint64())
	}
}
