package telemetry

import (
	"context"
	"log/slog"
	"math"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// nowhere takes spans and forgets them.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }

// tracingAt returns telemetry with traces, running until the test ends.
func tracingAt(t testing.TB, ratio float64) *Telemetry {
	t.Helper()
	tel := New(Config{Logger: slog.New(slog.DiscardHandler), Export: Export{
		Spans: nowhere{}, Sampling: NewSampling(true, ratio), Resource: resource.Empty(),
	}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tel.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return tel
}

// life is what the gateway does of a call that goes well at once.
func life(tel *Telemetry, s *Series, c *Call, a *Attempt, p *Traceparent, id uint64) {
	now := time.Now()
	*c = Call{ID: id, Series: s, Primary: s, Choice: "weighted", Service: "shop.Till", Method: "Pay", RequestID: "1", RequestBytes: 4096, AnswerBytes: 410}
	tel.Begin(c, "")
	*a = Attempt{Series: s, Endpoint: "192.0.2.1:1", Started: now, FirstByte: now, Outcome: "success", Reason: "OK"}
	if parent := c.BeginAttempt(a, p); len(parent) != len(p) {
		panic(parent)
	}
	a.Ended = now.Add(3 * time.Millisecond)
	c.EndAttempt(a)
	c.Opened, c.Ended = now, a.Ended
	tel.Record(c)
}

// A call that goes well and is not sampled allocates nothing, with traces on.
func TestUnsampledCallsAllocateNothing(t *testing.T) {
	tel := tracingAt(t, 0.5)
	s := tel.Series("fraud", "v7")
	c, a, p := new(Call), new(Attempt), new(Traceparent)
	life(tel, s, c, a, p, math.MaxUint64) // makes the series
	if n := testing.AllocsPerRun(1000, func() { life(tel, s, c, a, p, math.MaxUint64) }); n != 0 {
		t.Errorf("%v allocations per unsampled call, want none", n)
	}
	if n := testing.AllocsPerRun(100, func() { life(tel, s, c, a, p, 0) }); n == 0 {
		t.Error("a sampled call allocates nothing either: nothing is kept of it")
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, sampled := range []bool{false, true} {
		name, id := "unsampled", uint64(math.MaxUint64)
		if sampled {
			name, id = "sampled", 0
		}
		b.Run(name, func(b *testing.B) {
			tel := tracingAt(b, 0.5)
			s := tel.Series("fraud", "v7")
			c, a, p := new(Call), new(Attempt), new(Traceparent)
			b.ReportAllocs()
			for b.Loop() {
				life(tel, s, c, a, p, id)
			}
		})
	}
}
