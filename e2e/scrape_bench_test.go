package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"sluice/sample"
)

// BenchmarkCallsWhileScraped compares, round by round in one run, the latency of calls while nobody looks with that
// while the metrics of 1,000 routes of two versions, each of which has answered and failed, are read every second as
// Prometheus reads them. Use -benchtime=1x: an iteration is all the rounds.
func BenchmarkCallsWhileScraped(b *testing.B) {
	const (
		routes = 1000
		half   = 3 * time.Second
	)
	v1, v2 := startBackend(b, "v1"), startBackend(b, "v2")
	doc := new(strings.Builder)
	doc.WriteString("routes:")
	for i := range routes {
		fmt.Fprintf(doc, "\n  - {model: m%d, health: {off: true}, weights: {v1: 9, v2: 1}, versions: [{name: v1, endpoints: [%q], rename: {model: %s}}, {name: v2, endpoints: [%q], rename: {model: %s}}]}",
			i, v1.addr, model, v2.addr, model)
	}
	g := startShared(b, "memory", doc.String())
	cc := dial(b, g.data)
	for _, rate := range []float64{0, 1} {
		for _, v := range []*backend{v1, v2} {
			v.turn(b, sample.Behaviour{ErrorRate: rate, ErrorCode: codes.Internal})
		}
		for i := range routes {
			for _, version := range []string{"v1", "v2"} {
				ctx := metadata.AppendToOutgoingContext(b.Context(), "sluice-version", version)
				if a := infer(ctx, cc, sample.NewRequest(fmt.Sprintf("m%d", i), heldBack()[0].Measurements)); (a.err != nil) != (rate == 1) {
					b.Fatalf("model m%d, %s: %v", i, version, a.err)
				}
			}
		}
	}
	v1.turn(b, sample.Behaviour{})
	v2.turn(b, sample.Behaviour{})

	var reading []time.Duration
	read := func() {
		begun := time.Now()
		q, err := http.NewRequestWithContext(b.Context(), http.MethodGet, g.admin+"/metrics", nil)
		if err != nil {
			b.Error(err)
			return
		}
		q.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
		q.Header.Set("Accept-Encoding", "gzip")
		resp, err := g.http.Do(q)
		if err != nil {
			b.Error(err)
			return
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || n < 100_000 {
			b.Errorf("%s, %d bytes, %v", resp.Status, n, err)
		}
		reading = append(reading, time.Since(begun))
	}
	req := sample.NewRequest("m0", heldBack()[0].Measurements)
	compareHalves(b, "scraped", func(scraped bool) (took []time.Duration) {
		var reader sync.WaitGroup
		defer reader.Wait()
		next := time.Now()
		for end := next.Add(half); time.Now().Before(end); {
			if scraped && !time.Now().Before(next) {
				next = next.Add(time.Second)
				reader.Wait() // one at a time, as Prometheus does
				reader.Go(read)
			}
			begun := time.Now()
			if a := infer(b.Context(), cc, req); a.err != nil {
				b.Fatal(a.err)
			}
			took = append(took, time.Since(begun))
		}
		return took
	})
	total := time.Duration(0)
	for _, d := range reading {
		total += d
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(len(reading)), "ms/scrape")
}
