package sample

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

//go:embed data/penguins.csv
var penguinsCSV []byte

// Species are the classes of the data set, in the order in which models give
// their probabilities.
var Species = []string{"Adelie", "Chinstrap", "Gentoo"}

// Features are the measured columns of the data set, in the order in which
// requests carry them.
var Features = []string{"bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"}

// NumFeatures is the number of values that describe one penguin.
const NumFeatures = 4

// Measurements describe one penguin, in the order of [Features].
type Measurements [NumFeatures]float64

// Row is one penguin of the data set.
type Row struct {
	// Species is the label: one of [Species].
	Species string
	// Measurements that were not recorded are NaN.
	Measurements Measurements
}

// Complete tells whether every measurement was recorded.
func (r Row) Complete() bool {
	return !slices.ContainsFunc(r.Measurements[:], math.IsNaN)
}

// Penguins returns all 344 rows of the embedded data set in their order there.
// The caller owns the slice.
func Penguins() []Row {
	rows, err := readRows(bytes.NewReader(penguinsCSV))
	if err != nil {
		panic("sample: embedded data set: " + err.Error()) // the file is part of the program; a test reads it
	}
	return rows
}

// DataSHA256 is the hexadecimal SHA-256 of the embedded data set: what a
// model's provenance refers to.
func DataSHA256() string {
	sum := sha256.Sum256(penguinsCSV)
	return hex.EncodeToString(sum[:])
}

// readRows reads comma-separated rows below a header that names at least
// "species" and all [Features]. "NA" stands for a value not recorded.
func readRows(r io.Reader) ([]Row, error) {
	records := csv.NewReader(r)
	header, err := records.Read()
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	label := slices.Index(header, "species")
	if label < 0 {
		return nil, fmt.Errorf("header: no column %q in %q", "species", header)
	}
	var columns [NumFeatures]int
	for i, name := range Features {
		if columns[i] = slices.Index(header, name); columns[i] < 0 {
			return nil, fmt.Errorf("header: no column %q in %q", name, header)
		}
	}

	var rows []Row
	for {
		record, err := records.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err // names the line
		}
		row := Row{Species: record[label]}
		if !slices.Contains(Species, row.Species) {
			line, _ := records.FieldPos(label)
			return nil, fmt.Errorf("line %d: species: got %q, want one of %q", line, row.Species, Species)
		}
		for i, column := range columns {
			if row.Measurements[i], err = parseMeasurement(record[column]); err != nil {
				line, _ := records.FieldPos(column)
				return nil, fmt.Errorf("line %d: %s: %w", line, Features[i], err)
			}
		}
		rows = append(rows, row)
	}
}

func parseMeasurement(s string) (float64, error) {
	if s == "NA" {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v <= 0 {
		return 0, fmt.Errorf("got %q, want a positive number or NA", s)
	}
	return v, nil
}

const (
	// SplitSeed is the seed of the shipped models' split.
	SplitSeed = 1
	// HeldBack is the share of each species that the shipped models were not trained on.
	HeldBack = 0.25
)

// Split returns the rows the shipped models were trained on and those held
// back from them. Every species is divided in the same ratio; rows with a
// missing measurement are in neither part.
func Split() (train, held []Row) {
	return StratifiedSplit(Penguins(), HeldBack, SplitSeed)
}

// StratifiedSplit shuffles the complete rows of each species and holds back
// the share heldBack (0 to 1, rounded to whole rows) of each. The same
// arguments give the same parts on every machine.
func StratifiedSplit(rows []Row, heldBack float64, seed uint64) (train, held []Row) {
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, species := range Species {
		var group []Row
		for _, row := range rows {
			if row.Species == species && row.Complete() {
				group = append(group, row)
			}
		}
		rng.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		n := int(math.Round(heldBack * float64(len(group))))
		held = append(held, group[:n]...)
		train = append(train, group[n:]...)
	}
	return train, held
}
