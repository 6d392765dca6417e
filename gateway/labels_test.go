package gateway

import (
	"io"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "sluice/proto/inference"
	feedbackv1 "sluice/proto/sluice/feedback/v1"
	"sluice/routing/memstore"
	"sluice/telemetry/labels"
)

// labelled makes a gateway take labels by a monitor with this signer.
func labelled(signer *labels.Signer) func(*Config) {
	return func(c *Config) {
		store := memstore.New(memstore.Config{})
		c.Labels = labels.New(labels.Config{
			Signer: signer, Logger: slog.New(slog.DiscardHandler), Shelf: func(name string) labels.Shelf { return store.Shelf(name) },
		})
	}
}

// identityOf reads the id of an answer; nil if there is none.
func identityOf(t *testing.T, s *labels.Signer, a *answer) *labels.Identity {
	t.Helper()
	if id := a.header[predictionField]; id != nil {
		t.Errorf("the id stands in the header: %q", id)
	}
	text := a.trailer.one(predictionField)
	if text == "" {
		return nil
	}
	id, err := s.Parse(text)
	if err != nil {
		t.Fatalf("id %q: %v", text, err)
	}
	return id
}

// scores answers with the probabilities of two classes, as a message of at least some size, in pieces.
func scores(t *testing.T, size, piece int, compressed bool) http.HandlerFunc {
	m := &pb.ModelInferResponse{Id: strings.Repeat("x", size), Outputs: []*pb.ModelInferResponse_InferOutputTensor{{
		Name: "p", Datatype: "FP32", Shape: []int64{1, 2}, Contents: &pb.InferTensorContents{Fp32Contents: []float32{0.25, 0.75}},
	}}}
	body := framed(t, m)
	if compressed {
		var err error
		if body, err = io.ReadAll(gzipped(t, m)); err != nil {
			t.Fatal(err)
		}
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		for p := range slices.Chunk(body, piece) {
			_, _ = w.Write(p)
			w.(http.Flusher).Flush()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}
}

const labelledRoutes = `
routes:
  - model: fraud
    services: [shop.Checkout]
    versions: [{name: v7, endpoints: [ONE]}, {name: v8, endpoints: [TWO]}]
    weights: {v7: 1}
    fallback: {to: [v8], on: [UNAVAILABLE]}
    labels: {predicts: class, classes: [honest, fraud]}
`

func labelledRoutesTo(one, two string) string {
	return strings.NewReplacer("ONE", `"`+one+`"`, "TWO", `"`+two+`"`).Replace(labelledRoutes)
}

var fraud = &pb.ModelInferRequest{ModelName: "fraud"}

// The prediction is found however its answer comes, and one that is too long to be kept is counted.
func TestAGoodAnswerEndsWithItsIdentity(t *testing.T) {
	signer := labels.NewSigner()
	for _, tt := range []struct {
		name        string
		size, piece int
		compressed  bool
		kind        labels.Kind
	}{
		{"at once", 0, 1 << 20, false, labels.Class},
		{"byte by byte", 0, 1, false, labels.Class},
		{"compressed", 500, 100, true, labels.Class},
		{"almost too long", maxReadAnswer - 200, 4096, false, labels.Class},
		{"too long", maxReadAnswer, 4096, false, labels.None},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, scores(t, tt.size, tt.piece, tt.compressed))
			r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
			a := r.call(modelInfer, message(fraud))
			if a.code != codes.OK {
				t.Fatalf("got %v %q", a.code, a.message)
			}
			id := identityOf(t, signer, a)
			if id == nil || id.Model != "fraud" || id.Version != "v7" || id.Arm != "v7" || id.Prediction.Kind != tt.kind {
				t.Fatalf("got %+v, want one of fraud v7 with a prediction of %v", id, tt.kind)
			}
			if p := id.Prediction; tt.kind == labels.Class && (!slices.Equal(p.Indexes, []uint8{1}) || len(p.Odds) != 1) {
				t.Errorf("got %+v, want class 1 with its probability", p)
			}
			report := r.cfg.Labels.Reports("fraud")[0]
			if want := uint64(1 - min(1, int(tt.kind))); report.Predictions != 1 || report.Unread != want {
				t.Errorf("%d predictions, %d unread, want 1 and %d", report.Predictions, report.Unread, want)
			}
			if n := r.director.reading.Load(); n != 0 {
				t.Errorf("%d bytes of answers are kept, want none", n)
			}
		})
	}
}

