package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"sluice/bench/stats"
)

var fourByEight = scenario{4096, 4, 8}

// twoPeers is a report of three rounds: sluice, nginx at twice the CPU time and
// a third of the rate, and direct, which has no proxy to charge.
func twoPeers() (*report, results) {
	r := &report{Peers: []peerVersion{{"sluice", "1"}, {"nginx", "2"}, {"direct", "-"}}, Rounds: 3, Seconds: 3, Reference: "sluice"}
	series := func(cpu, rate, latency float64) []sample {
		// The second round finds a machine half as fast.
		return []sample{
			{Requests: 1, CPUMicros: cpu, PerSecond: rate, MeanLatency: latency},
			{Requests: 1, CPUMicros: 2 * cpu, PerSecond: rate / 2, MeanLatency: 2 * latency},
			{Requests: 1, CPUMicros: cpu, PerSecond: rate, MeanLatency: latency},
		}
	}
	return r, results{fourByEight: {
		"sluice": series(10, 30000, 500),
		"nginx":  series(20, 10000, 900),
		"direct": series(0, 60000, 200),
	}}
}

func TestRatiosOfCPUAndRateAreEachTheirOwn(t *testing.T) {
	r, measured := twoPeers()
	if err := r.summarize([]scenario{fourByEight}, measured); err != nil {
		t.Fatal(err)
	}
	nginx, direct := r.Scenarios[0].Rows[1], r.Scenarios[0].Rows[2]
	if want := (stats.Summary{Median: 0.5, Min: 0.5, Max: 0.5}); *nginx.CPURatio != want {
		t.Errorf("CPU ratio = %v, want %v", *nginx.CPURatio, want)
	}
	if want := (stats.Summary{Median: 3, Min: 3, Max: 3}); *nginx.RateRatio != want {
		t.Errorf("rate ratio = %v, want %v", *nginx.RateRatio, want)
	}
	if want := (stats.Summary{Median: 20, Min: 20, Max: 40}); *nginx.CPUMicros != want {
		t.Errorf("CPU = %v, want %v", *nginx.CPUMicros, want)
	}
	if direct.CPUMicros != nil || direct.CPURatio != nil || direct.RateRatio.Median != 0.5 {
		t.Errorf("direct = %+v, want no CPU time and a rate ratio of 0.5", direct)
	}
	if len(r.Warnings) != 0 {
		t.Errorf("warnings = %q, want none", r.Warnings)
	}
}

func TestWithoutTheReferenceThereAreNoRatios(t *testing.T) {
	r, measured := twoPeers()
	r.Reference = "elsewhere"
	if err := r.summarize([]scenario{fourByEight}, measured); err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Scenarios[0].Rows {
		if row.CPURatio != nil || row.RateRatio != nil {
			t.Errorf("%s has ratios", row.Peer)
		}
	}
}

func TestAnInvalidSampleFailsTheRunAndShowsNoFigures(t *testing.T) {
	r, measured := twoPeers()
	measured[fourByEight]["nginx"][1] = sample{Requests: 1, Invalid: "the backend saw 0 calls"}
	err := r.summarize([]scenario{fourByEight}, measured)
	if err == nil || !strings.Contains(err.Error(), "1 of 9 measurements are invalid") {
		t.Errorf("summarize = %v, want one invalid measurement of nine", err)
	}
	if nginx := r.Scenarios[0].Rows[1]; nginx.CPUMicros != nil || nginx.PerSecond != nil || nginx.RateRatio != nil {
		t.Errorf("nginx has figures: %+v", nginx)
	}
	var table bytes.Buffer
	if err := r.write(&table, "table"); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(table.String()) {
		if strings.HasPrefix(line, "  nginx  ") && !strings.Contains(line, "INVALID") {
			t.Errorf("the table says %q, want INVALID", line)
		}
	}
}

func TestBusyStrangersAreWarnedOf(t *testing.T) {
	r, measured := twoPeers()
	measured[fourByEight]["sluice"][0].OtherCores = 0.5
	if err := r.summarize([]scenario{fourByEight}, measured); err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "in 1 of 9 measurements") {
		t.Errorf("warnings = %q, want one that counts one measurement of nine", r.Warnings)
	}
}

func TestTable(t *testing.T) {
	r, measured := twoPeers()
	r.Machine = machine{CPU: "Test", Cores: 2, Kernel: "6", Go: "go1", H2load: "1", LoadBefore: "0.1", LoadAfter: "0.2"}
	r.Skipped = []skippedPeer{{"nghttpx", "nghttpx: not installed"}}
	r.Warnings = []string{"figures are made up"}
	if err := r.summarize([]scenario{fourByEight}, measured); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := r.write(&got, "table"); err != nil {
		t.Fatal(err)
	}
	const want = `2 cores (Test), Linux 6, go1, h2load 1, load average 0.1 before and 0.2 after
  sluice: 1
  nginx: 2
  direct: -
  nghttpx: skipped, nghttpx: not installed
median (min-max) of 3 rounds of about 3 s; ratios are sluice / peer, round by round

4 KiB requests, 4 connections x 8 streams
  peer    CPU us/request    requests/s           mean latency us  CPU ratio         requests/s ratio
  sluice  10.0 (10.0-20.0)  30000 (15000-30000)  500 (500-1000)   1.00 (1.00-1.00)  1.00 (1.00-1.00)
  nginx   20.0 (20.0-40.0)  10000 (5000-10000)   900 (900-1800)   0.50 (0.50-0.50)  3.00 (3.00-3.00)
  direct  -                 60000 (30000-60000)  200 (200-400)    -                 0.50 (0.50-0.50)

warning: figures are made up
`
	if got.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", &got, want)
	}
}

func TestJSONHoldsEverySample(t *testing.T) {
	r, measured := twoPeers()
	if err := r.summarize([]scenario{fourByEight}, measured); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := r.write(&text, "json"); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if s := got.Scenarios[0]; s.scenario != fourByEight || len(s.Rows) != 3 || len(s.Rows[1].Samples) != 3 || s.Rows[1].Samples[1].CPUMicros != 40 {
		t.Errorf("scenario = %+v, want what was put in", s)
	}
}
