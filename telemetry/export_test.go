package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// sink takes spans as its function says.
type sink struct {
	export func(context.Context, int) error
	spans  atomic.Int64 // delivered
}

func (s *sink) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := s.export(ctx, len(spans)); err != nil {
		return err
	}
	s.spans.Add(int64(len(spans)))
	return nil
}

func (s *sink) Shutdown(context.Context) error { return nil }

// exporting runs telemetry that samples every call and sends it to a sink, until stop is called.
func exporting(t *testing.T, s sdktrace.SpanExporter) (tel *Telemetry, stop func()) {
	t.Helper()
	tel = New(Config{Logger: slog.New(slog.DiscardHandler), Export: Export{Spans: s, Sampling: NewSampling(true, 1), Resource: resource.Empty()}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tel.Run(ctx)
	}()
	return tel, func() {
		cancel()
		<-ended
	}
}

// sampled records so many calls of two spans each.
func sampled(tel *Telemetry, n int) {
	s := tel.Series("fraud", "v7")
	for i := range n {
		now := time.Now()
		c := Call{ID: uint64(i), Series: s, Primary: s, Opened: now, Ended: now}
		tel.Begin(&c, "")
		var p Traceparent
		a := Attempt{Series: s, Started: now, Ended: now, Outcome: "success", Reason: "OK"}
		c.BeginAttempt(&a, &p)
		c.EndAttempt(&a)
		tel.Record(&c)
	}
}

// total is a counter's value.
func total(t *testing.T, tel *Telemetry, family string, labels ...string) int {
	t.Helper()
	c := tel.metrics.dropped
	if family == "exported" {
		c = tel.metrics.exported
	}
	var m dto.Metric
	if err := c.WithLabelValues(labels...).Write(&m); err != nil {
		t.Fatal(err)
	}
	return int(m.Counter.GetValue())
}

// Each span is delivered, or counted among those that were not, by the reason; while the sink hangs, as many records
// as the queue has room for are kept, and no more.
func TestEachSpanIsDeliveredOrCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan error)
		hung := &sink{export: func(context.Context, int) error { return <-hang }}
		tel, stop := exporting(t, hung)
		sampled(tel, 1)
		time.Sleep(2 * spanDelay) // it hangs now, with one call
		sampled(tel, spanRoom+100)
		if got := total(t, tel, "dropped", signalSpans, dropQueueFull); got != 2*100 {
			t.Errorf("%d spans found no room, want 200: the queue keeps %d calls", got, spanRoom)
		}
		go func() {
			hang <- errors.New("no")
			close(hang)
		}()
		time.Sleep(2 * spanDelay)
		stop()
		if got := total(t, tel, "dropped", signalSpans, dropExport); got != 2 {
			t.Errorf("%d spans were refused, want 2", got)
		}
		if got := total(t, tel, "exported", signalSpans); got != 2*spanRoom || hung.spans.Load() != 2*spanRoom {
			t.Errorf("%d spans are said to be delivered, %d were, want %d", got, hung.spans.Load(), 2*spanRoom)
		}
	})
}

// At the end, what has been recorded is still delivered, in as many batches as it takes, also if the end comes while one is
// under way.
func TestSpansAreDeliveredAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &sink{export: func(ctx context.Context, _ int) error {
			select {
			case <-time.After(lastTimeout / 10):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		tel, stop := exporting(t, slow)
		sampled(tel, 3*spanBatch)
		time.Sleep(spanDelay + lastTimeout/20) // in the middle of the first batch
		stop()
		if got := slow.spans.Load(); got != 2*3*spanBatch {
			t.Errorf("%d spans were delivered, want %d", got, 2*3*spanBatch)
		}
	})
}

// A sink that hangs holds the end up for seconds at most.
func TestHangingSinkDoesNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel, stop := exporting(t, &sink{export: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		sampled(tel, 3*spanBatch)
		time.Sleep(2 * spanDelay)
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != lastTimeout {
			t.Errorf("the end took %v, want %v", took, lastTimeout)
		}
		if got := total(t, tel, "dropped", signalSpans, dropExport); got != 2*3*spanBatch {
			t.Errorf("%d spans are counted as refused, want all %d", got, 2*3*spanBatch)
		}
	})
}

