package labels_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
	"sluice/proto/inference/tensor"
	labelsv1 "sluice/proto/sluice/labels/v1"
	"sluice/telemetry/labels"
	"sluice/telemetry/labels/score"
)

// aWhile is long enough for counts to be exchanged, at 5 s a step.
const aWhile = 11 * time.Second

// Predictions of one gateway, labels to another: all show the same, and it is what one alone would have counted.
func TestGatewaysCountTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := start(t, 3, settings(), nil)
		for i := range 600 {
			many.outcome(many.all[i%3], many.all[i/3%3], v1, 0.2)
		}
		time.Sleep(aWhile)
		alone := start(t, 1, settings(), nil)
		for range 600 {
			alone.outcome(alone.all[0], alone.all[0], v1, 0.2)
		}
		want := of(alone.all[0], v1)
		if want.Current.Labels != 600 || want.Current.Accuracy < 0.7 || want.Current.Accuracy > 0.9 {
			t.Fatalf("alone: %+v", want.Current)
		}
		for i, m := range many.all {
			got := of(m, v1)
			if got.Predictions != 600 || got.Labelled != 600 || got.Current.Labels != 600 || got.Current.Errors != want.Current.Errors {
				t.Errorf("gateway %d: %d of %d predictions labelled, %d labels with %d errors, want 600 and %d", i,
					got.Labelled, got.Predictions, got.Current.Labels, got.Current.Errors, want.Current.Errors)
			}
			for what, pair := range map[string][2]float64{
				"accuracy": {got.Current.Accuracy, want.Current.Accuracy}, "F1": {got.Current.MacroF1, want.Current.MacroF1},
				"calibration": {got.Current.CalibrationError, want.Current.CalibrationError},
				"log-loss":    {got.Current.LogLoss, want.Current.LogLoss}, "Brier": {got.Current.Brier, want.Current.Brier}, "AUC": {got.Current.AUC, want.Current.AUC},
			} {
				if !(math.Abs(pair[0]-pair[1]) < 1e-9) {
					t.Errorf("gateway %d: %s %v, want %v", i, what, pair[0], pair[1])
				}
			}
		}
	})
}

func TestALabelCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m := g.all[0]
		id := g.predict(m, v1, 0.9)
		tell(t, m, id, "fraud")
		for _, class := range []string{"fraud", "honest"} { // the first one counts, whatever comes later
			time.Sleep(time.Hour)
			if duplicate, refused := take(m, labels.Label{ID: id, Truth: labels.TrueClass, Class: class}); !duplicate || refused != nil {
				t.Errorf("a second label: duplicate %v, refused %v, want it known", duplicate, refused)
			}
		}
		if c := m.Counts(); c.Counted != 1 || c.Duplicates != 2 {
			t.Errorf("counts %+v, want one label and two repeated ones", c)
		}
		if r := of(m, v1); r.Labelled != 1 {
			t.Errorf("%d predictions labelled, want 1", r.Labelled)
		}
	})
}

// The rows of a batch are predictions like others: each has its own label, which counts once, for what was predicted of
// that row.
func TestEachRowOfABatchHasItsLabel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m := g.all[0]
		m.Watch(v1, settings()).Predicted(3)
		batch := labels.OfProbabilities(labels.Fingerprint(classes), []float64{0.9, 0.1}, []float64{0.2, 0.8}, []float64{0.4, 0.6})
		id := string(g.signer.Append(nil, &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v1", Arm: "v1", Prediction: batch}))
		all := []labels.Label{
			{ID: id, Row: 0, Truth: labels.TrueClass, Class: "honest"},
			{ID: id, Row: 1, Truth: labels.TrueClass, Class: "honest"},
			{ID: id, Row: 1, Truth: labels.TrueClass, Class: "fraud"}, // too late
			{ID: id, Row: 2, Truth: labels.TrueClass, Class: "honest"},
			{ID: id, Row: 3, Truth: labels.TrueClass, Class: "fraud"},
			{ID: id, Row: labels.NoRow, Truth: labels.TrueClass, Class: "fraud"},
		}
		for i, o := range m.Take(t.Context(), all) {
			if wrong := o.Refused != nil && o.Refused.Reason == labels.WrongRow; o.Duplicate != (i == 2) || wrong != (i >= 4) {
				t.Errorf("label %d: duplicate %v, refused %v, want the third known and the last two refused for their rows", i, o.Duplicate, o.Refused)
			}
		}
		for i, o := range m.Take(t.Context(), all[:4]) {
			if !o.Duplicate {
				t.Errorf("label %d again: %+v, want it known", i, o)
			}
		}
		r := of(m, v1)
		// Honest was expected with 0.9, and then, when it came again, fraud with 0.8 and 0.6.
		brier := (0.1*0.1 + 0.8*0.8 + 0.6*0.6) / 3
		if r.Current.Labels != 3 || r.Current.Errors != 2 || math.Abs(r.Current.Accuracy-1./3) > 1e-9 || math.Abs(r.Current.Brier-brier) > 1e-4 {
			t.Errorf("%+v, want two errors of three and a Brier score of %.4f", r.Current, brier)
		}
		if r.Predictions != 3 || r.Labelled != 3 {
			t.Errorf("%d of %d labelled, want three of three", r.Labelled, r.Predictions)
		}
	})
}

