package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"sluice/bench/stats"
)

// figure is what benchstat says of one benchmark in one unit.
type figure struct {
	pkg, name, unit string
	before, after   string // one is empty: only the other revision has it
	change, chance  string // "+25.00%" and "p=0.001 n=7"; "~" if chance explains it, "?" from 0
}

// Units of benchmarks, as benchstat has them.
const (
	timeUnit  = "sec/op"
	cpuUnit   = "cpu-sec/op" // which benchmarks of several threads report themselves
	allocUnit = "allocs/op"
	bytesUnit = "B/op"
)

// readFigures reads benchstat's CSV.
func readFigures(text string) (out []figure, err error) {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = -1 // a block of lines per unit, with titles in between
	var pkg, unit string
	alone := "" // whose figures they are if there is only one column
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("benchstat: %w", err)
		}
		// Titles are "pkg: sluice/routing", ",base,,tree,,," or ",tree,", and ",sec/op,CI,sec/op,CI,vs base,P"; figures are like
		// "WriteData/bytes=400,1.2e-08,2%,1.5e-08,1%,+25.00%,p=0.002 n=6".
		cell := func(i int) string {
			if i < len(row) {
				return row[i]
			}
			return ""
		}
		switch {
		case len(row) == 1:
			if name, ok := strings.CutPrefix(row[0], "pkg: "); ok {
				pkg = name
			}
		case row[0] == "" && cell(2) == "CI":
			unit = row[1]
		case row[0] == "":
			if alone = cell(1); cell(3) != "" {
				alone = ""
			}
		case row[0] == "geomean":
		case alone == "tree":
			out = append(out, figure{pkg: pkg, name: row[0], unit: unit, after: row[1]})
		default:
			out = append(out, figure{pkg, row[0], unit, row[1], cell(3), cell(5), cell(6)})
		}
	}
}

// judgeBenchmarks judges what benchstat's CSV says. A benchmark is slower if its time or allocations
// have grown by more than the margin, significantly so. For others benchstat writes "~": they are undecided if they seem
// to have grown by more than that all the same. Where both revisions report CPU time, that counts, not the time on the clock: which thread
// waits for which is up to the machine's other work. alone are benchmarks that one revision has not got.
func judgeBenchmarks(text string, margin float64) (all []comparison, alone []string, err error) {
	figures, err := readFigures(text)
	if err != nil {
		return nil, nil, err
	}
	type benchmark struct{ pkg, name string }
	byCPU := make(map[benchmark]bool)
	for _, f := range figures {
		if f.unit == cpuUnit && f.before != "" && f.after != "" {
			byCPU[benchmark{f.pkg, f.name}] = true
		}
	}
	for _, f := range figures {
		name := strings.TrimPrefix(f.pkg, "sluice/") + " " + f.name
		if f.before == "" || f.after == "" {
			if f.unit == timeUnit { // which every benchmark has
				alone = append(alone, name)
			}
			continue
		}
		switch f.unit {
		case timeUnit:
			if byCPU[benchmark{f.pkg, f.name}] {
				continue
			}
		case cpuUnit, allocUnit, bytesUnit:
		default:
			continue
		}
		verdict, change, err := f.judge(margin)
		if err != nil {
			return nil, nil, fmt.Errorf("benchstat: %s: %w", name, err)
		}
		all = append(all, comparison{
			what: name + " " + f.unit, run: topLevel(f.name), verdict: verdict,
			line: fmt.Sprintf("%s: %s %s (%s)", name, f.unit, change, f.chance),
		})
	}
	if len(all) == 0 {
		return nil, alone, errors.New("benchstat: no benchmark is in both revisions")
	}
	return all, alone, nil
}

