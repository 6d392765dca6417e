package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// csvReport is what benchstat writes: a benchmark 25 % slower for sure, one that may be, one
// that is faster, one that allocates for the first time, one that takes as much CPU time though
// longer, one that takes more though not longer, and some that only one side has.
const csvReport = `goos: linux
goarch: amd64
pkg: sluice/gateway/relay
cpu: AMD EPYC
,base,,tree,,,
,sec/op,CI,sec/op,CI,vs base,P
WriteData/bytes=400,1.2e-08,2%,1.5e-08,1%,+25.00%,p=0.002 n=6
WriteData/bytes=4096,1.2e-08,2%,1.5e-08,40%,~,p=0.310 n=6
FrameHeader,1.2e-08,2%,6e-09,1%,-50.00%,p=0.002 n=6
RequestHeaders,1.00e-08,2%,1.03e-08,1%,+3.00%,p=0.002 n=6
Passage/loop,1e-4,2%,2e-4,1%,+100.00%,p=0.002 n=6
Passage/tls,1e-4,2%,1e-4,1%,~,p=0.310 n=6
Gone-2,1.2e-08,2%
Chunks,,,6e-09,1%
geomean,1.2e-08,,1.3e-08,,+8.00%,

,base,,tree,,,
,allocs/op,CI,allocs/op,CI,vs base,P
WriteData/bytes=400,0,0%,1,0%,?,p=0.002 n=6
FrameHeader,2,0%,2,0%,~,p=1.000 n=6
Gone-2,0,0%
Chunks,,,1,1%

,base,,tree,,,
,cpu-sec/op,CI,cpu-sec/op,CI,vs base,P
Passage/loop,1e-4,2%,1e-4,1%,~,p=0.310 n=6
Passage/tls,1e-4,2%,2e-4,1%,+100.00%,p=0.002 n=6

,base,,tree,,,
,B/s,CI,B/s,CI,vs base,P
WriteData/bytes=400,1e9,0%,2e9,0%,+100.00%,p=0.002 n=6

pkg: sluice/routing
,tree,
,sec/op,CI
Pick-2,1.2e-08,2%
geomean,1.2e-08,

,base,,tree,,,
,allocs/op,CI,allocs/op,CI,vs base,P
Choose,0,0%,0.04,0%,?,p=0.002 n=6
Lookup,0,0%,0.04,0%,~,p=0.310 n=6
`