func TestEachRowOfABatchOfNumbersHasItsLabel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Predicts, s.Classes = labels.Number, nil
		g := start(t, 1, s, nil)
		id := string(g.signer.Append(nil, &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v1",
			Prediction: labels.Prediction{Kind: labels.Number, Numbers: []float64{10, 20}}}))
		for row, truth := range []float64{11, 17} {
			if duplicate, refused := take(g.all[0], labels.Label{ID: id, Row: row, Truth: labels.TrueNumber, Number: truth}); duplicate || refused != nil {
				t.Errorf("row %d: duplicate %v, refused %v", row, duplicate, refused)
			}
		}
		if m := of(g.all[0], v1).Current; m.Labels != 2 || m.MAE != 2 || m.Bias != 1 {
			t.Errorf("%+v, want errors of -1 and 3", m)
		}
	})
}

// Delays are counted in cells that double: 10 s is in that from 8 to 16 s, 100 s in that from 64 to 128 s.
func TestMedianDelayIsInterpolatedInItsCell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m := g.all[0]
		tellAfter := func(d time.Duration) {
			t.Helper()
			id := g.predict(m, v1, 0.9)
			if _, refused := take(m, labels.Label{ID: id, Truth: labels.Reward, Number: 1, Time: time.Now().Add(d)}); refused != nil {
				t.Fatal(refused)
			}
		}
		for i, want := range []time.Duration{12 * time.Second, 16 * time.Second, 80 * time.Second, 256 * time.Second / 3} {
			d := 100 * time.Second
			if i == 0 {
				d = 10 * time.Second
			}
			tellAfter(d)
			if got := of(m, v1).Current.MedianDelay; (got - want).Abs() > time.Millisecond {
				t.Errorf("median delay of one label after 10 s and %d after 100 s: %v, want %v", i, got, want)
			}
		}
	})
}

// The filter of all gateways is full when all of them together have filled it.
func TestACohortIsFullByTheLabelsOfAllGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m, shelf := g.all[0], g.store.Shelf("label-tallies")
		tell(t, m, g.predict(m, v1, 0.9), "fraud")
		time.Sleep(aWhile)
		stored, err := shelf.All(t.Context())
		if err != nil || len(stored) != 1 {
			t.Fatalf("%d tallies, %v, want that of this gateway", len(stored), err)
		}
		for _, data := range stored {
			other := new(labelsv1.Tally)
			if err := proto.Unmarshal(data, other); err != nil {
				t.Fatal(err)
			}
			other.Cohorts[0].Labels = 999_998
			if data, err = proto.Marshal(other); err != nil {
				t.Fatal(err)
			}
			if err := shelf.Put(t.Context(), "m v1 other", data); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(aWhile)
		tell(t, m, g.predict(m, v1, 0.9), "fraud") // the millionth
		_, refused := take(m, labels.Label{ID: g.predict(m, v1, 0.9), Truth: labels.TrueClass, Class: "fraud"})
		if refused == nil || refused.Reason != labels.Full {
			t.Errorf("one more than a million: %v, want it refused as full", refused)
		}
	})
}

// With three versions there are two comparisons, which are wrong once in twenty times together.
func TestComparisonsHoldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m, v3 := g.all[0], labels.Key{Model: "m", Version: "v3"}
		m.Watch(v3, settings())
		arm := func(key labels.Key, n, errors int) (losses score.Moments) {
			for i := range n {
				class, loss := "fraud", 0.0
				if i < errors {
					class, loss = "honest", 1
				}
				tell(t, m, g.predict(m, key, 0.9), class)
				losses.Add(loss)
			}
			return losses
		}
		base := arm(v1, 1000, 100)
		others := map[string]score.Moments{"v2": arm(v2, 500, 50), "v3": arm(v3, 400, 100)}
		all := labels.Compare(m.Reports("m"))
		if len(all) != 2 {
			t.Fatalf("%d comparisons, want two", len(all))
		}
		for _, c := range all {
			d, interval := score.Difference(base, others[c.Version], 1, 0.025)
			if c.With != "v1" || math.Abs(c.Difference-d) > 1e-9 || math.Abs(c.Interval.Low-interval.Low) > 1e-9 || math.Abs(c.Interval.High-interval.High) > 1e-9 {
				t.Errorf("%+v, want %v and %+v", c, d, interval)
			}
		}
	})
}