// Who has answered, whom the split had chosen, and what is no prediction.
func TestIdentitiesSayWhoHasAnswered(t *testing.T) {
	signer := labels.NewSigner()
	bad, good := serve(t, fails(codes.Unavailable, "no")), serve(t, scores(t, 0, 1<<20, false))
	r := start(t, labelledRoutesTo(bad.addr, good.addr), labelled(signer))
	for _, tt := range []struct {
		name    string
		path    string
		extra   []string
		version string // empty: no id
		arm     string
	}{
		{"fallen back", modelInfer, nil, "v8", "v7"},
		{"forced", modelInfer, []string{"sluice-version", "v8"}, "v8", ""},
		{"another service", "/shop.Checkout/Price", nil, "v8", "v7"},
		{"not a prediction", "/inference.GRPCInferenceService/ModelMetadata", nil, "", ""},
		{"failed", modelInfer, []string{"sluice-version", "v7"}, "", ""},
	} {
		body := message(fraud)
		if tt.path == "/inference.GRPCInferenceService/ModelMetadata" {
			body = message(&pb.ModelMetadataRequest{Name: "fraud"})
		}
		id := identityOf(t, signer, r.call(tt.path, body, tt.extra...))
		switch {
		case tt.version == "":
			if id != nil {
				t.Errorf("%s: got %+v, want no id", tt.name, id)
			}
		case id == nil || id.Version != tt.version || id.Arm != tt.arm:
			t.Errorf("%s: got %+v, want version %q and arm %q", tt.name, id, tt.version, tt.arm)
		}
	}
}

func TestRoutesWithoutLabelsGiveNoIdentity(t *testing.T) {
	signer := labels.NewSigner()
	s := serve(t, scores(t, 0, 1<<20, false))
	routes := labelledRoutesTo(s.addr, s.addr)
	unlabelled, _, _ := strings.Cut(routes, "    labels:")
	r := start(t, unlabelled, labelled(signer))
	if id := identityOf(t, signer, r.call(modelInfer, message(fraud))); id != nil {
		t.Errorf("got %+v, want no id", id)
	}
	r.publish(2, routes)
	if id := identityOf(t, signer, r.call(modelInfer, message(fraud))); id == nil {
		t.Error("got no id once the route takes labels")
	}
	r.publish(3, unlabelled)
	if id := identityOf(t, signer, r.call(modelInfer, message(fraud))); id != nil {
		t.Errorf("got %+v, want no id once the route takes none any more", id)
	}
	if n := len(r.cfg.Labels.Reports("")); n != 0 {
		t.Errorf("%d versions are still known, want none", n)
	}
}

// A stream may fail after it has begun to answer.
func TestAnswersThatFailLateHaveNoIdentity(t *testing.T) {
	signer := labels.NewSigner()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(frame(0, nil))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "13")
	})
	r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
	for _, path := range []string{modelInfer, modelStreamInfer} {
		a := r.call(path, message(fraud))
		if id := identityOf(t, signer, a); id != nil || a.code != codes.Internal {
			t.Errorf("%s: got %v, %+v, want the server's status and no id", path, a.code, id)
		}
	}
	if n := r.director.reading.Load(); n != 0 {
		t.Errorf("%d bytes of answers are kept, want none", n)
	}
}