func TestSlowerBenchmarksAreThoseBeyondChanceAndMargin(t *testing.T) {
	of := func(all []comparison, wanted verdict) (out []string) {
		for _, c := range all {
			if c.verdict == wanted {
				out = append(out, c.run+" "+c.line)
			}
		}
		return out
	}
	all, alone, err := judgeBenchmarks(csvReport, 0.05)
	if err != nil {
		t.Fatal(err)
	}
	for wanted, lines := range map[verdict][]string{
		slower: {
			"BenchmarkWriteData gateway/relay WriteData/bytes=400: sec/op +25.00% (p=0.002 n=6)",
			"BenchmarkWriteData gateway/relay WriteData/bytes=400: allocs/op from 0 to 1 (p=0.002 n=6)",
			"BenchmarkPassage gateway/relay Passage/tls: cpu-sec/op +100.00% (p=0.002 n=6)",
			"BenchmarkChoose routing Choose: allocs/op from 0 to 0.04 (p=0.002 n=6)",
		},
		undecided: {
			"BenchmarkWriteData gateway/relay WriteData/bytes=4096: sec/op +25 %, or by chance (p=0.310 n=6)",
			"BenchmarkLookup routing Lookup: allocs/op from 0 to 0.04, or by chance (p=0.310 n=6)",
		},
	} {
		if got := of(all, wanted); !slices.Equal(got, lines) {
			t.Errorf("verdict %d is on\n%s\nwant\n%s", wanted, strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
	if want := []string{"gateway/relay Gone-2", "gateway/relay Chunks", "routing Pick-2"}; !slices.Equal(alone, want) {
		t.Errorf("only one revision has %q, want %q", alone, want)
	}
	if all, _, err := judgeBenchmarks(csvReport, 0.02); err != nil || len(of(all, slower)) != 5 {
		t.Errorf("with a margin of 2 %%: %q, %v, want RequestHeaders too", of(all, slower), err)
	}
	if _, _, err := judgeBenchmarks(",base,,tree,,,\n,sec/op,CI,sec/op,CI,vs base,P\nA,,,1,0%,,\n", 0.05); err == nil {
		t.Error("a comparison of nothing succeeded")
	}
}

func TestABenchmarkIsJudgedByItsTimeIfOnlyOneRevisionReportsCPU(t *testing.T) {
	all, _, err := judgeBenchmarks(`pkg: sluice/gateway/relay
,base,,tree,,,
,sec/op,CI,sec/op,CI,vs base,P
Passage,1e-4,2%,2e-4,1%,+100.00%,p=0.002 n=6

,tree,
,cpu-sec/op,CI
Passage,1e-4,2%
`, 0.05)
	if err != nil || len(all) != 1 || all[0].verdict != slower || all[0].what != "gateway/relay Passage sec/op" {
		t.Errorf("comparisons = %+v, %v, want that it is slower by sec/op", all, err)
	}
}

func TestScenariosAreJudgedByTheirBounds(t *testing.T) {
	report := func(ratio string) []byte {
		return []byte(`{"scenarios": [{"scenario": "4KiB:4x8:tls", "request_bytes": 4096, "connections": 4, "streams": 8, "peers": [
			{"peer": "tree", "cpu_ratio": {"median": 1, "low": 1, "high": 1, "sure": 1}, "beside": {"noisy": 1, "samples": 9}},
			{"peer": "base"` + ratio + `, "beside": {"noisy": 2, "samples": 9}}]}]}`)
	}
	bounds := func(low, high, sure string) string {
		return `, "cpu_ratio": {"median": 1.2, "low": ` + low + `, "high": ` + high + `, "sure": ` + sure + `, "n": 9}`
	}
	for _, test := range []struct {
		ratio string
		want  verdict
	}{
		{bounds("1.10", "1.30", "0.96"), slower},
		{bounds("1.10", "1.30", "0.94"), undecided},
		{bounds("1.04", "1.30", "0.96"), undecided},
		{bounds("0.9", "1.06", "0.96"), undecided},
		{bounds("0.9", "1.04", "0.96"), fine},
		{bounds("0.9", "1.04", "0.5"), undecided},
		{bounds("0.5", "0.9", "0.96"), fine},
		{"", undecided}, // as if no CPU time had been seen
	} {
		got, err := judgeScenarios(report(test.ratio), 0.05, 0)
		if err != nil || len(got) != 1 || got[0].verdict != test.want || got[0].run != "4KiB:4x8:tls" {
			t.Fatalf("%q: %+v, %v, want verdict %d on what -scenarios takes", test.ratio, got, err, test.want)
		}
		if want := "; others used the machine in 3 of 18 measurements"; !strings.Contains(got[0].line, want) {
			t.Errorf("%q lacks %q", got[0].line, want)
		}
	}
	if got, err := judgeScenarios([]byte(`{"scenarios": [{"scenario": "4KiB:4x8", "peers": []}]}`), 0.05, 0); err != nil || got[0].verdict != undecided {
		t.Errorf("without base: %+v, %v, want that nothing is decided", got, err)
	}
	if _, err := judgeScenarios([]byte(`{"scenarios": []}`), 0.05, 0); err == nil {
		t.Error("a comparison of nothing succeeded")
	}
}

// CPU and p50 are judged each by its own figure and margin, and p50 only if that is asked for.
func TestMoreLatencyIsSlowerIfItIsLookedAt(t *testing.T) {
	const report = `{"scenarios": [{"scenario": "4KiB:4x8", "peers": [{"peer": "tree", "half_beside": {"samples": 9}}, {"peer": "base",
		"cpu_ratio": {"median": 1, "low": 0.9, "high": 1.02, "sure": 0.96}, "half_p50_ratio": {"median": 1.5, "low": %s, "high": 2, "sure": 0.96},
		"half_beside": {"noisy": 2, "samples": 9}}]}]}`
	for low, want := range map[string]verdict{"1.3": slower, "1.2": undecided} {
		got, err := judgeScenarios(fmt.Appendf(nil, report, low), 0.05, 0.25)
		if err != nil || len(got) != 2 || got[0].verdict != fine || got[1].verdict != want || got[0].what == got[1].what || got[1].run != "4KiB:4x8" ||
			!strings.Contains(got[1].line, "p50 at half load 1.500 of before ("+low) || !strings.Contains(got[1].line, "in 2 of 18 measurements") {
			t.Errorf("from %s: %+v, %v, want CPU fine, and p50 with verdict %d", low, got, err, want)
		}
	}
	if got, err := judgeScenarios(fmt.Appendf(nil, report, "1.3"), 0.05, 0); err != nil || len(got) != 1 || got[0].verdict != fine {
		t.Errorf("not looked at: %+v, %v, want CPU alone", got, err)
	}
	none := `{"scenarios": [{"scenario": "4KiB:4x8", "peers": [{"peer": "base", "cpu_ratio": {"median": 1, "low": 0.9, "high": 1.02, "sure": 0.96}}]}]}`
	if got, err := judgeScenarios([]byte(none), 0.05, 0.25); err != nil || len(got) != 2 || got[1].verdict != undecided {
		t.Errorf("without p50: %+v, %v, want that it is not decided", got, err)
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
	for _, arguments := range []string{"-count 2", "-rounds 3", "-margin 2", "-latency-margin 2", "-margin NaN", "-count 34", "-seconds 0", "-bench (", "main"} {
		var stderr strings.Builder
		if _, err := parse(strings.Fields(arguments), &stderr); err == nil || !strings.Contains(stderr.String(), "got") && !strings.Contains(stderr.String(), "unexpected") {
			t.Errorf("parse(%s) = %v, printed %q", arguments, err, &stderr)
		}
	}
}

func TestAPatternOfBenchmarksCountsInEveryPackage(t *testing.T) {
	o, err := parse([]string{"-bench", "Passage/loop"}, io.Discard)
	if err != nil || len(o.within) != len(dataPath) {
		t.Fatalf("within = %v, %v, want every package of the data path", o.within, err)
	}
	for i, f := range o.within {
		if f.path != dataPath[i].path || f.pattern != "Passage/loop" {
			t.Errorf("%v is run, want the pattern in %s", f, dataPath[i].path)
		}
	}
}