// An answer that was not understood is one prediction, which takes a reward.
func TestAnAnswerThatWasNotUnderstoodHasOneRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		id := string(g.signer.Append(nil, &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v1"}))
		if _, refused := take(g.all[0], labels.Label{ID: id, Row: 1, Truth: labels.Reward, Number: 1}); refused == nil || refused.Reason != labels.WrongRow {
			t.Errorf("row 1: %v, want it refused for its row", refused)
		}
		if _, refused := take(g.all[0], labels.Label{ID: id, Row: labels.NoRow, Truth: labels.Reward, Number: 1}); refused != nil {
			t.Errorf("no row: %v, want it counted", refused)
		}
	})
}

// marker is a store's marks, in memory.
type marker struct {
	mu   sync.Mutex
	bits map[string]map[uint32]bool
	down bool
	asks int
}

func (m *marker) Mark(_ context.Context, set string, _ time.Duration, items [][]uint32) ([]bool, error) {
	m.mu.Lock()
	m.asks++
	down := m.down
	m.mu.Unlock()
	if down {
		time.Sleep(2 * time.Second)
		return nil, errors.New("down")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bits[set] == nil {
		m.bits[set] = make(map[uint32]bool)
	}
	fresh := make([]bool, len(items))
	for i, bits := range items {
		for _, b := range bits {
			fresh[i] = fresh[i] || !m.bits[set][b]
			m.bits[set][b] = true
		}
	}
	return fresh, nil
}

// Sent to two gateways, and again after all were started anew, a label counts once, if the store has marks. Without
// them, because it is down, labels are taken all the same.
func TestALabelCountsOnceOnAllGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 0, settings(), nil)
		g.marks = &marker{bits: make(map[string]map[uint32]bool)}
		g.begin(2, settings(), nil)
		first, second := g.predict(g.all[0], v1, 0.9), g.predict(g.all[0], v1, 0.9)
		both := []labels.Label{
			{ID: first, Truth: labels.TrueClass, Class: "fraud"}, {ID: first, Truth: labels.TrueClass, Class: "fraud"},
			{ID: second, Truth: labels.TrueClass, Class: "fraud"},
		}
		if out := g.all[0].Take(t.Context(), both); out[0] != (labels.Outcome{}) || !out[1].Duplicate || out[2] != (labels.Outcome{}) {
			t.Fatalf("one request: %+v, want the second label to be a duplicate", out)
		}
		again := func() {
			t.Helper()
			for i, m := range g.all {
				for j, o := range m.Take(t.Context(), both) {
					if !o.Duplicate {
						t.Errorf("gateway %d, label %d: %+v, want a duplicate", i, j, o)
					}
				}
			}
		}
		again()
		time.Sleep(aWhile)
		g.stop()
		g.begin(2, settings(), nil)
		again()
		g.marks.mu.Lock()
		g.marks.down = true
		g.marks.mu.Unlock()
		asks, began := g.marks.asks, time.Now()
		for range 10 {
			tell(t, g.all[1], g.predict(g.all[0], v1, 0.9), "fraud")
		}
		if c := g.all[1].Counts(); c.Unshared != 10 || c.Counted != 10 {
			t.Errorf("with the store down: %+v, want labels counted, and known to be taken alone", c)
		}
		if d := time.Since(began); d > 2*time.Second || g.marks.asks != asks+1 {
			t.Errorf("with the store down: asked %d times, and ten labels took %v, want one of them to have waited", g.marks.asks-asks, d)
		}
		g.marks.mu.Lock()
		g.marks.down = false
		g.marks.mu.Unlock()
		time.Sleep(aWhile)
		tell(t, g.all[1], g.predict(g.all[0], v1, 0.9), "fraud")
		if c := g.all[1].Counts(); c.Unshared != 10 || c.Counted != 11 {
			t.Errorf("with the store back: %+v, want it to be asked again", c)
		}
	})
}

