package main

import (
	"strings"
	"testing"
	"time"

	"sluice/bench/counters"
	"sluice/bench/payload"
	"sluice/bench/procfs"
)

func TestOnlyRequestsThatReachTheBackendOnceCount(t *testing.T) {
	const requests, size = 1000, 4096
	type evidence struct {
		result outcome
		calls  counters.Totals
		pids   []int
	}
	good := evidence{
		outcome{bytes: requests * payload.AnswerSize},
		counters.Totals{Begun: requests, Answered: requests, RequestBytes: requests * (size - 5)},
		[]int{7, 8},
	}
	for _, test := range []struct {
		name  string
		spoil func(*evidence)
		want  string // in the error; empty for none
	}{
		{"all is well", func(*evidence) {}, ""},
		{"a proxy that answers by itself", func(e *evidence) { e.calls = counters.Totals{} }, "saw 0 calls"},
		{"a call sent twice", func(e *evidence) { e.calls.Begun++; e.calls.RequestBytes += size - 5 }, "saw 1001 calls"},
		{"a call the backend did not finish", func(e *evidence) { e.calls.Answered-- }, "answered 999"},
		{"a request cut short", func(e *evidence) { e.calls.RequestBytes-- }, "want 4091000"},
		{"an answer cut short", func(e *evidence) { e.result.bytes -= payload.AnswerSize }, "answers add up to"},
		{"a call that failed", func(e *evidence) { e.result.trouble = "999 of 1000" }, "999 of 1000"},
		{"a worker replaced", func(e *evidence) { e.pids = []int{7, 9} }, "processes changed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := good
			test.spoil(&e)
			before := reading{calls: counters.Totals{Begun: 5, Answered: 4, RequestBytes: 3}, proxy: procfs.Usage{PIDs: good.pids}}
			after := reading{calls: counters.Totals{Begun: 5 + e.calls.Begun, Answered: 4 + e.calls.Answered, RequestBytes: 3 + e.calls.RequestBytes}, proxy: procfs.Usage{PIDs: e.pids}}
			got := doubt(before, after, e.result, requests, scenario{Size: size})
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("doubt = %q, want %q", got, test.want)
			}
		})
	}
}

func TestCallsAtARateAreEnoughForP99UnlessThatTakesTooLong(t *testing.T) {
	m := &measurer{seconds: time.Second / 2}
	at := key{scenario: scenario{Size: 1 << 20, Connections: 4, Streams: 4}, kind: half}
	for rate, want := range map[float64]uint64{1e6: 1000, 180: 1000, 100: 600, 1: 16} {
		if got := m.fewest(at, rate); got != want {
			t.Errorf("at %g calls/s at least %d calls, want %d", rate, got, want)
		}
	}
	at.kind = saturated
	if got := m.fewest(at, 0); got != 16 {
		t.Errorf("saturated at least %d calls, want one of each stream", got)
	}
}
