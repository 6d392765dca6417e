package main

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/sample"
)

// TestShippedModelsAreWhatTrainingGives compares numbers rather than bytes:
// processors with fused multiply-add may differ in the last decimal written.
func TestShippedModelsAreWhatTrainingGives(t *testing.T) {
	models := trained(t)
	if len(models) != len(sample.Versions()) {
		t.Fatalf("trained %d models, shipped are %q", len(models), sample.Versions())
	}
	for _, model := range models {
		shipped, err := sample.Load(model.Version)
		if err != nil {
			t.Fatal(err)
		}
		if model.Provenance != shipped.Provenance {
			t.Errorf("%s: provenance %+v, shipped %+v", model.Version, model.Provenance, shipped.Provenance)
		}
		for _, row := range sample.Penguins() {
			if !row.Complete() {
				continue
			}
			got, want := model.Predict(row.Measurements), shipped.Predict(row.Measurements)
			if !slices.EqualFunc(got, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-4 }) {
				t.Fatalf("%s: %v: got %v, shipped model says %v; run: go run ./sample/train -out sample/models", model.Version, row, got, want)
			}
		}
	}
}

// TestSoftmaxFitArrivesAtTheOptimum: there, the gradient of the penalised
// loss is zero.
func TestSoftmaxFitArrivesAtTheOptimum(t *testing.T) {
	train, _ := sample.Split()
	set := newTrainingSet(train, sample.Features)
	fit := softmaxFit{Steps: 4000, Rate: 0.5, Penalty: 1e-3}
	model := fit.fit(set)
	z := make([][]float64, len(set.x))
	for i, x := range set.x {
		z[i] = model.Standardise(x)
	}
	weights, bias := gradient(model, z, set.labels)
	for class := range weights {
		if math.Abs(bias[class]) > 1e-4 {
			t.Errorf("gradient of bias[%d] = %v, want 0", class, bias[class])
		}
		for i, g := range weights[class] {
			if g += fit.Penalty * model.Weights[class][i]; math.Abs(g) > 1e-4 {
				t.Errorf("gradient of weights[%d][%d] = %v, want 0", class, i, g)
			}
		}
	}
}

// TestTreeFitFindsThePlantedRule: labels follow a rule of two questions, which
// a tree of depth two can only express by finding both.
func TestTreeFitFindsThePlantedRule(t *testing.T) {
	set := trainingSet{classes: 3}
	for a := range 10 {
		for b := range 10 {
			label := 0
			if a >= 4 {
				label = 1
				if b >= 7 {
					label = 2
				}
			}
			set.x = append(set.x, []float64{float64(a), float64(b)})
			set.labels = append(set.labels, label)
		}
	}
	tree := treeFit{Depth: 2, MinLeaf: 1}.fit(set)
	root := tree.Nodes[0].Question
	if root == nil || root.Feature != 0 || root.Threshold != 3.5 {
		t.Fatalf("root = %+v, want feature 0 below 3.5", root)
	}
	above := tree.Nodes[root.Above].Question
	if above == nil || above.Feature != 1 || above.Threshold != 6.5 {
		t.Fatalf("second question = %+v, want feature 1 below 6.5", above)
	}
	if leaf := tree.Nodes[root.Below].Probabilities; !slices.Equal(leaf, []float64{1, 0, 0}) {
		t.Errorf("leaf below 3.5 = %v, want class 0 alone", leaf)
	}
}

func TestTreeFitKeepsLeavesLargeEnough(t *testing.T) {
	set := trainingSet{classes: 2, x: [][]float64{{1}, {2}, {3}, {4}}, labels: []int{0, 1, 1, 1}}
	if tree := (treeFit{Depth: 3, MinLeaf: 3}).fit(set); len(tree.Nodes) != 1 {
		t.Errorf("nodes = %v, want one leaf: four rows cannot be two leaves of three", tree.Nodes)
	}
}

// TestRunWritesTheSameModelsEveryTime compares bytes: two runs on one machine
// with one seed must not differ at all.
func TestRunWritesTheSameModelsEveryTime(t *testing.T) {
	dir := t.TempDir()
	var stdout strings.Builder
	if err := run([]string{"-out", dir}, &stdout, &stdout); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"trained on 256 rows, 86 held back", "v1       81.4 %", "v2       97.7 %", "v3       91.9 %"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("report lacks %q:\n%s", want, &stdout)
		}
	}
	for _, model := range trained(t) {
		want, err := model.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, model.Version+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: two runs with one seed differ", model.Version)
		}
	}
}

func TestRunRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-seed", "x"}, {"-nope"}, {"v1"}} {
		err := run(args, new(strings.Builder), new(strings.Builder))
		if !errors.As(err, new(usageError)) {
			t.Errorf("run(%q) = %v, want a usage error", args, err)
		}
	}
	if err := run([]string{"-out", "/nonexistent/folder"}, new(strings.Builder), new(strings.Builder)); err == nil {
		t.Error("writing to a folder that does not exist succeeded")
	}
}

// trained returns the models of the shipped seed, trained once for all tests.
func trained(t *testing.T) []*sample.Model {
	t.Helper()
	models, err := trainOnce()
	if err != nil {
		t.Fatal(err)
	}
	return models
}

var trainOnce = sync.OnceValues(func() ([]*sample.Model, error) { return trainAll(sample.SplitSeed) })