// Six days late counts, in the window in which the label comes, though all gateways were started anew since; eight days
// late does not.
func TestLabelsMayComeDaysLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 2, settings(), nil)
		early, late := g.predict(g.all[0], v1, 0.9), g.predict(g.all[0], v1, 0.1)
		later := func(d time.Duration) {
			time.Sleep(aWhile)
			g.stop()
			time.Sleep(d)
			g.begin(2, settings(), nil)
			time.Sleep(aWhile)
		}
		later(6 * 24 * time.Hour)
		tell(t, g.all[1], early, "fraud")
		time.Sleep(aWhile)
		r := of(g.all[0], v1)
		if r.Current.Labels != 1 || r.Current.Accuracy != 1 || r.Predictions != 2 || r.Labelled != 1 {
			t.Errorf("after six days: %+v, %d of %d labelled, want one of two, and right", r.Current, r.Labelled, r.Predictions)
		}
		if d := r.Current.MedianDelay; d < 3*24*time.Hour || d > 12*24*time.Hour {
			t.Errorf("median delay %v, want six days within a factor of two", d)
		}
		later(time.Hour - 3*aWhile)
		r = of(g.all[0], v1)
		if r.Current.Labels != 0 || r.Last.Labels != 1 {
			t.Errorf("an hour later: %d labels in this window, %d in the last, want it in the last", r.Current.Labels, r.Last.Labels)
		}
		later(2 * 24 * time.Hour)
		_, refused := take(g.all[1], labels.Label{ID: late, Truth: labels.TrueClass, Class: "honest"})
		if refused == nil || refused.Reason != labels.Late {
			t.Errorf("after eight days: %v, want it refused as late", refused)
		}
		if r := of(g.all[0], v1); r.Predictions != 0 || r.Labelled != 0 {
			t.Errorf("after eight days: %d of %d, want both forgotten", r.Labelled, r.Predictions)
		}
	})
}

func TestLabelsThatFitNothingAreRefusedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m := g.all[0]
		good := func() *labels.Identity {
			return &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v1",
				Prediction: labels.OfProbabilities(labels.Fingerprint(classes), []float64{0.5, 0.5})}
		}
		sign := func(change func(*labels.Identity)) string {
			id := good()
			change(id)
			return string(g.signer.Append(nil, id))
		}
		ok := func(*labels.Identity) {}
		stranger := string(labels.NewSigner().Append(nil, good()))
		for _, tt := range []struct {
			label labels.Label
			want  labels.Reason
		}{
			{labels.Label{ID: "nonsense", Truth: labels.Reward}, labels.Malformed},
			{labels.Label{ID: stranger, Truth: labels.Reward}, labels.UnknownKey},
			{labels.Label{ID: sign(func(id *labels.Identity) { id.Version = "v9" }), Truth: labels.Reward}, labels.UnknownVersion},
			{labels.Label{ID: sign(func(id *labels.Identity) { id.At = time.Now().Add(-8 * 24 * time.Hour) }), Truth: labels.Reward}, labels.Late},
			{labels.Label{ID: sign(func(id *labels.Identity) { id.At = time.Now().Add(time.Hour) }), Truth: labels.Reward}, labels.WrongTime},
			{labels.Label{ID: sign(ok), Truth: labels.Reward, Time: time.Now().Add(time.Hour)}, labels.WrongTime},
			{labels.Label{ID: sign(ok), Truth: labels.Reward, Time: time.Now().Add(-time.Hour)}, labels.WrongTime},
			{labels.Label{ID: sign(ok)}, labels.WrongKind},
			{labels.Label{ID: sign(ok), Truth: labels.TrueNumber, Number: 1}, labels.WrongKind},
			{labels.Label{ID: sign(ok), Truth: labels.Reward, Number: math.NaN()}, labels.WrongKind},
			{labels.Label{ID: sign(ok), Truth: labels.Reward, Number: math.Inf(1)}, labels.WrongKind},
			{labels.Label{ID: sign(ok), Truth: labels.TrueClass, Class: "theft"}, labels.UnknownClass},
			{labels.Label{ID: sign(func(id *labels.Identity) { id.Prediction.Classes++ }), Truth: labels.TrueClass, Class: "fraud"}, labels.UnknownClass},
			{labels.Label{ID: sign(func(id *labels.Identity) { id.Prediction.Indexes[0] = 2 }), Truth: labels.TrueClass, Class: "fraud"}, labels.UnknownClass},
			{labels.Label{ID: sign(func(id *labels.Identity) { id.Prediction = labels.Prediction{} }), Truth: labels.TrueClass, Class: "fraud"}, labels.NoPrediction},
		} {
			before := m.Counts().Refused[tt.want]
			duplicate, refused := take(m, tt.label)
			if refused == nil || refused.Reason != tt.want || duplicate {
				t.Errorf("%+v: %v, want it refused as %v", tt.label, refused, tt.want)
			}
			if after := m.Counts().Refused[tt.want]; after != before+1 {
				t.Errorf("%v: counted %d times", tt.want, after-before)
			}
		}
		if c := m.Counts().Counted; c != 0 {
			t.Errorf("%d labels counted, want none", c)
		}
	})
}