// All rows of a batch have one id, and each has its label. An answer of more rows than an id has room for is counted, and its
// id is good for a reward.
func TestABatchHasOneIdentityForAllItsRows(t *testing.T) {
	signer := labels.NewSigner()
	var rows int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		probabilities := slices.Repeat([]float32{0.1, 0.7}, int(rows))[:rows]
		_, _ = w.Write(framed(t, &pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{
			Name: "p", Datatype: "FP32", Shape: []int64{rows, 1}, Contents: &pb.InferTensorContents{Fp32Contents: probabilities},
		}}}))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
	send := func(all ...*feedbackv1.Label) *feedbackv1.SendResponse {
		t.Helper()
		resp, ok := TakeLabels(t.Context(), r.cfg.Labels, &feedbackv1.SendRequest{Labels: all})
		if !ok {
			t.Fatal("the labels were not taken")
		}
		return resp
	}
	rows = 3
	text := r.call(modelInfer, message(fraud)).trailer.one(predictionField)
	if id, err := signer.Parse(text); err != nil || !slices.Equal(id.Prediction.Indexes, []uint8{0, 1, 0}) || len(id.Prediction.Odds) != 3 {
		t.Fatalf("got %+v, %v, want three rows with their probabilities", id, err)
	}
	row := func(n uint32, class string) *feedbackv1.Label {
		return &feedbackv1.Label{PredictionId: text, Row: &n, Truth: &feedbackv1.Label_Class{Class: class}}
	}
	unsaid := row(0, "honest")
	unsaid.Row = nil
	resp := send(row(0, "honest"), row(1, "honest"), row(2, "honest"), row(3, "honest"), unsaid, row(2, "fraud"))
	if resp.GetCounted() != 3 || resp.GetDuplicates() != 1 || len(resp.GetRefused()) != 2 ||
		resp.GetRefused()[0].GetIndex() != 3 || resp.GetRefused()[0].GetReason() != feedbackv1.Reason_REASON_ROW || resp.GetRefused()[1].GetIndex() != 4 {
		t.Errorf("got %v, want three counted, one known, and the fourth row and the one that is not said refused", resp)
	}
	report := r.cfg.Labels.Reports("fraud")[0]
	if report.Predictions != 3 || report.Labelled != 3 || report.Current.Errors != 1 {
		t.Errorf("%d of %d labelled with %d errors, want three of three with one", report.Labelled, report.Predictions, report.Current.Errors)
	}
	rows = 129
	text = r.call(modelInfer, message(fraud)).trailer.one(predictionField)
	if report := r.cfg.Labels.Reports("fraud")[0]; report.Unread != 1 || report.Predictions != 4 {
		t.Errorf("%d unread, %d predictions, want the large batch unread, and one more", report.Unread, report.Predictions)
	}
	if resp := send(&feedbackv1.Label{PredictionId: text, Truth: &feedbackv1.Label_Reward{Reward: 1}}); resp.GetCounted() != 1 {
		t.Errorf("a reward for the large batch: %v, want it counted", resp)
	}
	rows = 1 // and nothing of the batch before it is left
	if id, err := signer.Parse(r.call(modelInfer, message(fraud)).trailer.one(predictionField)); err != nil || id.Prediction.Rows() != 1 || len(id.Prediction.Odds) != 1 {
		t.Errorf("got %+v, %v, want one row", id, err)
	}
}

// What one answer predicted is not left for a call that predicts nothing of that kind.
func TestNothingIsLeftOfAnotherCallsPrediction(t *testing.T) {
	signer := labels.NewSigner()
	s := serve(t, scores(t, 0, 1<<20, false))
	r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
	for range 50 {
		if id := identityOf(t, signer, r.call(modelInfer, message(fraud))); id.Prediction.Rows() != 1 {
			t.Fatalf("got %+v, want a prediction", id)
		}
		if id := identityOf(t, signer, r.call("/shop.Checkout/Price", message(fraud))); id.Prediction.Kind != labels.None {
			t.Fatalf("got %+v, want no prediction", id)
		}
	}
}

// All that a route says of labels reaches the monitor.
func TestSettingsOfLabelsReachTheMonitor(t *testing.T) {
	r := start(t, `
routes:
  - model: price
    versions: [{name: v1, endpoints: ["192.0.2.1:1"]}]
    weights: {v1: 1}
    labels: {predicts: number, output: y, tolerance: 2, good_from: 0.25, max_age: 48h, window: 1h, expected_run: 5000, reference_error: 0.125}
  - model: kind
    versions: [{name: v1, endpoints: ["192.0.2.1:1"]}]
    weights: {v1: 1}
    labels: {predicts: class, classes: [a, b], detector: adwin}
  - model: learning
    versions: [{name: v1, endpoints: ["192.0.2.1:1"]}]
    weights: {v1: 1}
    labels: {learn: 300}
`, labelled(labels.NewSigner()))
	for model, want := range map[string]labels.Settings{
		"price": {Predicts: labels.Number, Output: "y", Tolerance: 2, GoodFrom: 0.25, MaxAge: 48 * time.Hour, Window: time.Hour,
			Detector: "esr", ExpectedRun: 5000, ReferenceError: 0.125, Learn: 1000},
		"kind": {Predicts: labels.Class, Classes: []string{"a", "b"}, GoodFrom: 0.5, MaxAge: 168 * time.Hour, Window: 24 * time.Hour,
			Detector: "adwin", ExpectedRun: 100_000, Learn: 1000},
		"learning": {GoodFrom: 0.5, MaxAge: 168 * time.Hour, Window: 24 * time.Hour, Detector: "esr", ExpectedRun: 100_000, Learn: 300},
	} {
		reports := r.cfg.Labels.Reports(model)
		if len(reports) != 1 || !reflect.DeepEqual(reports[0].Settings, want) {
			t.Errorf("%s: got %+v, want one version with %+v", model, reports, want)
		}
	}
}

