package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Export says where spans and metrics are sent by OTLP. The zero value sends nothing.
type Export struct {
	// Spans receives spans, nil for none; Sampling says of which calls, DefaultRatio of them if it is nil.
	Spans    trace.SpanExporter
	Sampling *Sampling
	// Metrics receives all metrics from time to time, nil for none.
	Metrics metric.Exporter
	// Resource describes the gateway in both.
	Resource *resource.Resource
}

// ExportFromEnvironment reads OpenTelemetry's standard variables. Each signal is exported if its exporter
// is set to otlp or if there is an endpoint for it. The endpoint, headers, certificates, timeouts and the
// rest are read by OpenTelemetry's own exporters. Nothing is connected to yet.
func ExportFromEnvironment(ctx context.Context, version string) (Export, error) {
	var e Export
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return e, nil
	}
	spans, traceErr := wanted("TRACES")
	metrics, metricErr := wanted("METRICS")
	if err := errors.Join(traceErr, metricErr); err != nil || !spans && !metrics {
		return e, err
	}
	var err error
	if e.Resource, err = newResource(ctx, version); err != nil {
		return Export{}, err
	}
	if spans {
		if e.Sampling, err = parseSampling(os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG")); err != nil {
			return Export{}, err
		}
		if e.Spans, err = newSpanExporter(ctx); err != nil {
			return Export{}, err
		}
	}
	if metrics {
		if e.Metrics, err = newMetricExporter(ctx); err != nil {
			return Export{}, err
		}
	}
	return e, nil
}

// wanted reports whether a signal, TRACES or METRICS, is to be exported. OpenTelemetry would export all of
// them to localhost unless told otherwise: a gateway that nobody has told of a collector has none.
func wanted(signal string) (bool, error) {
	name := "OTEL_" + signal + "_EXPORTER"
	switch v := os.Getenv(name); {
	case v == "otlp":
		return true, nil
	case v == "none", v == "prometheus" && signal == "METRICS": // which is there in any case
		return false, nil
	case v != "":
		return false, fmt.Errorf("%s: got %q, want otlp or none", name, v)
	}
	return endpointOf(signal) != "", nil
}

func endpointOf(signal string) string {
	return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

// protocol returns how a signal is exported, grpc or http/protobuf.
func protocol(signal string) (string, error) {
	const all = "OTEL_EXPORTER_OTLP_PROTOCOL"
	name := "OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL"
	if os.Getenv(name) == "" {
		name = all
	}
	switch v := cmp.Or(os.Getenv(name), "http/protobuf"); v {
	case "grpc", "http/protobuf":
		return v, nil
	default:
		return "", fmt.Errorf("%s: got %q, want grpc or http/protobuf", name, v)
	}
}

func newSpanExporter(ctx context.Context) (trace.SpanExporter, error) {
	p, err := protocol("TRACES")
	switch {
	case err != nil:
		return nil, err
	case p == "grpc":
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

func newMetricExporter(ctx context.Context) (metric.Exporter, error) {
	p, err := protocol("METRICS")
	switch {
	case err != nil:
		return nil, err
	case p == "grpc":
		return otlpmetricgrpc.New(ctx)
	}
	return otlpmetrichttp.New(ctx)
}

// newResource describes the gateway. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come last and win.
func newResource(ctx context.Context, version string) (*resource.Resource, error) {
	return resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithAttributes(semconv.ServiceName("sluice"), semconv.ServiceVersion(version)),
		resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
}