// A label that was refused may be sent again once it is right.
func TestARefusedLabelMayBeMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		id := g.predict(g.all[0], v1, 0.9)
		if _, refused := take(g.all[0], labels.Label{ID: id, Truth: labels.TrueClass, Class: "Fraud"}); refused == nil {
			t.Fatal("another class was taken")
		}
		tell(t, g.all[0], id, "fraud")
	})
}

// One alarm in each window on every gateway, none before; and what is usual is still known after all were started anew.
func TestAVersionThatErrsMoreOftenIsTold(t *testing.T) {
	for _, detector := range []string{"esr", "adwin", "page_hinkley"} {
		t.Run(detector, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := settings()
				s.Detector = detector
				g := start(t, 2, s, nil)
				feed := func(n int, errors float64) {
					for i := range n {
						g.outcome(g.all[0], g.all[i%2], v1, errors)
						g.outcome(g.all[0], g.all[i%2], v2, 0.05)
						if i%50 == 0 {
							time.Sleep(6 * time.Second)
						}
					}
					time.Sleep(aWhile)
				}
				feed(1500, 0.05)
				want := map[string]string{"esr": "*change.ESR", "adwin": "*change.ADWIN", "page_hinkley": "*change.PageHinkley"}[detector]
				if got := labels.DetectorOf(g.all[0], v1); got != want {
					t.Fatalf("watched by %s, want %s", got, want)
				}
				if r := of(g.all[0], v1); detector == "esr" && (math.IsNaN(r.Baseline) || r.Baseline < 0.05 || r.Baseline > 0.1) {
					t.Fatalf("baseline %v, want it learnt, a little above 0.05", r.Baseline)
				}
				if len(g.alarms) > 0 {
					t.Fatalf("alarm before anything has changed: %+v", <-g.alarms)
				}
				if detector == "esr" { // the others begin anew
					g.stop()
					g.begin(2, s, nil)
					time.Sleep(aWhile)
				}
				feed(500, 0.4)
				if n := len(g.alarms); n < 2 || n > 4 {
					t.Errorf("%d alarms of two gateways in at most two windows, want 2 to 4", n)
				}
				for len(g.alarms) > 0 {
					if a := <-g.alarms; a.Key != v1 || a.Labels == 0 || a.Errors == 0 || a.Detector != detector || a.Text == "" {
						t.Errorf("alarm %+v, want one of v1 with its numbers", a)
					}
				}
			})
		})
	}
}

// Of the same calls, one version errs twice as often.
func TestComparisonsAreOfCallsThatTheSplitHasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), nil)
		m := g.all[0]
		for range 1500 {
			g.outcome(m, m, v1, 0.1)
		}
		for range 400 {
			g.outcome(m, m, v2, 0.1)
		}
		// Somebody tries v2 by name on what it is known to get wrong.
		for range 400 {
			id := string(g.signer.Append(nil, &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v2",
				Prediction: labels.OfProbabilities(labels.Fingerprint(classes), []float64{1, 0})}))
			tell(t, m, id, "fraud")
		}
		c := labels.Compare(m.Reports("m"))
		if len(c) != 1 || c[0].Version != "v2" || c[0].With != "v1" || c[0].Interval.Low > 0 || c[0].Interval.High < 0 || math.Abs(c[0].Difference) > 0.06 {
			t.Errorf("comparison %+v, want v2 and v1 not to differ", c)
		}
		for range 600 {
			g.outcome(m, m, v2, 0.35)
		}
		if c = labels.Compare(m.Reports("m")); c[0].Interval.Low <= 0 {
			t.Errorf("comparison %+v, want v2 to be worse", c)
		}
	})
}

