package main

import (
	"reflect"
	"strings"
	"testing"
)

// csvReport is what benchstat writes: a benchmark 25 % slower for sure, one that may be, one
// that is faster, one that allocates for the first time, and one that only one side has.
const csvReport = `goos: linux
goarch: amd64
pkg: sluice/gateway/relay
,base,,tree,,,
,sec/op,CI,sec/op,CI,vs base,P
WriteData/bytes=400,1.2e-08,2%,1.5e-08,1%,+25.00%,p=0.002 n=6
WriteData/bytes=4096,1.2e-08,2%,1.5e-08,40%,~,p=0.310 n=6
FrameHeader,1.2e-08,2%,6e-09,1%,-50.00%,p=0.002 n=6
RequestHeaders,1.00e-08,2%,1.03e-08,1%,+3.00%,p=0.002 n=6
Chunks,,,6e-09,1%,,
geomean,1.2e-08,,1.3e-08,,+8.00%,

,base,,tree,,,
,allocs/op,CI,allocs/op,CI,vs base,P
WriteData/bytes=400,0,0%,1,0%,?,p=0.002 n=6
FrameHeader,2,0%,2,0%,~,p=1.000 n=6

,base,,tree,,,
,B/s,CI,B/s,CI,vs base,P
WriteData/bytes=400,1e9,0%,2e9,0%,+100.00%,p=0.002 n=6
`

func TestSlowerBenchmarksAreThoseBeyondChanceAndMargin(t *testing.T) {
	got, err := judgeBenchmarks(csvReport, 0.05)
	want := findings{
		slower:    []string{"WriteData/bytes=400: sec/op +25.00% (p=0.002 n=6)", "WriteData/bytes=400: allocs/op ? (p=0.002 n=6)"},
		undecided: []string{"WriteData/bytes=4096: sec/op +25 %, or by chance (p=0.310 n=6)"},
		open:      []string{"BenchmarkWriteData"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("findings = %q, %v, want %q", got, err, want)
	}
	if got, err := judgeBenchmarks(csvReport, 0.02); err != nil || len(got.slower) != 3 {
		t.Errorf("with a margin of 2 %%: %q, %v, want RequestHeaders too", got, err)
	}
	if _, err := judgeBenchmarks(",base,,tree,,,\n,sec/op,CI,sec/op,CI,vs base,P\nA,,,1,0%,,\n", 0.05); err == nil {
		t.Error("a comparison of nothing succeeded")
	}
}

func TestScenariosAreJudgedByTheirBounds(t *testing.T) {
	report := func(low, high string) []byte {
		return []byte(`{"scenarios": [{"scenario": "4KiB:4x8:tls", "request_bytes": 4096, "connections": 4, "streams": 8, "peers": [
			{"peer": "tree", "cpu_ratio": {"median": 1, "low": 1, "high": 1}, "beside": {"noisy": 1, "samples": 9}},
			{"peer": "base", "cpu_ratio": {"median": 1.2, "low": ` + low + `, "high": ` + high + `, "n": 9}, "beside": {"noisy": 2, "samples": 9}}]}]}`)
	}
	for _, test := range []struct {
		low, high         string
		slower, undecided int
	}{
		{"1.10", "1.30", 1, 0},
		{"1.04", "1.30", 0, 1},
		{"0.9", "1.06", 0, 1},
		{"0.9", "1.04", 0, 0},
		{"0.5", "0.9", 0, 0},
	} {
		got, lines, err := judgeScenarios(report(test.low, test.high), 0.05)
		if err != nil || len(got.slower) != test.slower || len(got.undecided) != test.undecided || len(got.open) != test.undecided {
			t.Errorf("bounds %s to %s: %+v, %v, want %d slower and %d undecided", test.low, test.high, got, err, test.slower, test.undecided)
		}
		if len(got.open) > 0 && got.open[0] != "4KiB:4x8:tls" {
			t.Errorf("open is %q, want what -scenarios takes", got.open)
		}
		if want := "9 rounds; others used the machine in 3 of 18 measurements"; !strings.Contains(lines[0], want) {
			t.Errorf("%q lacks %q", lines[0], want)
		}
	}
	if _, _, err := judgeScenarios([]byte(`{"scenarios": []}`), 0.05); err == nil {
		t.Error("a comparison of nothing succeeded")
	}
}

func TestEachConclusionHasAnExitCode(t *testing.T) {
	for _, test := range []struct {
		findings findings
		code     int
		printed  string
	}{
		{findings{}, 0, "nothing is slower than main"},
		{findings{undecided: []string{"b"}}, 3, "may be slower than main"},
		{findings{slower: []string{"a"}}, 1, ""},
		{findings{slower: []string{"a"}, undecided: []string{"b"}}, 1, "may be slower than main"},
	} {
		var stdout strings.Builder
		if err := test.findings.conclude("main", &stdout); exitCode(err) != test.code || !strings.Contains(stdout.String(), test.printed) {
			t.Errorf("%q: %v with exit code %d and\n%s\nwant %d and %q", test.findings, err, exitCode(err), &stdout, test.code, test.printed)
		}
	}
}

func TestBenchmarksAreRunAgainByTheirTopLevelNames(t *testing.T) {
	for name, want := range map[string]string{
		"Director/split-2": "BenchmarkDirector", "FrameHeader-16": "BenchmarkFrameHeader", "FrameHeader": "BenchmarkFrameHeader",
		"Plain-Old/x=1-2/y-2": "BenchmarkPlain-Old",
	} {
		if got := topLevel(name); got != want {
			t.Errorf("topLevel(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, arguments := range []string{"-count 2", "-rounds 3", "-margin 2", "-margin NaN", "-count 34", "-seconds 0", "main"} {
		var stderr strings.Builder
		if _, err := parse(strings.Fields(arguments), &stderr); err == nil || !strings.Contains(stderr.String(), "got") && !strings.Contains(stderr.String(), "unexpected") {
			t.Errorf("parse(%s) = %v, printed %q", arguments, err, &stderr)
		}
	}
}
