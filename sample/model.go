package sample

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
)

//go:embed models/*.json
var modelFiles embed.FS

// ModelName is the name the shipped models are served under.
const ModelName = "penguins"

// Model is one trained version of the classifier. It is read-only once made
// and may be used by any number of goroutines.
type Model struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Classes are the labels, in the order of the probabilities.
	Classes []string `json:"classes"`
	// Features are the columns of [Features] that this version looks at, in
	// the order of its parameters.
	Features   []string   `json:"features"`
	Provenance Provenance `json:"provenance"`

	// Exactly one of these is set.
	Softmax *Softmax `json:"softmax,omitempty"`
	Tree    *Tree    `json:"tree,omitempty"`

	columns []int // of each feature in Measurements
}

// Provenance tells what a model was made from, so that it can be made again.
type Provenance struct {
	Data       string `json:"data"`        // file the rows came from
	DataSHA256 string `json:"data_sha256"` // of that file, hexadecimal
	Seed       uint64 `json:"seed"`        // of the split
	Trained    int    `json:"trained"`     // rows trained on
	HeldBack   int    `json:"held_back"`   // rows held back
	Method     string `json:"method"`      // how it was fitted, with its settings
	// Accuracy is the share of held-back rows that the model gets right.
	Accuracy float64 `json:"accuracy"`
}

// Versions names the shipped versions in ascending order.
func Versions() []string {
	entries, err := modelFiles.ReadDir("models")
	if err != nil {
		panic("sample: embedded models: " + err.Error()) // the folder is part of the program
	}
	versions := make([]string, len(entries))
	for i, entry := range entries {
		versions[i] = strings.TrimSuffix(entry.Name(), ".json")
	}
	return versions
}

// Load returns a shipped version, for instance "v1".
func Load(version string) (*Model, error) {
	if !slices.Contains(Versions(), version) {
		return nil, fmt.Errorf("sample: model version: got %q, want one of %q", version, Versions())
	}
	data, err := modelFiles.ReadFile(path.Join("models", version+".json"))
	if err != nil {
		return nil, fmt.Errorf("sample: model %s: %w", version, err)
	}
	model, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("sample: model %s: %w", version, err)
	}
	return model, nil
}

// Decode reads a model file and checks it whole, so that a decoded model
// cannot fail to predict.
func Decode(data []byte) (*Model, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	model := new(Model)
	if err := decoder.Decode(model); err != nil {
		return nil, err
	}
	if err := model.Init(); err != nil {
		return nil, err
	}
	return model, nil
}

// Encode is the inverse of [Decode]: the indented JSON of a model file.
func (m *Model) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}

// Init checks a model that was filled in by hand and makes it ready to
// predict. It reports everything that is wrong at once.
func (m *Model) Init() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(m.Name != "", "name: got none, want the model's name")
	check(m.Version != "", "version: got none, want the version's name")
	check(len(m.Classes) >= 2, "classes: got %q, want at least two", m.Classes)
	check(len(m.Features) >= 1, "features: got none, want at least one of %q", Features)

	m.columns = make([]int, len(m.Features))
	for i, name := range m.Features {
		m.columns[i] = slices.Index(Features, name)
		check(m.columns[i] >= 0, "features[%d]: got %q, want one of %q", i, name, Features)
	}
	switch {
	case m.Softmax != nil && m.Tree == nil:
		errs = append(errs, m.Softmax.validate(len(m.Classes), len(m.Features)))
	case m.Tree != nil && m.Softmax == nil:
		errs = append(errs, m.Tree.validate(len(m.Classes), len(m.Features)))
	default:
		errs = append(errs, errors.New("want exactly one of softmax and tree"))
	}
	return errors.Join(errs...)
}

// Predict returns the probability of each class, in the order of Classes.
// The measurements must be finite.
func (m *Model) Predict(x Measurements) []float64 {
	features := make([]float64, len(m.columns))
	for i, column := range m.columns {
		features[i] = x[column]
	}
	if m.Softmax != nil {
		return m.Softmax.predict(features)
	}
	return m.Tree.predict(features)
}

// Classify returns the most probable class; of equally probable ones the first.
func (m *Model) Classify(x Measurements) string {
	return m.Classes[argmax(m.Predict(x))]
}

// Accuracy is the share of rows that the model classifies as they are
// labelled: NaN for no rows.
func (m *Model) Accuracy(rows []Row) float64 {
	right := 0
	for _, row := range rows {
		if m.Classify(row.Measurements) == row.Species {
			right++
		}
	}
	return float64(right) / float64(len(rows))
}

func argmax(values []float64) int {
	best := 0
	for i, v := range values {
		if v > values[best] {
			best = i
		}
	}
	return best
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
