package telemetry

import (
	"log/slog"
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
