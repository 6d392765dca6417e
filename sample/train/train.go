package main

import (
	"fmt"

	"sluice/sample"
)

// trainAll fits every version to one split of the data set.
func trainAll(seed uint64) ([]*sample.Model, error) {
	train, held := sample.StratifiedSplit(sample.Penguins(), sample.HeldBack, seed)

	softmax := softmaxFit{Steps: 4000, Rate: 0.5, Penalty: 1e-3}
	tree := treeFit{Depth: 3, MinLeaf: 5}
	models := []*sample.Model{
		{Version: "v1", Features: []string{"flipper_length_mm", "body_mass_g"}},
		{Version: "v2", Features: sample.Features},
		{Version: "v3", Features: sample.Features},
	}
	for _, m := range models {
		m.Name, m.Classes = sample.ModelName, sample.Species
		m.Provenance = sample.Provenance{
			Data: "penguins.csv", DataSHA256: sample.DataSHA256(), Seed: seed,
			Trained: len(train), HeldBack: len(held),
		}
		set := newTrainingSet(train, m.Features)
		if m.Version == "v3" {
			m.Tree, m.Provenance.Method = tree.fit(set), tree.String()
		} else {
			m.Softmax, m.Provenance.Method = softmax.fit(set), softmax.String()
		}
		if err := m.Init(); err != nil {
			return nil, fmt.Errorf("version %s: %w", m.Version, err)
		}
		m.Provenance.Accuracy = round(m.Accuracy(held))
	}
	return models, nil
}
