package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"

	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// exportMetrics sends from time to time (OTEL_METRIC_EXPORT_INTERVAL, 60 s) what Prometheus would get,
// until ctx ends, and then once more.
func exportMetrics(ctx context.Context, e *Export, m *metrics, log *slog.Logger) {
	reader := metric.NewPeriodicReader(&countingExporter{Exporter: e.Metrics, metrics: m, log: log},
		metric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(m.registry))))
	provider := metric.NewMeterProvider(metric.WithReader(reader), metric.WithResource(e.Resource))
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTimeout)
	defer cancel()
	if err := provider.Shutdown(last); err != nil {
		log.Debug("the exporter of metrics did not end well", "error", err)
	}
}

// countingExporter counts what is delivered and what is not.
type countingExporter struct {
	metric.Exporter
	metrics *metrics
	log     *slog.Logger
	failing atomic.Bool
}

// Export implements [metric.Exporter].
func (c *countingExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	err := c.Exporter.Export(ctx, rm)
	if err != nil {
		c.metrics.drop(signalMetrics, dropExport, 1)
		if !c.failing.Swap(true) {
			c.log.Warn("metrics are not being delivered", "error", err)
		}
		return err
	}
	c.metrics.exported.WithLabelValues(signalMetrics).Inc()
	if c.failing.Swap(false) {
		c.log.Info("metrics are being delivered again")
	}
	return nil
}