func TestNumbersAndRewards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Predicts, s.Classes, s.Tolerance = labels.Number, nil, 1
		g := start(t, 1, s, nil)
		m := g.all[0]
		for i, truth := range []float64{10, 12, 9.5} { // off by 0, 2 and 0.5
			id := string(g.signer.Append(nil, &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v1",
				Prediction: labels.Prediction{Kind: labels.Number, Numbers: []float64{10}}}))
			if _, refused := take(m, labels.Label{ID: id, Truth: labels.TrueNumber, Number: truth}); refused != nil {
				t.Fatalf("%d: %v", i, refused)
			}
		}
		for _, reward := range []float64{1, 0, 0.5} {
			id := string(g.signer.Append(nil, &labels.Identity{Nonce: g.rng.Uint64(), At: time.Now(), Model: "m", Version: "v2"}))
			if _, refused := take(m, labels.Label{ID: id, Truth: labels.Reward, Number: reward}); refused != nil {
				t.Fatal(refused)
			}
		}
		a, b := of(m, v1).Current, of(m, v2).Current
		if math.Abs(a.RMSE-math.Sqrt(4.25/3)) > 1e-12 || math.Abs(a.MAE-2.5/3) > 1e-12 || math.Abs(a.Bias+0.5) > 1e-12 || a.Errors != 1 {
			t.Errorf("numbers: %+v, want RMSE √(4.25/3), MAE 2.5/3, bias -0.5 and one error", a)
		}
		if b.Reward != 0.5 || b.Errors != 1 {
			t.Errorf("rewards: %+v, want 0.5 on average and one error", b)
		}
	})
}

// hanging is a store that never answers until its caller gives up.
type hanging struct{ labels.Shelf }

func (hanging) Put(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAHangingStoreKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 1, settings(), func(s labels.Shelf) labels.Shelf { return hanging{s} })
		m := g.all[0]
		began := time.Now()
		for range 1200 {
			g.outcome(m, m, v1, 0.1)
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("1200 labels took %v, want them not to wait", d)
		}
		if r := of(m, v1); r.Current.Labels != 1200 || r.Labelled != 1200 {
			t.Errorf("%d labels, want those of this gateway", r.Current.Labels)
		}
	})
}

// What a gateway has counted itself is judged, too, though nothing can be exchanged.
func TestAHangingStoreHidesNoAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.ReferenceError = 0.05
		g := start(t, 1, s, func(s labels.Shelf) labels.Shelf { return hanging{s} })
		m := g.all[0]
		feed := func(key labels.Key, errors float64) {
			for range 500 {
				g.outcome(m, m, key, errors)
			}
			time.Sleep(aWhile)
		}
		feed(v1, 0)
		if len(g.alarms) > 0 {
			t.Fatalf("alarm before anything has changed: %+v", <-g.alarms)
		}
		feed(v2, 1)
		if len(g.alarms) != 1 {
			t.Fatalf("%d alarms, want one", len(g.alarms))
		}
		if a := <-g.alarms; a.Key != v2 || a.Text != "500 of 500 labels in this window are errors (100 %), where at most 5 % are usual" {
			t.Errorf("alarm %+v, want one of v2 with its numbers", a)
		}
	})
}

// While the store hangs, requests that come at once wait for it for no longer than it takes to notice, and then one in
// seven seconds does: 5 s apart, and 2 s long.
func TestAHangingStoreMakesFewRequestsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 0, settings(), nil)
		g.marks = &marker{bits: make(map[string]map[uint32]bool), down: true}
		g.begin(1, settings(), nil)
		var all sync.WaitGroup
		var late atomic.Int64
		const each, requests = 50 * time.Millisecond, 1400 // 70 s
		for range requests {
			id := g.predict(g.all[0], v1, 0.9)
			all.Go(func() {
				began := time.Now()
				tell(t, g.all[0], id, "fraud")
				if time.Since(began) > 0 {
					late.Add(1)
				}
			})
			time.Sleep(each)
		}
		all.Wait()
		if n := late.Load(); n < 8 || n > 5+10 {
			t.Errorf("%d of %d requests waited, want those of the first 0.2 s and then one in 7 s", n, requests)
		}
		if c := g.all[0].Counts(); c.Unshared != requests {
			t.Errorf("%+v, want every label counted, and known to be taken alone", c)
		}
	})
}

// Something in the store that is no tally keeps no gateway from adding up the others; and what a version has left that
// nobody knows any more is removed once it cannot be of use.
func TestTheStoreIsKeptInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 2, settings(), nil)
		shelf := g.store.Shelf("label-tallies")
		for key, value := range map[string]string{"m v1 stranger": "\xff", "m v0 retired": "", "nonsense": "\xff"} {
			if value == "" {
				data, err := proto.Marshal(&labelsv1.Tally{Changed: time.Now().Unix()})
				if err != nil {
					t.Fatal(err)
				}
				value = string(data)
			}
			if err := shelf.Put(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		g.outcome(g.all[0], g.all[0], v1, 0)
		time.Sleep(aWhile)
		if r := of(g.all[1], v1); r.Current.Labels != 1 {
			t.Errorf("%d labels, want the one that the other gateway has taken", r.Current.Labels)
		}
		has := func(key string) bool {
			all, err := shelf.All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return all[key] != nil
		}
		if !has("m v0 retired") {
			t.Error("a fresh tally of a version that this gateway does not know was removed")
		}
		g.stop()
		time.Sleep(105 * 24 * time.Hour)
		g.begin(1, settings(), nil)
		time.Sleep(aWhile)
		if has("m v0 retired") {
			t.Error("a tally of a version that nobody knows any more is there after 105 days")
		}
	})
}

