package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sluice/bench/stats"
)

// judgeBenchmarks reads benchstat's CSV. A benchmark is slower if its time or allocations
// have grown by more than the margin, significantly so. For others benchstat writes "~": they are undecided if they seem
// to have grown by more than that all the same.
func judgeBenchmarks(text string, margin float64) (found findings, err error) {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = -1 // a block of lines per unit, with titles in between
	unit, compared := "", 0
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return found, fmt.Errorf("benchstat: %w", err)
		}
		// Titles are like ",base,,tree,,," and ",sec/op,CI,sec/op,CI,vs base,P", figures like
		// "WriteData/bytes=400,1.2e-08,2%,1.5e-08,1%,+25.00%,p=0.002 n=6".
		if len(row) < 7 {
			continue
		}
		if row[5] == "vs base" {
			unit = row[1]
			continue
		}
		if row[0] == "" || row[0] == "geomean" || row[1] == "" || row[3] == "" {
			continue // a title, an average, or a benchmark that only one of the two has
		}
		compared++
		if unit != "sec/op" && unit != "allocs/op" && unit != "B/op" {
			continue
		}
		growth, err := growth(row[1], row[3])
		if err != nil {
			return found, fmt.Errorf("benchstat: %s: %w", row[0], err)
		}
		switch {
		case growth <= margin:
		case row[5] == "~":
			if unit == "B/op" {
				continue // pools give and take as it happens
			}
			found.open = append(found.open, topLevel(row[0]))
			found.undecided = append(found.undecided, fmt.Sprintf("%s: %s %+.0f %%, or by chance (%s)", row[0], unit, 100*growth, row[6]))
		default:
			found.slower = append(found.slower, fmt.Sprintf("%s: %s %s (%s)", row[0], unit, row[5], row[6]))
		}
	}
	if compared == 0 {
		return found, errors.New("benchstat: no benchmark is in both revisions")
	}
	return found, nil
}

// topLevel returns the name of the benchmark that "Director/split-2" or "FrameHeader-2" is one of.
func topLevel(name string) string {
	name, _, sub := strings.Cut(name, "/")
	if i := strings.LastIndexByte(name, '-'); !sub && i > 0 {
		name = name[:i] // the number of processors
	}
	return "Benchmark" + name
}

// growth is by which share a figure grew.
func growth(before, after string) (float64, error) {
	old, err := strconv.ParseFloat(before, 64)
	if err != nil {
		return 0, err
	}
	now, err := strconv.ParseFloat(after, 64)
	if err != nil {
		return 0, err
	}
	if old == 0 {
		return now, nil // from nothing to something: by as much as there is
	}
	return now/old - 1, nil
}

// judgeScenarios reads the bench's report. A scenario is slower if even the lower bound of the CPU ratio lies above the
// margin, not slower if the upper bound does not, and undecided otherwise. The lines are about all of them.
func judgeScenarios(report []byte, margin float64) (found findings, lines []string, err error) {
	var r struct {
		Scenarios []struct {
			Scenario string
			Peers    []struct {
				Peer   string
				Ratio  *stats.Summary `json:"cpu_ratio"`
				Beside struct{ Noisy, Samples int }
			}
		}
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return found, nil, fmt.Errorf("bench: %w", err)
	}
	for _, s := range r.Scenarios {
		noisy, samples := 0, 0
		for _, p := range s.Peers {
			noisy, samples = noisy+p.Beside.Noisy, samples+p.Beside.Samples
		}
		for _, p := range s.Peers {
			if p.Peer != "base" || p.Ratio == nil {
				continue
			}
			line := fmt.Sprintf("%s: CPU per call %.3f of before (%.3f to %.3f), %d rounds", s.Scenario, p.Ratio.Median, p.Ratio.Low, p.Ratio.High, p.Ratio.N)
			if noisy > 0 {
				line += fmt.Sprintf("; others used the machine in %d of %d measurements", noisy, samples)
			}
			lines = append(lines, line)
			switch {
			case p.Ratio.Low > 1+margin:
				found.slower = append(found.slower, line)
			case p.Ratio.High > 1+margin:
				found.undecided = append(found.undecided, line)
				found.open = append(found.open, s.Scenario)
			}
		}
	}
	if len(lines) == 0 {
		return found, nil, errors.New("bench: no scenario has figures of both revisions")
	}
	return found, lines, nil
}
