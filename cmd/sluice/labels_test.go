package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"sluice/proto/inference"
	"sluice/sample"
)

// TestFeedbackFromFiles: predictions of real penguins, what they really were in a file of each kind, and what
// sluice labels makes of that.
func TestFeedbackFromFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	_, addr := startSample(t, "v2")
	routes := write(t, "routes.yaml", fmt.Sprintf(`
routes:
  - model: penguins
    versions: [{name: v2, endpoints: [%q]}]
    weights: {v2: 1}
    labels: {predicts: class, output: species, classes: [Adelie, Chinstrap, Gentoo]}
  - model: plain
    versions: [{name: v2, endpoints: [%q]}]
    weights: {v2: 1}
`, addr, addr))
	g := startServe(t, "--routes", routes, "--label-key-file", write(t, "keys", strings.Repeat("0a", 32)))
	if out := g.must(t, "labels", "plain"); !strings.Contains(out, "its route needs a labels setting, such as labels: {}") {
		t.Errorf("labels of a route without: %s", out)
	}

	cc, err := grpc.NewClient(g.data, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	lines, rows, right := "", "prediction_id,class,time\n", 0
	_, held := sample.Split()
	for i, p := range held[:60] {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var trailer metadata.MD
		resp, err := inference.NewGRPCInferenceServiceClient(cc).ModelInfer(ctx, sample.NewRequest("penguins", p.Measurements), grpc.Trailer(&trailer))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		species, err := sample.ReadSpecies(resp)
		if err != nil {
			t.Fatal(err)
		}
		if species[0] == p.Species {
			right++
		}
		id := trailer.Get("sluice-prediction-id")[0]
		if i%2 == 0 {
			lines += fmt.Sprintf("{\"prediction_id\": %q, \"class\": %q}\n\n", id, p.Species)
		} else {
			rows += fmt.Sprintf("%s,%s,%s\n", id, p.Species, time.Now().Format(time.RFC3339))
		}
	}
	jsonl, csv := write(t, "labels.jsonl", lines), write(t, "labels.csv", rows)
	if out := g.must(t, "feedback", jsonl, csv); out != "60 labels counted\n" {
		t.Errorf("feedback: %q, want 60 labels counted", out)
	}
	if out := g.must(t, "feedback", csv); out != "0 labels counted, 30 counted before\n" {
		t.Errorf("feedback again: %q, want 30 to be known", out)
	}

	out := g.must(t, "labels", "penguins")
	for _, want := range []string{`VERSION +WINDOW +LABELS +COVERAGE +DELAY +ERRORS +USUAL +ACCURACY +F1`,
		`v2 +since .* +60 +100 % .* ` + regexp.QuoteMeta(fmt.Sprintf("%.4g", float64(right)/60)), `Gentoo +\d+ +[01]\.\d`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("labels do not match %s:\n%s", want, out)
		}
	}
	var answer struct {
		Versions []struct{ Current struct{ Accuracy float64 } }
	}
	if err := json.Unmarshal([]byte(g.must(t, "labels", "penguins", "-o", "json")), &answer); err != nil || len(answer.Versions) != 1 ||
		answer.Versions[0].Current.Accuracy != float64(right)/60 {
		t.Errorf("as JSON: %+v, %v, want an accuracy of %d in 60", answer, err, right)
	}

	for _, tt := range []struct{ name, text, want string }{
		{"bad.jsonl", `{"prediction_id": "x", "class": "Adelie"}`, `1 refused (malformed)`},
		{"two.jsonl", `{"prediction_id": "x", "class": "Adelie", "reward": 1}`, `two.jsonl:1: got 2 of class, number and reward, want one`},
		{"unknown.jsonl", "\n" + `{"prediction_id": "x", "klass": "Adelie"}`, `unknown.jsonl:2: json: unknown field "klass", want an object with prediction_id`},
		{"more.jsonl", `{"prediction_id": "x", "reward": 1} {}`, `more.jsonl:1: got more than one object in a line`},
		{"column.csv", "prediction_id,label\n", `column.csv:1: header: got column "label"`},
		{"none.csv", "class\nAdelie\n", `none.csv:1: header: got no column prediction_id`},
		{"number.csv", "prediction_id,reward\nx,good\n", `number.csv:2: reward: got "good", want a number`},
		{"time.csv", "prediction_id,reward,time\nx,1,noon\n", `time.csv:2: time: got "noon", want one like 2026-11-26T10:00:00Z`},
		{"row.csv", "prediction_id,reward,row\nx,1,-1\n", `row.csv:2: row: got "-1", want the number of a row of the answer, from 0`},
	} {
		if out, code := g.sluice("feedback", write(t, tt.name, tt.text)); code != exitFailure || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit %d, %s, want %s", tt.name, code, out, tt.want)
		}
	}
}