// Counts of another layout, such as by other classes, are not mixed in; and what was counted by the old one is not kept.
func TestChangedClassesBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, 2, settings(), nil)
		for range 50 {
			g.outcome(g.all[0], g.all[0], v1, 0)
		}
		time.Sleep(aWhile)
		s := settings()
		s.Classes = []string{"honest", "fraud", "theft"}
		g.all[1].Watch(v1, s)
		time.Sleep(aWhile)
		if r := of(g.all[1], v1); r.Current.Labels != 0 || len(r.Current.Classes) != 3 {
			t.Errorf("%+v, want nothing of what was counted by other classes", r.Current)
		}
		if r := of(g.all[0], v1); r.Current.Labels != 50 {
			t.Errorf("%d labels, want the 50 of the gateway that has not changed", r.Current.Labels)
		}
	})
}

func TestEverythingMayBeUsedAtOnce(t *testing.T) {
	g := start(t, 2, settings(), nil)
	var ids []string
	for range 400 {
		ids = append(ids, g.predict(g.all[0], v1, 0.7))
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for _, id := range ids { // everybody reports everything
				_, _ = take(g.all[worker%2], labels.Label{ID: id, Truth: labels.TrueClass, Class: "fraud"})
			}
		})
		all.Go(func() {
			for range 50 {
				g.all[worker%2].Reports("")
				g.all[worker%2].Counts()
				g.all[worker%2].Watch(v1, settings()).Predicted(1)
			}
		})
	}
	all.Wait()
	for i, m := range g.all {
		if c := m.Counts(); c.Counted != 400 || c.Duplicates != 400 {
			t.Errorf("gateway %d: %+v, want each label counted once", i, c)
		}
	}
}

func output(name, datatype string, shape []int64, c *inference.InferTensorContents) *inference.ModelInferResponse_InferOutputTensor {
	return &inference.ModelInferResponse_InferOutputTensor{Name: name, Datatype: datatype, Shape: shape, Contents: c}
}

