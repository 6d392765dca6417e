package admin_test

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	"sluice/routing/memstore"
	"sluice/telemetry/labels"
)

// Everything that labels say is handed on: of v7, which is right 9 times in 10 with a probability of 0.9, and of v8, which is
// wrong as often.
func TestLabelsAreShownWhole(t *testing.T) {
	signer, store := labels.NewSigner(), memstore.New(memstore.Config{})
	monitor := labels.New(labels.Config{
		Signer: signer, Logger: slog.New(slog.DiscardHandler), Shelf: func(name string) labels.Shelf { return store.Shelf(name) },
	})
	classes := []string{"honest", "fraud"}
	settings := labels.Settings{
		Predicts: labels.Class, Classes: classes, GoodFrom: 0.5, MaxAge: 24 * time.Hour, Window: 24 * time.Hour,
		Detector: "esr", ExpectedRun: 100_000, ReferenceError: 0.2,
	}
	rng := rand.New(rand.NewPCG(1, 2))
	report := func(version string, right, wrong int) {
		v := monitor.Watch(labels.Key{Model: "fraud", Version: version}, settings)
		v.Predicted(2 * (right + wrong))
		var all []labels.Label
		for i := range right + wrong {
			id := &labels.Identity{
				Nonce: rng.Uint64(), At: time.Now(), Model: "fraud", Version: version, Arm: version,
				Prediction: labels.Prediction{Kind: labels.Class, Classes: labels.Fingerprint(classes), Indexes: []uint8{1}, Odds: []uint16{41_457}},
			}
			truth := classes[1]
			if i >= right {
				truth = classes[0]
			}
			all = append(all, labels.Label{ID: string(signer.Append(nil, id)), Truth: labels.TrueClass, Class: truth, Time: time.Now().Add(100 * time.Second)})
		}
		for i, o := range monitor.Take(t.Context(), all) {
			if o != (labels.Outcome{}) {
				t.Fatalf("label %d: %+v", i, o)
			}
		}
	}
	look := func() { // once: whoever is told to end looks before
		ended, end := context.WithCancel(t.Context())
		end()
		if err := monitor.Run(ended); err != nil {
			t.Error(err)
		}
	}
	report("v7", 0, 0)
	report("v8", 0, 0)
	look() // what was counted before the first time raises no alarm
	report("v7", 900, 100)
	report("v8", 30, 270)
	look()
	r := newRig(t, func(c *admin.Config) { c.Labels = monitor })
	client := adminv1connect.NewLabelServiceClient(r.http, r.url)
	got, err := client.GetLabels(t.Context(), &adminv1.GetLabelsRequest{Model: "fraud"})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetPredicts() != "class" || len(got.GetVersions()) != 2 {
		t.Fatalf("got %v, want two versions that predict classes", got)
	}
	p := 1 / (1 + math.Exp(-math.Log((1-1e-7)/1e-7)*(2*41_457./65_535-1))) // of the odds above: 0.986
	for i, want := range []struct {
		version     string
		right, n    float64
		predictions uint64
	}{{"v7", 900, 1000, 2000}, {"v8", 30, 300, 600}} {
		v := got.GetVersions()[i]
		w := v.GetCurrent()
		if v.GetVersion() != want.version || v.GetPredictions() != want.predictions || v.GetLabelled() != uint64(want.n) || v.GetBaseline() != 0.2 || v.GetLast() != nil {
			t.Errorf("got %v, want %+v labelled, and a baseline of 0.2", v, want)
		}
		share := want.right / want.n
		for name, pair := range map[string][2]float64{
			"labels": {float64(w.GetLabels()), want.n}, "errors": {float64(w.GetErrors()), want.n - want.right}, "accuracy": {w.GetAccuracy(), share},
			"macro F1": {w.GetMacroF1(), share / (1 + share)}, // of fraud alone, since honest is never predicted and has 0
			"log-loss": {w.GetLogLoss(), -share*math.Log(p) - (1-share)*math.Log(1-p)},
			"Brier":    {w.GetBrier(), share*(1-p)*(1-p) + (1-share)*p*p}, "AUC": {w.GetAuc(), 0.5}, "AUC's bound": {w.GetAucBound(), 0.5},
			"AUC's error": {w.GetAucError(), math.Sqrt((0.25 + (want.n-2)/12) / (want.right * (want.n - want.right)))}, // Hanley and McNeil's for 1/2
			"window":      {w.GetTo().AsTime().Sub(w.GetFrom().AsTime()).Hours(), 24},
			"honest":      {float64(w.GetClasses()[0].GetLabels()), want.n - want.right}, "fraud": {float64(w.GetClasses()[1].GetLabels()), want.right},
			"F1 of honest": {w.GetClasses()[0].GetF1(), 0}, "F1 of fraud": {w.GetClasses()[1].GetF1(), 2 * share / (1 + share)},
		} {
			if math.Abs(pair[0]-pair[1]) > 1e-9 {
				t.Errorf("%s: %s = %v, want %v", want.version, name, pair[0], pair[1])
			}
		}
		if d := w.GetMedianDelay().AsDuration(); d < 64*time.Second || d > 128*time.Second {
			t.Errorf("%s: median delay %v, want 100 s within its cell", want.version, d)
		}
		if w.Rmse != nil || w.Mae != nil || w.Bias != nil || w.Reward != nil {
			t.Errorf("%s: got %v, want nothing of numbers and rewards", want.version, w)
		}
	}
	c := got.GetComparisons()
	if len(c) != 1 || c[0].GetVersion() != "v8" || c[0].GetWith() != "v7" || math.Abs(c[0].GetDifference()-0.8) > 1e-9 || c[0].GetVerdict() != "worse" ||
		!(c[0].GetLow() > 0.5 && c[0].GetLow() < 0.8 && c[0].GetHigh() > 0.8 && c[0].GetHigh() < 1.1) {
		t.Errorf("comparisons %v, want v8 to be worse by about 0.8", c)
	}
	a := got.GetAlarms()
	if len(a) != 1 || a[0].GetVersion() != "v8" || a[0].GetDetector() != "esr" || a[0].GetLabels() == 0 || a[0].GetErrors() == 0 || a[0].GetErrors() > a[0].GetLabels() ||
		!strings.Contains(a[0].GetText(), "labels in this window are errors") || time.Since(a[0].GetTime().AsTime()) > time.Minute {
		t.Errorf("alarms %v, want one of v8 with its numbers", a)
	}
}
