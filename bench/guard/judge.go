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

// slowerBenchmarks reads benchstat's CSV and returns the benchmarks whose time or allocations
// have grown by more than the margin, significantly so: for others benchstat writes "~".
func slowerBenchmarks(text string, margin float64) (slower []string, err error) {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = -1 // a block of lines per unit, with titles in between
	unit, compared := "", 0
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("benchstat: %w", err)
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
		if row[5] == "~" || unit != "sec/op" && unit != "allocs/op" && unit != "B/op" {
			continue
		}
		growth, err := growth(row[1], row[3])
		if err != nil {
			return nil, fmt.Errorf("benchstat: %s: %w", row[0], err)
		}
		if growth > margin {
			slower = append(slower, fmt.Sprintf("%s: %s %s (%s)", row[0], unit, row[5], row[6]))
		}
	}
	if compared == 0 {
		return nil, errors.New("benchstat: no benchmark is in both revisions")
	}
	return slower, nil
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

// slowerScenarios reads the bench's report and returns the scenarios in which even the lower
// bound of the CPU ratio lies above the margin.
func slowerScenarios(report []byte, margin float64, stdout io.Writer) (slower []string, err error) {
	var r struct {
		Scenarios []struct {
			Size        int `json:"request_bytes"`
			Connections int
			Streams     int
			Peers       []struct {
				Peer  string
				Ratio *stats.Summary `json:"cpu_ratio"`
			}
		}
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	compared := 0
	for _, s := range r.Scenarios {
		for _, p := range s.Peers {
			if p.Peer != "base" || p.Ratio == nil {
				continue
			}
			compared++
			line := fmt.Sprintf("%d bytes, %d x %d: CPU per call %.3f of before (%.3f to %.3f)",
				s.Size, s.Connections, s.Streams, p.Ratio.Median, p.Ratio.Low, p.Ratio.High)
			fmt.Fprintln(stdout, line)
			if p.Ratio.Low > 1+margin {
				slower = append(slower, line)
			}
		}
	}
	if compared == 0 {
		return nil, errors.New("bench: no scenario has figures of both revisions")
	}
	return slower, nil
}