// refuses takes no metrics.
type refuses struct{ metric.Exporter }

func (refuses) Export(context.Context, *metricdata.ResourceMetrics) error { return errors.New("no") }

// A delivery of metrics that fails is counted, and that of the next is, too.
func TestExportsOfMetricsAreCounted(t *testing.T) {
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	c := pieceExporter{Exporter: refuses{}, metrics: tel.metrics, log: tel.cfg.Logger}
	for range 2 {
		if err := c.Export(t.Context(), new(metricdata.ResourceMetrics)); err == nil {
			t.Error("the failure is not passed on")
		}
	}
	if got := total(t, tel, "dropped", signalMetrics, dropExport); got != 2 {
		t.Errorf("%d failures counted, want 2", got)
	}
}

// pieces takes metrics, and remembers their values by name and attributes.
type pieces struct {
	metric.Exporter
	fails  int // the one that is refused, counted from 1; 0 for none
	sizes  []int
	points map[string]float64
}

func (p *pieces) Export(_ context.Context, rm *metricdata.ResourceMetrics) error {
	size := 0
	add := func(name string, a attribute.Set, value float64) {
		size++
		p.points[name+" "+a.Encoded(attribute.DefaultEncoder())] += value // twice the value, if it comes twice
	}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				for _, d := range data.DataPoints {
					add(m.Name, d.Attributes, d.Value)
				}
			case metricdata.Sum[float64]:
				for _, d := range data.DataPoints {
					add(m.Name, d.Attributes, d.Value)
				}
			case metricdata.ExponentialHistogram[float64]:
				for _, d := range data.DataPoints {
					add(m.Name, d.Attributes, float64(d.Count))
				}
			default:
				return fmt.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	if p.sizes = append(p.sizes, size); len(p.sizes) == p.fails {
		return errors.New("no")
	}
	return nil
}

// What is exported in pieces, none of which is large, is everything, once; if a piece is refused, the rest waits for the next time,
// and the export counts as failed.
func TestMetricsAreExportedInPieces(t *testing.T) {
	tel := many(t)
	sink := &pieces{points: make(map[string]float64)}
	x := pieceExporter{Exporter: sink, metrics: tel.metrics, log: tel.cfg.Logger}
	if err := x.Export(t.Context(), &metricdata.ResourceMetrics{Resource: resource.Empty()}); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]float64)
	for name, f := range gathered(t, tel) {
		for _, m := range f.GetMetric() {
			var labels []attribute.KeyValue
			for _, l := range m.GetLabel() {
				labels = append(labels, attribute.String(l.GetName(), l.GetValue()))
			}
			set := attribute.NewSet(labels...)
			want[name+" "+set.Encoded(attribute.DefaultEncoder())] =
				m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if !maps.Equal(sink.points, want) || len(want) < 10*manyMetrics {
		t.Errorf("%d metrics were exported, want the %d that there are, with their values", len(sink.points), len(want))
	}
	if n := len(sink.sizes); n < 10 || slices.Max(sink.sizes) > exportPoints {
		t.Errorf("pieces of %v, want many, none above %d", sink.sizes, exportPoints)
	}
	if exported, dropped := total(t, tel, "exported", signalMetrics), total(t, tel, "dropped", signalMetrics, dropExport); exported != 1 || dropped != 0 {
		t.Errorf("%d exports and %d failures are counted, want 1 and 0", exported, dropped)
	}
	sink.sizes, sink.fails = nil, 3
	if err := x.Export(t.Context(), &metricdata.ResourceMetrics{Resource: resource.Empty()}); err == nil || len(sink.sizes) != 3 {
		t.Errorf("got %v after %d pieces, want that the third fails and is the last", err, len(sink.sizes))
	}
	if exported, dropped := total(t, tel, "exported", signalMetrics), total(t, tel, "dropped", signalMetrics, dropExport); exported != 1 || dropped != 1 {
		t.Errorf("%d exports and %d failures are counted, want 1 and 1", exported, dropped)
	}
}
