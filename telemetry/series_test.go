package telemetry

import (
	"log/slog"
	"slices"
	"testing"
	"time"
)

// Model servers may send any number as a status: those that stand for nothing share one series, and its memory.
func TestStatusesThatStandForNothingShareASeries(t *testing.T) {
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	s := tel.Series("fraud", "v7")
	for code := range uint32(1000) {
		now := time.Now()
		tel.Record(&Call{Series: s, Primary: s, Code: code, Opened: now, Ended: now})
	}
	if known := *s.calls.known.Load(); len(known) != len(codeNames)+1 {
		t.Errorf("%d statuses are known, want %d and one for the others", len(known), len(codeNames))
	}
	for _, f := range gathered(t, tel)["sluice_call_duration_seconds"].GetMetric() {
		if n := f.GetHistogram().GetSampleCount(); n != 1 && n != uint64(1000-len(codeNames)) {
			t.Errorf("%v counts %d calls", f.GetLabel(), n)
		}
	}
}

// A model that is named like something of the gateway's own does not make metrics contradict each other.
func TestSeriesWithTheSameLabelsAreOne(t *testing.T) {
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	for _, s := range []*Series{tel.Local(), tel.Series(LocalModel, ""), tel.Series(LocalModel, "v1")} {
		record(s)
	}
	var counts []uint64
	for _, m := range gathered(t, tel)["sluice_call_duration_seconds"].GetMetric() {
		counts = append(counts, m.GetHistogram().GetSampleCount())
	}
	if slices.Sort(counts); !slices.Equal(counts, []uint64{1, 2}) {
		t.Errorf("calls %v, want 1 of the version and 2 of none", counts)
	}
}
