package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// keeper takes spans and keeps why they were kept.
type keeper struct {
	mu  sync.Mutex
	why map[string]int
}

func (k *keeper) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range spans {
		for _, a := range s.Attributes() {
			if a.Key == attrKept {
				k.why[a.Value.AsString()]++
			}
		}
	}
	return nil
}

func (k *keeper) Shutdown(context.Context) error { return nil }

// Calls that were not sampled are kept for what became of them, so many of them a second; what goes over is counted
// with its attempts, and neither sampled calls nor metrics suffer.
func TestTailIsKeptWithinARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{why: make(map[string]int)}
		tel := New(Config{Logger: slog.New(slog.DiscardHandler), Export: Export{Spans: k, Sampling: NewSampling(true, 0), Resource: resource.Empty()}})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tel.Run(ctx)
		}()
		s := tel.Series("fraud", "v7")
		record := func(parent string, change func(*Call)) {
			now := time.Now()
			c := Call{ID: 1 << 63, Series: s, Primary: s, Opened: now, Ended: now}
			tel.Begin(&c, parent)
			c.EndAttempt(&Attempt{Series: s, Started: now, Ended: now, Outcome: "success", Reason: "OK"})
			change(&c)
			tel.Record(&c)
		}
		record("", func(*Call) {})
		record("", func(c *Call) { c.Slow = true })
		record("", func(c *Call) {
			c.EndAttempt(&Attempt{Series: s, Started: c.Opened, Ended: c.Ended, Outcome: outcomeSlow, Reason: "OK"})
		})
		tel.Tally("fraud").SetLimit(time.Second)
		record("", func(c *Call) { c.RequestID, c.Unary, c.Opened = "late", true, c.Ended.Add(-time.Second-1) })
		record("", func(c *Call) { c.Unary, c.Opened = true, c.Ended.Add(-time.Second) })
		record("", func(c *Call) { c.Opened = c.Ended.Add(-time.Minute) }) // how long a stream lasts is for its caller to say
		if late := tel.Late(); len(late) != 1 || late[0].RequestID != "late" || tel.Tally("fraud").Read().Late != 1 {
			t.Errorf("late are %v, want the one that took longer than a second", late)
		}
		record("", func(c *Call) { c.Code, c.Canceled = 1, true })
		const over = 300
		for range tailBurst - 3 + over {
			record("", func(c *Call) { c.Code = 13 })
		}
		for range 5 {
			record("00-"+parentTrace+"-"+parentSpan+"-01", func(*Call) {})
		}
		time.Sleep(time.Second)
		for range tailPerSecond + 50 {
			record("", func(c *Call) { c.Code = 13 })
		}
		stop()
		<-ended
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.why["slow"] != 3 || k.why["sampled"] != 5 || k.why["failed"] != tailBurst-3+tailPerSecond || len(k.why) != 3 {
			t.Errorf("kept %v, want 3 slow, 5 sampled, and of those that failed %d", k.why, tailBurst-3+tailPerSecond)
		}
		var dropped, counted float64
		for name, f := range gathered(t, tel) {
			for _, m := range f.GetMetric() {
				switch name {
				case "sluice_telemetry_dropped_total":
					if labels := m.GetLabel(); labels[0].GetValue() == dropRate && labels[1].GetValue() == signalSpans {
						dropped = m.GetCounter().GetValue()
					}
				case "sluice_call_duration_seconds":
					counted += float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		if want := 2. * (over + 50); dropped != want {
			t.Errorf("%v spans were dropped for the rate, want %v: two of each call", dropped, want)
		}
		if want := 7. + tailBurst - 3 + over + 5 + tailPerSecond + 50; counted != want {
			t.Errorf("%v calls were counted, want all %v", counted, want)
		}
	})
}
