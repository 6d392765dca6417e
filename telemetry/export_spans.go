package telemetry

import (
	"context"
	"log/slog"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// spanRoom is how many records may wait to become spans; a record takes about a kilobyte.
	spanRoom = 2048
	// The queue is emptied this often rather than at once, so that the path of a call wakes nobody. A batch
	// is sent when it has this many spans.
	spanDelay = 200 * time.Millisecond
	spanBatch = 512
	// exportTimeout bounds one delivery, attempts to repeat it included; lastTimeout that at the end.
	exportTimeout = 10 * time.Second
	lastTimeout   = 3 * time.Second
)

// spanned is a record that spans are made of.
type spanned interface {
	count() int
	build(b *spanBuilder)
}

// spanExport turns records into spans and delivers them. Its goroutine may be held up by a sink as long as
// the sink likes: meanwhile the queue fills up, and what finds no room is dropped.
type spanExport struct {
	queue   chan spanned
	sink    sdktrace.SpanExporter
	build   *spanBuilder
	metrics *metrics
	log     *slog.Logger
	failing bool
}

func newSpanExport(e *Export, m *metrics, log *slog.Logger) *spanExport {
	return &spanExport{
		queue: make(chan spanned, spanRoom), sink: e.Spans, build: newSpanBuilder(e.Resource), metrics: m, log: log,
	}
}

// offer takes a record that nobody will change any more, if there is room.
func (x *spanExport) offer(s spanned) {
	select {
	case x.queue <- s:
	default:
		x.metrics.drop(signalSpans, dropQueueFull, s.count())
	}
}

// run delivers until ctx ends, and then what is left. A delivery that is under way when ctx ends, and what follows it,
// have lastTimeout together.
func (x *spanExport) run(ctx context.Context) {
	deliveries, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTimeout, cancel) })()
	tick := time.NewTicker(spanDelay)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			x.empty(deliveries)
		case <-ctx.Done():
			x.empty(deliveries)
			if err := x.sink.Shutdown(deliveries); err != nil {
				x.log.Debug("the exporter of traces did not end well", "error", err)
			}
			return
		}
	}
}

// empty delivers what is in the queue.
func (x *spanExport) empty(ctx context.Context) {
	for n := len(x.queue); n > 0; n-- {
		(<-x.queue).build(x.build)
		if len(x.build.ended.spans) >= spanBatch {
			x.deliver(ctx)
		}
	}
	x.deliver(ctx)
}

// deliver sends the spans that have been made; what cannot be sent is gone.
func (x *spanExport) deliver(ctx context.Context) {
	spans := x.build.ended.take()
	if len(spans) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	err := x.sink.ExportSpans(ctx, spans)
	switch {
	case err != nil:
		x.metrics.drop(signalSpans, dropExport, len(spans))
		if !x.failing {
			x.log.Warn("traces are not being delivered", "error", err)
		}
	default:
		x.metrics.exported.WithLabelValues(signalSpans).Add(float64(len(spans)))
		if x.failing {
			x.log.Info("traces are being delivered again")
		}
	}
	x.failing = err != nil
}
