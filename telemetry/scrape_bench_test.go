package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

// fleet is telemetry of so many routes of two versions, each of which has answered and failed, with as many values
// beside them as the gateway knows of each.
type fleet struct {
	*Telemetry
	models, addresses []string
	values            [10]*Family // of versions
	ofEndpoints       [6]*Family
}

func newFleet(tb testing.TB, routes int) *fleet {
	tb.Helper()
	f := &fleet{Telemetry: New(Config{Logger: slog.New(slog.DiscardHandler)})}
	for i := range f.values {
		f.values[i] = NewGauge(fmt.Sprintf("fleet_version_value_%d", i), "A value of a version.", "model", "version")
	}
	for i := range f.ofEndpoints {
		f.ofEndpoints[i] = NewGauge(fmt.Sprintf("fleet_endpoint_value_%d", i), "A value of an endpoint.", "model", "version", "endpoint")
	}
	for i := range routes {
		f.models = append(f.models, fmt.Sprintf("m%d", i))
		f.addresses = append(f.addresses, fmt.Sprintf("10.1.%d.%d:8001", i/250, i%250))
		f.use(i, 0)
		f.use(i, 13)
	}
	if _, err := f.Registry().Read(f); err != nil {
		tb.Fatal(err)
	}
	return f
}

// use records a call of each version of a route, with a status.
func (f *fleet) use(route int, code uint32) {
	outcome := "success"
	if code != 0 {
		outcome = "failure"
	}
	for _, version := range [...]string{"v1", "v2"} {
		s := f.Series(f.models[route], version)
		now := time.Now()
		took := time.Duration(rand.ExpFloat64() * float64(5*time.Millisecond))
		c := Call{Series: s, Primary: s, Code: code, Opened: now, Ended: now.Add(took), RequestBytes: 4096, AnswerBytes: 410}
		c.EndAttempt(&Attempt{Series: s, Started: now, Ended: c.Ended, Outcome: outcome, Reason: CodeName(code)})
		s.call(&c)
	}
}

// Families implements [Reader].
func (f *fleet) Families() []*Family { return append(f.values[:], f.ofEndpoints[:]...) }

// Read implements [Reader].
func (f *fleet) Read(out *Values) {
	for i, m := range f.models {
		for _, version := range [...]string{"v1", "v2"} {
			for n, of := range f.values {
				out.Add(of, float64(n), m, version)
			}
			for n, of := range f.ofEndpoints {
				out.Add(of, float64(n), m, version, f.addresses[i])
			}
			out.Breathe()
		}
	}
}

// nobody reads what it is given.
type nobody struct {
	fields http.Header
	bytes  int
}

func (w *nobody) Header() http.Header { return w.fields }
func (w *nobody) WriteHeader(int)     {}
func (w *nobody) Write(b []byte) (int, error) {
	w.bytes += len(b)
	return len(b), nil
}

// BenchmarkScrape is a scrape of 1,000 routes of two versions, without anybody who reads it, after calls of so many of
// the routes. Pauses are part of its time, not of its CPU.
func BenchmarkScrape(b *testing.B) {
	f := newFleet(b, 1000)
	h := f.Handler()
	for _, format := range []struct{ name, accept, encoding string }{
		{"OpenMetrics+gzip", asOpenMetrics, "gzip"},
		{"text+gzip", "text/plain", "gzip"},
		{"OpenMetrics", asOpenMetrics, "identity"},
		{"protobuf+gzip", asProtobuf, "gzip"},
	} {
		for _, used := range []int{0, 100, 1000} {
			b.Run(fmt.Sprintf("%s/used=%d", format.name, used), func(b *testing.B) {
				q := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				q.Header.Set("Accept", format.accept)
				q.Header.Set("Accept-Encoding", format.encoding)
				w := &nobody{fields: make(http.Header)}
				h.ServeHTTP(w, q) // the first of all
				b.ReportAllocs()
				w.bytes = 0
				cpu := time.Duration(0)
				for b.Loop() {
					b.StopTimer()
					for i := range used {
						f.use(i, 0)
					}
					b.StartTimer()
					begun := spent(b)
					h.ServeHTTP(w, q)
					cpu += spent(b) - begun
				}
				b.ReportMetric(float64(cpu.Microseconds())/1e3/float64(b.N), "cpu-ms/op")
				b.ReportMetric(float64(w.bytes)/float64(b.N), "answer-B/op")
			})
		}
	}
}

// spent is the CPU that the process has used.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkExport is an export of the metrics of 1,000 routes of two versions to nobody.
func BenchmarkExport(b *testing.B) {
	f := newFleet(b, 1000)
	sink := &largest{}
	x := pieceExporter{Exporter: sink, metrics: f.metrics, log: f.cfg.Logger}
	b.ReportAllocs()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	begun, heap := spent(b), m.HeapAlloc
	for b.Loop() {
		if err := x.Export(b.Context(), &metricdata.ResourceMetrics{Resource: resource.Empty()}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((spent(b)-begun).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(sink.live-heap)/(1<<20), "MiB-live-most")
}

// largest takes metrics, and sees from time to time how much memory is in use.
type largest struct {
	metric.Exporter
	taken int
	live  uint64
}

func (l *largest) Export(context.Context, *metricdata.ResourceMetrics) error {
	if l.taken++; l.taken%20 == 0 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		l.live = max(l.live, m.HeapAlloc)
	}
	return nil
}