// judge returns the verdict, and the change in words.
func (f figure) judge(margin float64) (verdict, string, error) {
	growth, err := growth(f.before, f.after)
	change := f.change
	if math.IsInf(growth, 1) {
		change = fmt.Sprintf("from 0 to %s", f.after)
	}
	switch {
	case err != nil:
		return fine, "", err
	case growth <= margin:
		return fine, change, nil
	case f.change != "~":
		return slower, change, nil
	case f.unit == bytesUnit:
		return fine, change, nil // pools give and take as it happens
	case !math.IsInf(growth, 1):
		change = fmt.Sprintf("%+.0f %%", 100*growth)
	}
	return undecided, change + ", or by chance", nil
}

// topLevel returns the name of the benchmark that "Director/split-2" or "FrameHeader-2" is one of.
func topLevel(name string) string {
	name, _, sub := strings.Cut(name, "/")
	if i := strings.LastIndexByte(name, '-'); !sub && i > 0 {
		name = name[:i] // the number of processors
	}
	return "Benchmark" + name
}

// growth is by which share a figure grew: from nothing to something, by more than any share.
func growth(before, after string) (float64, error) {
	old, err := strconv.ParseFloat(before, 64)
	if err != nil {
		return 0, err
	}
	now, err := strconv.ParseFloat(after, 64)
	if err != nil {
		return 0, err
	}
	if now == old {
		return 0, nil
	}
	return (now - old) / old, nil
}

// sure is how surely a ratio must lie within its bounds.
const sure = 0.95

// judgeScenarios reads the bench's report. A scenario is slower if even the lower bound of the CPU ratio lies above the
// margin, not slower if the upper bound does not, and undecided otherwise, or if it has no such bounds. With a margin for latency,
// the same holds of p50 at half load.
func judgeScenarios(report []byte, margin, latency float64) (all []comparison, err error) {
	var r struct {
		Scenarios []struct {
			Scenario string
			Peers    []struct {
				Peer       string
				Ratio      *stats.Summary `json:"cpu_ratio"`
				P50        *stats.Summary `json:"half_p50_ratio"`
				Beside     struct{ Noisy, Samples int }
				HalfBeside struct{ Noisy, Samples int } `json:"half_beside"`
			}
		}
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	for _, s := range r.Scenarios {
		var full, half struct{ noisy, samples int }
		var cpu, p50 *stats.Summary
		for _, p := range s.Peers {
			full.noisy, full.samples = full.noisy+p.Beside.Noisy, full.samples+p.Beside.Samples
			half.noisy, half.samples = half.noisy+p.HalfBeside.Noisy, half.samples+p.HalfBeside.Samples
			if p.Peer == "base" {
				cpu, p50 = p.Ratio, p.P50
			}
		}
		all = append(all, compareRatio(s.Scenario, "CPU per call", cpu, margin, full.noisy, full.samples))
		if latency > 0 {
			all = append(all, compareRatio(s.Scenario, "p50 at half load", p50, latency, half.noisy, half.samples))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("bench: the report has no scenarios")
	}
	return all, nil
}

// compareRatio judges the ratio of a scenario's figure; nil if there is none.
func compareRatio(scenario, figure string, ratio *stats.Summary, margin float64, noisy, samples int) comparison {
	c := comparison{what: scenario + " " + figure, run: scenario, verdict: undecided}
	if ratio == nil {
		c.line = fmt.Sprintf("%s: too little to compare %s", scenario, figure)
	} else {
		c.line = fmt.Sprintf("%s: %s %.3f of before (%.3f to %.3f), %d rounds", scenario, figure, ratio.Median, ratio.Low, ratio.High, ratio.N)
		c.verdict = judgeRatio(*ratio, margin)
	}
	if noisy > 0 {
		c.line += fmt.Sprintf("; others used the machine in %d of %d measurements", noisy, samples)
	}
	return c
}

// judgeRatio returns the verdict on a ratio with its bounds.
func judgeRatio(r stats.Summary, margin float64) verdict {
	switch {
	case r.Sure < sure:
	case r.Low > 1+margin:
		return slower
	case r.High <= 1+margin:
		return fine
	}
	return undecided
}
