package main

import (
	"io"
	"slices"
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
	got, err := slowerBenchmarks(csvReport, 0.05)
	want := []string{"WriteData/bytes=400: sec/op +25.00% (p=0.002 n=6)", "WriteData/bytes=400: allocs/op ? (p=0.002 n=6)"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("slower = %q, %v, want %q", got, err, want)
	}
	if got, err := slowerBenchmarks(csvReport, 0.02); err != nil || len(got) != 3 {
		t.Errorf("with a margin of 2 %%: %q, %v, want RequestHeaders too", got, err)
	}
	if _, err := slowerBenchmarks(",base,,tree,,,\n,sec/op,CI,sec/op,CI,vs base,P\nA,,,1,0%,,\n", 0.05); err == nil {
		t.Error("a comparison of nothing succeeded")
	}
}

func TestSlowerScenariosAreThoseWhoseBoundsSaySo(t *testing.T) {
	report := func(low string) []byte {
		return []byte(`{"scenarios": [{"request_bytes": 4096, "connections": 4, "streams": 8, "peers": [
			{"peer": "sluice", "cpu_ratio": {"median": 1, "low": 1, "high": 1}},
			{"peer": "base", "cpu_ratio": {"median": 1.2, "low": ` + low + `, "high": 1.3}}]}]}`)
	}
	for low, want := range map[string]int{"1.10": 1, "1.04": 0, "0.9": 0} {
		if got, err := slowerScenarios(report(low), 0.05, io.Discard); err != nil || len(got) != want {
			t.Errorf("lower bound %s: %q, %v, want %d", low, got, err, want)
		}
	}
	if _, err := slowerScenarios([]byte(`{"scenarios": []}`), 0.05, io.Discard); err == nil {
		t.Error("a comparison of nothing succeeded")
	}
}

func TestUsage(t *testing.T) {
	for _, arguments := range []string{"-count 2", "-rounds 3", "-margin 2", "-margin NaN", "main"} {
		var stderr strings.Builder
		if _, err := parse(strings.Fields(arguments), &stderr); err == nil || !strings.Contains(stderr.String(), "got") && !strings.Contains(stderr.String(), "unexpected") {
			t.Errorf("parse(%s) = %v, printed %q", arguments, err, &stderr)
		}
	}
}
