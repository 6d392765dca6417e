package telemetry

import (
	"strings"
	"testing"
)

// Nothing is exported unless somebody says where to, and what cannot be done is said at the start.
func TestExportFromEnvironment(t *testing.T) {
	for _, c := range []struct {
		name           string
		env            map[string]string
		spans, metrics bool
		fault          string
	}{
		{"nothing", nil, false, false, ""},
		{"endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true, true, ""},
		{"endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, true, false, ""},
		{"traces by name", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, false, ""},
		{"no metrics", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "prometheus"}, true, false, ""},
		{"off", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, false, false, ""},
		{"other exporter", map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, false, `OTEL_TRACES_EXPORTER: got "zipkin", want otlp or none`},
		{"other protocol", map[string]string{"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, false, false,
			`OTEL_EXPORTER_OTLP_PROTOCOL: got "http/json", want grpc or http/protobuf`},
		{"grpc", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, true, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			e, err := ExportFromEnvironment(t.Context(), "test")
			if (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Fatalf("got error %v, want %q", err, c.fault)
			}
			if (e.Spans != nil) != c.spans || (e.Metrics != nil) != c.metrics {
				t.Errorf("spans %v, metrics %v, want %v, %v", e.Spans != nil, e.Metrics != nil, c.spans, c.metrics)
			}
			if e.Spans != nil {
				_ = e.Spans.Shutdown(t.Context())
			}
			if e.Metrics != nil {
				_ = e.Metrics.Shutdown(t.Context())
			}
		})
	}
}
