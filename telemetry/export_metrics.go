package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// exportPoints is how many metrics are sent at once.
const exportPoints = 256

// exportMetrics sends from time to time (OTEL_METRIC_EXPORT_INTERVAL, 60 s) what Prometheus would get,
// until ctx ends, and then once more.
func exportMetrics(ctx context.Context, e *Export, m *metrics, log *slog.Logger) {
	reader := metric.NewPeriodicReader(&pieceExporter{Exporter: e.Metrics, metrics: m, log: log})
	provider := metric.NewMeterProvider(metric.WithReader(reader), metric.WithResource(e.Resource))
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTimeout)
	defer cancel()
	if err := provider.Shutdown(last); err != nil {
		log.Debug("the exporter of metrics did not end well", "error", err)
	}
}

// pieceExporter sends all metrics, collector by collector and some at a time: of thousands of routes they are a hundred
// megabytes at once. It counts the times that all were delivered, and those that they were not.
type pieceExporter struct {
	metric.Exporter
	metrics *metrics
	log     *slog.Logger
	failing atomic.Bool
}

// Export implements [metric.Exporter]. What it is given tells the resource alone: there are no instruments of OpenTelemetry's.
func (x *pieceExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if err := x.all(ctx, rm); err != nil {
		x.metrics.drop(signalMetrics, dropExport, 1)
		if !x.failing.Swap(true) {
			x.log.Warn("metrics are not being delivered", "error", err)
		}
		return err
	}
	x.metrics.exported.WithLabelValues(signalMetrics).Inc()
	if x.failing.Swap(false) {
		x.log.Info("metrics are being delivered again")
	}
	return nil
}

func (x *pieceExporter) all(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	p := newPiece()
	for _, c := range x.metrics.registry.list() {
		for some := range slices.Chunk(slices.Concat(collect(c)...), exportPoints) {
			if err := x.some(ctx, rm, p, some); err != nil {
				return err
			}
		}
	}
	return nil
}

// some sends a piece.
func (x *pieceExporter) some(ctx context.Context, rm *metricdata.ResourceMetrics, p *piece, some []prometheus.Metric) error {
	gather := func() ([]*dto.MetricFamily, error) { return p.gather(some) }
	scopes, err := bridge.NewMetricProducer(bridge.WithGatherer(prometheus.GathererFunc(gather))).Produce(ctx)
	if err != nil {
		return err
	}
	time.Sleep(breather) // calls go first
	return x.Exporter.Export(ctx, &metricdata.ResourceMetrics{Resource: rm.Resource, ScopeMetrics: scopes})
}
