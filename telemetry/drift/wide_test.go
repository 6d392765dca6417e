package drift

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
	driftv1 "sluice/proto/sluice/drift/v1"
	"sluice/telemetry/drift/stat"
)

// wideTensor is one of FP64 rows.
func wideTensor(t testing.TB, name string, rows ...[]float64) tensor.Tensor {
	t.Helper()
	in, err := tensor.Inputs(&inference.ModelInferRequest{Inputs: []*inference.ModelInferRequest_InferInputTensor{{
		Name: name, Datatype: "FP64", Shape: []int64{int64(len(rows)), int64(len(rows[0]))},
		Contents: &inference.InferTensorContents{Fp64Contents: slices.Concat(rows...)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return in[0]
}

func wideRow(rng *rand.Rand, width int, mean float64) []float64 {
	row := make([]float64, width)
	for i := range row {
		row[i] = rng.NormFloat64() + mean
	}
	return row
}

// The summaries are NumPy's x.mean(), x.std(), (x == 0).mean() and norm(x) of x = j² mod 17.
func TestAWideRowIsSummarisedAndEmbedded(t *testing.T) {
	for _, width := range []int{100, maxEmbedded, maxEmbedded + 1} {
		row := make([]float64, width)
		for j := range row {
			row[j] = float64(j * j % 17)
		}
		values := newObserver(nil).look([]tensor.Tensor{wideTensor(t, "x", row)}, nil, nil, 0)
		var names []string
		for _, v := range values {
			names = append(names, v.feature)
		}
		if !slices.Equal(names, summaryNames("x")) || len(names) != 21 {
			t.Fatalf("%d columns: features %q, want the summaries, projections and the row", width, names)
		}
		if width == 100 {
			for i, want := range []float64{8.11, 5.654900529629146, 0.06, 98.86859966642594} {
				if math.Abs(values[i].number-want) > 1e-12*want {
					t.Errorf("%s = %v, want %v", names[i], values[i].number, want)
				}
			}
		}
		projected := newLens(width).project(nil, row)
		for i, want := range projected {
			if got := values[4+i].number; got != want {
				t.Errorf("%d columns: %s = %v, want %v", width, names[4+i], got, want)
			}
		}
		whole, want := values[20].wide, row
		if width > maxEmbedded {
			want = projected
		}
		if whole == nil || !slices.Equal(whole.row, want) || whole.waves.Width != len(want) {
			t.Errorf("%d columns: what is embedded is not the row, nor its projections", width)
		}
	}
}

// What a model answers may be an embedding rather than scores, so that wide answers are looked at as both.
func TestAWideAnswerIsEmbeddedAsItCame(t *testing.T) {
	row := wideRow(rand.New(rand.NewPCG(51, 0)), 100, 3)
	values := newObserver(nil).look(nil, []tensor.Tensor{wideTensor(t, "y", row)}, nil, 0)
	at := slices.IndexFunc(values, func(v value) bool { return v.feature == "output.y.embedding" })
	if at < 0 || !slices.Equal(values[at].wide.row, row) {
		t.Errorf("values %+v, want the answer as it came", values)
	}
	if slices.IndexFunc(values, func(v value) bool { return v.feature == "output.y.top1" }) < 0 {
		t.Error("the scores of classes are missing")
	}
}

// Callers choose widths and names: what they take is bounded, and widths beyond that of a fold cost an addition a column.
func TestWideRowsTakeNoMoreRoomThanTheWidestOne(t *testing.T) {
	o := newObserver(nil)
	const width = 1 << 18
	row := make([]float64, width)
	o.look([]tensor.Tensor{wideTensor(t, "x", row)}, nil, nil, 0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	inputs := make([]tensor.Tensor, 40)
	for i := range inputs {
		inputs[i] = wideTensor(t, fmt.Sprint("x", i), row[:1<<17+i])
	}
	values := o.look(inputs, inputs[:20], nil, 0)
	if len(values) != 40*21+20*5 {
		t.Fatalf("%d values, want 21 of each input and 5 of each answer", len(values))
	}
	clear(inputs)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > 60*64<<10 {
		t.Errorf("60 tensors of 131,072 columns take %d bytes, want at most 64 KiB each", took)
	}
	runtime.KeepAlive(o)
}

// The projections of a folded row are as large as those of any row of that length.
func TestFoldedRowsKeepTheirLength(t *testing.T) {
	const width = 3 * 224 * 224 // an image
	row := wideRow(rand.New(rand.NewPCG(57, 0)), width, 0)
	var square float64
	for _, p := range newLens(width).project(nil, row) {
		square += p * p / projections
	}
	if want := float64(width) / foldedWidth; square < 0.3*want || square > 2.5*want { // the mean of 16 squares of normals
		t.Errorf("mean square of projections of a row of standard normals = %.2f, want about %.2f", square, want)
	}
}

// learntRows learns a reference of the embedding of n rows.
func learntRows(t testing.TB, rng *rand.Rand, width, n int) *reference {
	t.Helper()
	l, o := newLearner(n), newObserver(nil)
	for range n {
		l.learn(o.look([]tensor.Tensor{wideTensor(t, "x", wideRow(rng, width, 0))}, nil, nil, 0))
	}
	var doc driftv1.Reference
	for _, f := range l.features(nil) {
		if f.GetEmbedding() != nil {
			doc.Features = append(doc.Features, f)
		}
	}
	r, err := newReference(&doc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// counted is what a gateway has counted of rows.
func counted(t testing.TB, r *reference, rows ...[]float64) *tally {
	t.Helper()
	v := newVersion(New(Config{}), Key{"m", "v"})
	v.configure(Settings{Policy: Policy{Window: time.Hour, ExpectedRun: time.Hour * 720}}, "", time.Now())
	v.setReference(r, []byte("stored"), time.Now())
	for _, row := range rows {
		v.tally(v.observer.look([]tensor.Tensor{wideTensor(t, "x", row)}, nil, v.ref, 0))
	}
	return v.open
}

func TestAnEmbeddingIsLearntWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(52, 0))
	r := learntRows(t, rng, 100, 10_500)
	f := r.features[0]
	if f.doc.GetName() != "x.embedding" || f.doc.GetRows() != 10_500 || f.rows.Rows != 10_500 || !f.doc.GetLearnt() {
		t.Fatalf("learnt %v", f.doc)
	}
	// Rows of independent normals are about √(2·100) apart.
	if b := f.embedding.GetBandwidth(); math.Abs(b-math.Sqrt(200)) > 0.5 {
		t.Errorf("bandwidth %v, want about %v", b, math.Sqrt(200))
	}
	if len(f.null.mmd.Quantiles) != 101 || f.null.mmd.TailShare == 0 {
		t.Errorf("calibration %+v, want a body and a tail", f.null.mmd)
	}
	if u := f.doc.GetUsual(); u.GetWindows() != 21 || u.GetMean() > 0.1 || u.GetSd() > 0.1 {
		t.Errorf("usual %v, want 21 parts that are alike", u)
	}
	// All but the rows that were kept are gone, and are in the sums all the same.
	data, err := proto.Marshal(r.doc)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 4<<10 {
		t.Errorf("a reference takes %d bytes, want at most 4096", len(data))
	}
}

// A shift of a quarter of a standard deviation in all columns; the same rows as they are; too few of them.
func TestAnEmbeddingIsJudgedByItsMMD(t *testing.T) {
	rng := rand.New(rand.NewPCG(53, 0))
	r := learntRows(t, rng, 100, 2000)
	policy := Policy{Window: time.Hour, ExpectedRun: 720 * time.Hour, Effect: 0.2}
	for _, tt := range []struct {
		name string
		n    int
		mean float64
		want State
	}{
		{"as it was", 1000, 0, OK},
		{"moved", 1000, 0.3, Suspect},
		{"moved by too little to matter", 1000, 0.1, OK},
		{"too few", 499, 0.3, Insufficient},
	} {
		var rows [][]float64
		for range tt.n {
			rows = append(rows, wideRow(rng, 100, tt.mean))
		}
		found := judge(r, counted(t, r, rows...), policy)[0]
		if found.State != tt.want || found.Values != uint64(tt.n) {
			t.Errorf("%s: %v with %d values, MMD %+v, want %v", tt.name, found.State, found.Values, found.MMD, tt.want)
		}
		if tt.name == "moved by too little to matter" && found.Adjusted > 1e-6 {
			t.Errorf("%s: P %v, want what chance does not explain", tt.name, found.Adjusted)
		}
		if !math.IsNaN(found.PSI.Value + found.KS.Value + found.Wasserstein.Value) {
			t.Errorf("%s: other statistics %+v", tt.name, found)
		}
	}
}

// What gateways have told each other adds up to what one would have counted.
func TestEmbeddingsTravelAndAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(54, 0))
	r := learntRows(t, rng, 100, 600)
	var rows [][]float64
	for range 300 {
		rows = append(rows, wideRow(rng, 100, 0))
	}
	nan, inf, other := wideRow(rng, 100, 0), wideRow(rng, 100, 0), wideRow(rng, 101, 0)
	nan[7], inf[99] = math.NaN(), math.Inf(-1)
	rows = append(rows, nan, inf, other)
	whole, sum, here := counted(t, r, rows...), newTally(r), newTally(r)
	for _, part := range [][][]float64{rows[200:], rows[:50], rows[50:200]} {
		data, err := proto.Marshal(&driftv1.Tally{Samples: uint64(len(part)), Features: counted(t, r, part...).encode()})
		if err != nil {
			t.Fatal(err)
		}
		stored := new(driftv1.Tally)
		if err := proto.Unmarshal(data, stored); err != nil || !sum.addEncoded(stored) {
			t.Fatalf("what was stored is not taken: %v", err)
		}
		here.add(counted(t, r, part...))
	}
	a, b := whole.features[0], sum.features[0]
	if a.cells[0] != 300 || a.nan != 2 || a.inf != 1 {
		t.Errorf("%d rows, %d nan and %d infinite, want 300, 2 (one of another width) and 1", a.cells[0], a.nan, a.inf)
	}
	if c := here.features[0]; c.cells[0] != a.cells[0] || c.rows.Square != a.rows.Square || !slices.Equal(a.rows.Sums, c.rows.Sums) {
		t.Error("slots do not add up to the window")
	}
	if b.cells[0] != a.cells[0] || b.nan != a.nan || b.inf != a.inf || b.rows.Square != a.rows.Square || !slices.Equal(a.rows.Sums, b.rows.Sums) {
		t.Error("parts do not add up to the whole")
	}
	for _, rate := range rates(r.features[0], &b) {
		if want := map[RateKind]uint64{NaN: 2, Infinite: 1}[rate.Kind]; rate.Count != want || rate.Rows != 303 || rate.Kind == Outside && rate.Bound != 1 {
			t.Errorf("%v: %d of %d with a bound of %v, want %d of 303", rate.Kind, rate.Count, rate.Rows, rate.Bound, want)
		}
	}
	if sum.reset(); sum.features[0].cells[0] != 0 || sum.features[0].rows.Rows != 0 || slices.Max(sum.features[0].rows.Sums) != 0 {
		t.Error("a tally that was reset has something")
	}
	for name, spoil := range map[string]func(*driftv1.Counts){
		"sums that are too few":     func(c *driftv1.Counts) { c.Sums = c.Sums[1:] },
		"sums that cannot be":       func(c *driftv1.Counts) { c.Sums[0] = math.MaxInt64 },
		"a square that cannot be":   func(c *driftv1.Counts) { c.Square = -1 },
		"fewer rows than it sums":   func(c *driftv1.Counts) { c.Cells[0] = 0 },
		"cells of another features": func(c *driftv1.Counts) { c.Cells = append(c.Cells, 1) },
	} {
		stored := proto.CloneOf(&driftv1.Tally{Samples: 1, Features: whole.encode()})
		spoil(stored.Features[0])
		if before := sum.features[0].rows.Rows; sum.addEncoded(stored) || sum.features[0].rows.Rows != before {
			t.Errorf("a tally with %s was added", name)
		}
	}
}

func TestEmbeddingsThatCannotBeUsedAreRefused(t *testing.T) {
	r := learntRows(t, rand.New(rand.NewPCG(55, 0)), 100, 600)
	for name, spoil := range map[string]func(*driftv1.Embedding){
		"no width":       func(e *driftv1.Embedding) { e.Width = 0 },
		"a large width":  func(e *driftv1.Embedding) { e.Width = maxEmbedded + 1 },
		"no bandwidth":   func(e *driftv1.Embedding) { e.Bandwidth = 0 },
		"NaN":            func(e *driftv1.Embedding) { e.Bandwidth = math.NaN() },
		"infinity":       func(e *driftv1.Embedding) { e.Bandwidth = math.Inf(1) },
		"too few sums":   func(e *driftv1.Embedding) { e.Sums = nil },
		"too large sums": func(e *driftv1.Embedding) { e.Sums[1] = 601 << 24 },
	} {
		doc := proto.CloneOf(r.doc)
		if spoil(doc.Features[0].GetEmbedding()); Check(doc) == nil {
			t.Errorf("an embedding with %s was taken", name)
		}
	}
	if err := Check(r.doc); err != nil {
		t.Error(err)
	}
}

// What is kept of an embedding beside its reference: the open slot, one that is over, the window under way, the last one.
func TestAnEmbeddingTakesAtMostSixKilobytes(t *testing.T) {
	one := learntRows(t, rand.New(rand.NewPCG(59, 0)), 100, 500).doc
	all := new(driftv1.Reference)
	for i := range 100 {
		f := proto.CloneOf(one.GetFeatures()[0])
		f.Name = fmt.Sprint("x", i, wholeRow)
		all.Features = append(all.Features, f)
	}
	r, err := newReference(all)
	if err != nil {
		t.Fatal(err)
	}
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
	each := int64(after.HeapAlloc-before.HeapAlloc) / 100
	t.Logf("%d bytes for each embedding", each)
	if each > 6<<10 {
		t.Errorf("%d bytes for each embedding, want at most 6144", each)
	}
	runtime.KeepAlive(v)
}

// Which rows a calibration draws from is left to chance, so that those of the first minutes do not stand for a day.
func TestRowsThatAreKeptAreOfAllThatCame(t *testing.T) {
	r := &rows{waves: waves().First(2)}
	for i := range 4 * keptRows {
		r.add([]float64{float64(i / keptRows), 1})
	}
	late := 0
	last := make([]float64, stat.FourierFeatures)
	r.waves.Of(last, []float64{3, 1}, r.bandwidth)
	for _, kept := range r.kept {
		if slices.Equal(kept, last) {
			late++
		}
	}
	if len(r.kept) != keptRows || late < keptRows/5 || late > keptRows/3 { // a quarter, and more than three standard deviations
		t.Errorf("%d of %d rows that are kept are of the last quarter", late, len(r.kept))
	}
}

// Rows that are no numbers while an embedding is learnt are counted, and do not spoil it.
func TestAnEmbeddingIsLearntDespiteRowsThatAreNone(t *testing.T) {
	rng := rand.New(rand.NewPCG(56, 0))
	var c Column
	waves := stat.NewWaves(70)
	for i := range 700 {
		row := wideRow(rng, 70, 0)
		switch i % 10 {
		case 0:
			row[3] = math.NaN()
		case 1:
			row[4] = math.Inf(1)
		}
		c.row(&embedded{row, waves})
	}
	c.row(&embedded{wideRow(rng, 71, 0), stat.NewWaves(71)})
	f, ok := c.Feature("x")
	if !ok || f.GetCounts()[0] != 560 || f.GetInfinite() != 70 || f.GetMissing() != 71 || f.GetRows() != 701 || c.seen() != 701 {
		t.Errorf("learnt %v of %d", f, c.seen())
	}
	var none Column
	none.row(&embedded{[]float64{math.Inf(1)}, stat.NewWaves(1)})
	if f, ok := none.Feature("x"); ok {
		t.Errorf("learnt %v of no finite row", f)
	}
}

func TestNoMoreEmbeddingsAreLearntThanThereIsRoomFor(t *testing.T) {
	l, o := newLearner(1), newObserver(nil)
	var inputs []tensor.Tensor
	for i := range 12 {
		inputs = append(inputs, wideTensor(t, fmt.Sprint("x", i), make([]float64, 65)))
	}
	l.learn(o.look(inputs, nil, nil, 0))
	var embeddings int
	for _, c := range l.columns {
		if c.rows != nil {
			embeddings++
		}
	}
	if embeddings != maxEmbeddings {
		t.Errorf("%d embeddings are learnt, want %d", embeddings, maxEmbeddings)
	}
}

// A row that is too wide to look at column by column, from the tensor to its sums: as wide as an embedding, and as an image.
func BenchmarkWideRow(b *testing.B) {
	for _, width := range []int{768, 3 * 224 * 224} {
		b.Run(fmt.Sprint("columns=", width), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(58, 0))
			l, o := newLearner(500), newObserver(nil)
			in := []tensor.Tensor{wideTensor(b, "x", wideRow(rng, width, 0))}
			for range 500 {
				l.learn(o.look(in, nil, nil, 0))
			}
			r, err := newReference(&driftv1.Reference{Features: l.features(nil)})
			if err != nil {
				b.Fatal(err)
			}
			v := newVersion(New(Config{}), Key{"m", "v"})
			v.configure(Settings{Policy: Policy{Window: time.Hour, ExpectedRun: time.Hour * 720}}, "", time.Now())
			v.setReference(r, []byte("stored"), time.Now())
			b.ReportAllocs()
			for b.Loop() {
				v.tally(v.observer.look(in, nil, r, 0))
			}
		})
	}
}