// Metrics say what labels say. Of four predictions that were all fraud with 0.75, one was that, one was honest; both were
// known forty seconds later.
func TestMetricsOfLabels(t *testing.T) {
	signer := labels.NewSigner()
	s := serve(t, scores(t, 0, 1<<20, false))
	r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
	var all []*feedbackv1.Label
	for _, class := range []string{"fraud", "honest", "", ""} {
		id := r.call(modelInfer, message(fraud)).trailer.one(predictionField)
		if class != "" {
			all = append(all, &feedbackv1.Label{
				PredictionId: id, Truth: &feedbackv1.Label_Class{Class: class}, Time: timestamppb.New(time.Now().Add(40 * time.Second)),
			})
		}
	}
	all = append(all, all[0], &feedbackv1.Label{PredictionId: "nonsense"})
	if _, ok := TakeLabels(t.Context(), r.cfg.Labels, &feedbackv1.SendRequest{Labels: all}); !ok {
		t.Fatal("the labels were not taken")
	}
	got := r.metrics(t)
	const v7, v8 = `{model="fraud",version="v7"}`, `{model="fraud",version="v8"}`
	want(t, got, "sluice_label_predictions", map[string]float64{v7: 4, v8: 0})
	want(t, got, "sluice_label_coverage", map[string]float64{v7: 0.5})
	want(t, got, "sluice_label_window_labels", map[string]float64{v7: 2, v8: 0})
	want(t, got, "sluice_label_unread_total", map[string]float64{v7: 0, v8: 0})
	want(t, got, "sluice_label_alarms_total", map[string]float64{v7: 0, v8: 0})
	if d := got["sluice_label_delay_seconds"+v7]; d < 32 || d > 64 {
		t.Errorf("median delay %v s, want 40 within its cell, from 32 to 64", d)
	}
	want(t, got, "sluice_label_f1", map[string]float64{
		`{class="fraud",model="fraud",version="v7"}`: 2. / 3, `{class="honest",model="fraud",version="v7"}`: 0,
	})
	measure := func(name string) string { return `{measure="` + name + `",model="fraud",version="v7"}` }
	quality := of(got, "sluice_label_quality")
	for name, want := range map[string]float64{
		"error_rate": 0.5, "accuracy": 0.5, "macro_f1": 1. / 3, "auc": 0.5, "calibration_error": 0.25,
		"log_loss": -(math.Log(0.75) + math.Log(0.25)) / 2, "brier": (0.25*0.25 + 0.75*0.75) / 2,
	} {
		if v, ok := quality[measure(name)]; !ok || math.Abs(v-want) > 1e-4 {
			t.Errorf("%s = %v, want %v", name, v, want)
		}
	}
	if len(quality) != 7 {
		t.Errorf("got %v, want no other measures", quality)
	}
	results := of(got, "sluice_labels_total")
	for result, want := range map[string]float64{"counted": 2, "duplicate": 1, "malformed": 1, "late": 0, "wrong_row": 0} {
		if v, ok := results[`{result="`+result+`"}`]; !ok || v != want {
			t.Errorf("%s labels: %v, want %v", result, v, want)
		}
	}
}

// An upstream cannot make an id up: its own is taken away.
func TestAnUpstreamsIdentityIsNotPassedOn(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ok(w, r)
		w.Header().Set(http.TrailerPrefix+"Sluice-Prediction-Id", "forged")
	})
	signer := labels.NewSigner()
	r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
	if id := identityOf(t, signer, r.call(modelInfer, message(fraud))); id == nil { // it fails for two values
		t.Error("got no id")
	}
}

// On the data address, as any other call; too many labels are refused whole.
func TestLabelsAreTakenOnTheDataAddress(t *testing.T) {
	signer := labels.NewSigner()
	s := serve(t, scores(t, 0, 1<<20, false))
	r := start(t, labelledRoutesTo(s.addr, s.addr), labelled(signer))
	id := r.call(modelInfer, message(fraud)).trailer.one(predictionField)
	label := &feedbackv1.Label{PredictionId: id, Truth: &feedbackv1.Label_Class{Class: "honest"}}
	const send = "/sluice.feedback.v1.FeedbackService/Send"
	if a := r.call(send, message(&feedbackv1.SendRequest{Labels: []*feedbackv1.Label{label, label}})); a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	if c := r.cfg.Labels.Counts(); c.Counted != 1 || c.Duplicates != 1 {
		t.Errorf("got %+v, want one label and one that is known", c)
	}
	if m := r.cfg.Labels.Reports("fraud")[0].Current; m.Accuracy != 0 || m.Labels != 1 {
		t.Errorf("got %+v, want one label, and the prediction wrong", m)
	}
	many := slices.Repeat([]*feedbackv1.Label{label}, maxLabels+1)
	if a := r.call(send, message(&feedbackv1.SendRequest{Labels: many})); a.code != codes.InvalidArgument || !strings.Contains(a.message, "at most 1000") {
		t.Errorf("1001 labels: got %v %q", a.code, a.message)
	}
}