func TestPredictionsAreFoundInAnswers(t *testing.T) {
	three := []string{"a", "b", "c"}
	floats := func(v ...float32) *inference.InferTensorContents {
		return &inference.InferTensorContents{Fp32Contents: v}
	}
	ints := func(v ...int64) *inference.InferTensorContents {
		return &inference.InferTensorContents{Int64Contents: v}
	}
	texts := func(v ...string) *inference.InferTensorContents {
		c := new(inference.InferTensorContents)
		for _, s := range v {
			c.BytesContents = append(c.BytesContents, []byte(s))
		}
		return c
	}
	type indexes = []uint8
	for _, tt := range []struct {
		name    string
		classes []string
		output  string
		out     *inference.ModelInferResponse_InferOutputTensor
		indexes []uint8   // of classes
		numbers []float64 // if neither is there, it is not understood
		odds    int
	}{
		{"probabilities", three, "", output("y", "FP32", []int64{1, 3}, floats(0.2, 0.5, 0.3)), indexes{1}, nil, 3},
		{"probabilities without rows", three, "", output("y", "FP32", []int64{3}, floats(0.2, 0.3, 0.5)), indexes{2}, nil, 3},
		{"scores", three, "", output("y", "FP32", []int64{1, 3}, floats(-2, 5, 3)), indexes{1}, nil, 0},
		{"whole scores", three, "", output("y", "INT64", []int64{1, 3}, ints(7, 5, 3)), indexes{0}, nil, 0},
		{"two probabilities", classes, "", output("y", "FP32", []int64{1, 2}, floats(0.25, 0.75)), indexes{1}, nil, 1},
		{"one probability", classes, "", output("y", "FP32", []int64{1, 1}, floats(0.25)), indexes{0}, nil, 1},
		{"a name", three, "y", output("y", "BYTES", []int64{1}, texts("c")), indexes{2}, nil, 0},
		{"an index", three, "", output("y", "INT64", []int64{1}, ints(1)), indexes{1}, nil, 0},
		{"a number", nil, "", output("y", "FP32", []int64{1, 1}, floats(2.5)), nil, []float64{2.5}, 0},

		{"rows of probabilities", three, "", output("y", "FP32", []int64{2, 3}, floats(0, 1, 0, 0.6, 0.4, 0)), indexes{1, 0}, nil, 6},
		{"rows of two probabilities", classes, "", output("y", "FP32", []int64{2, 2}, floats(0.25, 0.75, 1, 0)), indexes{1, 0}, nil, 2},
		{"rows of one probability", classes, "", output("y", "FP32", []int64{3, 1}, floats(0.25, 0.75, 1)), indexes{0, 1, 1}, nil, 3},
		{"a row of scores behind one of probabilities", three, "", output("y", "FP32", []int64{2, 3}, floats(0, 1, 0, 0, 1, 5)), indexes{1, 2}, nil, 0},
		{"a row of scores before one of probabilities", three, "", output("y", "FP32", []int64{2, 3}, floats(0, 1, 5, 0, 1, 0)), indexes{2, 1}, nil, 0},
		{"names", three, "", output("y", "BYTES", []int64{3}, texts("c", "a", "a")), indexes{2, 0, 0}, nil, 0},
		{"indexes", three, "", output("y", "INT64", []int64{3}, ints(1, 1, 2)), indexes{1, 1, 2}, nil, 0},
		{"indexes in a column", three, "", output("y", "INT64", []int64{2, 1}, ints(1, 2)), indexes{1, 2}, nil, 0},
		{"numbers", nil, "", output("y", "FP32", []int64{2, 1}, floats(1, 2)), nil, []float64{1, 2}, 0},
		{"as many as there may be", nil, "", output("y", "FP32", []int64{128}, floats(make([]float32, 128)...)), nil, make([]float64, 128), 0},
		{"probabilities that do not fit", three, "", output("y", "FP32", []int64{128, 3}, floats(slices.Repeat([]float32{1, 0, 0}, 128)...)), make(indexes, 128), nil, 384},
		{"more probabilities that do not", []string{"a", "b", "c", "d"}, "", output("y", "FP32", []int64{128, 4}, floats(slices.Repeat([]float32{1, 0, 0, 0}, 128)...)), make(indexes, 128), nil, 0},

		{"another output", three, "z", output("y", "FP32", []int64{1, 3}, floats(0.2, 0.5, 0.3)), nil, nil, 0},
		{"too many rows", nil, "", output("y", "FP32", []int64{129}, floats(make([]float32, 129)...)), nil, nil, 0},
		{"too many classes", classes, "", output("y", "FP32", []int64{1, 3}, floats(0.2, 0.5, 0.3)), nil, nil, 0},
		{"NaN", three, "", output("y", "FP32", []int64{1, 3}, floats(0.2, float32(math.NaN()), 0.3)), nil, nil, 0},
		{"NaN in a later row", classes, "", output("y", "FP32", []int64{2, 1}, floats(0.2, float32(math.NaN()))), nil, nil, 0},
		{"an unknown name", three, "", output("y", "BYTES", []int64{1}, texts("d")), nil, nil, 0},
		{"an unknown name in a later row", three, "", output("y", "BYTES", []int64{2}, texts("a", "d")), nil, nil, 0},
		{"names side by side", three, "", output("y", "BYTES", []int64{1, 3}, texts("a", "b", "c")), nil, nil, 0},
		{"an index beyond", three, "", output("y", "INT64", []int64{1}, ints(3)), nil, nil, 0},
		{"a negative index", three, "", output("y", "INT64", []int64{2}, ints(1, -1)), nil, nil, 0},
		{"an infinite number", nil, "", output("y", "FP32", []int64{1}, floats(float32(math.Inf(1)))), nil, nil, 0},
		{"two numbers", nil, "", output("y", "FP32", []int64{1, 2}, floats(1, 2)), nil, nil, 0},
		{"nothing", three, "", output("y", "FP32", []int64{0}, floats()), nil, nil, 0},
	} {
		outputs, err := tensor.Outputs(&inference.ModelInferResponse{Outputs: []*inference.ModelInferResponse_InferOutputTensor{tt.out}})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var p labels.Prediction
		err = labels.NewReader(tt.output, tt.classes).Read(outputs, &p)
		if understood := tt.indexes != nil || tt.numbers != nil; !understood {
			if err == nil {
				t.Errorf("%s: got %+v, want an error", tt.name, p)
			}
			continue
		}
		if err != nil || !slices.Equal(p.Indexes, tt.indexes) || !slices.Equal(p.Numbers, tt.numbers) || len(p.Odds) != tt.odds || p.Rows() != len(tt.indexes)+len(tt.numbers) {
			t.Errorf("%s: got %+v, %v, want classes %d, numbers %v and %d odds", tt.name, p, err, tt.indexes, tt.numbers, tt.odds)
		}
	}
}
