package sample

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func load(t testing.TB, version string) *Model {
	t.Helper()
	model, err := Load(version)
	if err != nil {
		t.Fatal(err)
	}
	return model
}

func TestShippedModelsKeepTheirPromise(t *testing.T) {
	train, held := Split()
	if got, want := Versions(), []string{"v1", "v2", "v3"}; !slices.Equal(got, want) {
		t.Fatalf("Versions() = %q, want %q", got, want)
	}
	for _, version := range Versions() {
		model := load(t, version)
		p := model.Provenance
		if got := model.Accuracy(held); math.Abs(got-p.Accuracy) > 1e-6 {
			t.Errorf("%s: accuracy on the held-back rows = %v, its provenance says %v", version, got, p.Accuracy)
		}
		if p.DataSHA256 != DataSHA256() || p.Trained != len(train) || p.HeldBack != len(held) || p.Seed != SplitSeed {
			t.Errorf("%s: provenance %+v is not of this data set and split", version, p)
		}
		if model.Name != ModelName || model.Version != version || !slices.Equal(model.Classes, Species) {
			t.Errorf("%s: file holds model %q, version %q, classes %q", version, model.Name, model.Version, model.Classes)
		}
	}
	if v1, v2 := load(t, "v1").Accuracy(held), load(t, "v2").Accuracy(held); v2-v1 < 0.05 {
		t.Errorf("v2 (%v) is hardly better than v1 (%v): the demo would show no difference", v2, v1)
	}
}

func TestLoadNamesTheVersionsThereAre(t *testing.T) {
	_, err := Load("v9")
	if err == nil || !strings.Contains(err.Error(), `got "v9", want one of ["v1" "v2" "v3"]`) {
		t.Errorf(`Load("v9") = %v, want the versions there are`, err)
	}
}

// TestPredictGivesProbabilities holds for any finite measurements, however far
// from a penguin's.
func TestPredictGivesProbabilities(t *testing.T) {
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			model := load(t, version)
			rapid.Check(t, func(t *rapid.T) {
				var x Measurements
				for i := range x {
					x[i] = rapid.Float64Range(-1e300, 1e300).Draw(t, Features[i])
				}
				p := model.Predict(x)
				sum := 0.0
				for _, v := range p {
					if !(v >= 0 && v <= 1) {
						t.Fatalf("Predict(%v) = %v, want 0 to 1", x, p)
					}
					sum += v
				}
				if len(p) != len(model.Classes) || math.Abs(sum-1) > 1e-5 {
					t.Fatalf("Predict(%v) = %v, want %d numbers that add up to 1", x, p, len(model.Classes))
				}
			})
		})
	}
}

func TestEncodeAndDecodeAreInverse(t *testing.T) {
	for _, version := range Versions() {
		model := load(t, version)
		data, err := model.Encode()
		if err != nil {
			t.Fatal(err)
		}
		shipped, err := modelFiles.ReadFile("models/" + version + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if string(data) != string(shipped) {
			t.Errorf("%s: encoding the decoded model gives other bytes than the file has", version)
		}
	}
}

func TestDecodeRefusesModelsThatCouldNotPredict(t *testing.T) {
	const head = `"name": "m", "version": "v", "classes": ["a", "b"], "features": ["body_mass_g"]`
	for _, test := range []struct {
		name, json string
		want       []string
	}{
		{"not JSON", `{`, []string{"unexpected EOF"}},
		{"unknown field", `{"nmae": "m"}`, []string{`unknown field "nmae"`}},
		{"empty", `{}`, []string{"name: got none", "version: got none", "classes: got []", "features: got none", "exactly one of softmax and tree"}},
		{"feature", `{"name": "m", "version": "v", "classes": ["a", "b"], "features": ["beak"], "tree": {"nodes": [{"probabilities": [0, 1]}]}}`,
			[]string{`features[0]: got "beak", want one of`}},
		{"both", `{` + head + `, "softmax": {}, "tree": {}}`, []string{"exactly one of softmax and tree"}},
		{"softmax sizes", `{` + head + `, "softmax": {"mean": [1, 2], "scale": [0], "weights": [[1]], "bias": []}}`,
			[]string{"softmax.mean: got 2 numbers, want 1", "softmax.scale[0]: got 0, want a positive number", "softmax.weights: got 1 rows, want 2", "softmax.bias: got 0 numbers, want 2"}},
		{"no nodes", `{` + head + `, "tree": {}}`, []string{"tree.nodes: got none"}},
		{"empty node", `{` + head + `, "tree": {"nodes": [{}]}}`, []string{"tree.nodes[0]: want exactly one of question and probabilities"}},
		{"endless", `{` + head + `, "tree": {"nodes": [{"question": {"feature": 1, "threshold": 1, "below": 0, "above": 9}}]}}`,
			[]string{"question.feature: got 1, want 0 to 0", "question.below: got 0, want the index of a later node", "question.above: got 9"}},
		{"leaf", `{` + head + `, "tree": {"nodes": [{"probabilities": [2]}]}}`,
			[]string{"probabilities: got 1 numbers, want 2", "probabilities[0]: got 2, want 0 to 1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Decode([]byte(test.json))
			if err == nil {
				t.Fatal("Decode() = nil, want an error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Decode() = %v, want %q in it", err, want)
				}
			}
		})
	}
}

// FuzzDecode: what Decode accepts can predict.
func FuzzDecode(f *testing.F) {
	for _, version := range Versions() {
		data, err := modelFiles.ReadFile("models/" + version + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		model, err := Decode(data)
		if err != nil {
			return
		}
		if p := model.Predict(Measurements{39.1, 18.7, 181, 3750}); len(p) != len(model.Classes) {
			t.Fatalf("%d probabilities for %d classes", len(p), len(model.Classes))
		}
	})
}

func BenchmarkPredict(b *testing.B) {
	for _, version := range Versions() {
		b.Run(version, func(b *testing.B) {
			model := load(b, version)
			x := Penguins()[0].Measurements
			b.ReportAllocs()
			for b.Loop() {
				model.Predict(x)
			}
		})
	}
}
