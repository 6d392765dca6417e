package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"sluice/sample"
)

// scrapedRoutes is how many routes have metrics.
const scrapedRoutes = 1000

// BenchmarkCallsWhileScraped compares, round by round in one run, the latency of calls while nobody looks with that
// while the metrics of 1,000 routes of two versions, each of which has answered and failed, are read every second as
// Prometheus reads them; but nobody decompresses or parses them. All the calls are of one route, or of each
// route in turn, so that all its series change. What client, gateway, model servers and reader take from each other
// because they share a machine is seen when another gateway of the same size is read, which has no calls. Use -benchtime=1x: an
// iteration is all the rounds.
func BenchmarkCallsWhileScraped(b *testing.B) {
	for name, how := range map[string]struct{ inTurn, another bool }{
		"one":     {},
		"all":     {inTurn: true},
		"another": {another: true},
	} {
		b.Run(name, func(b *testing.B) {
			g := startScraped(b)
			asked := g
			if how.another {
				asked = startScraped(b)
			}
			s := &scrapes{gateway: asked}
			atRest := s.cpu(b)
			cc, calls := dial(b, g.data), 0
			compareHalves(b, "scraped", func(scraped bool) (took []time.Duration) {
				var reader sync.WaitGroup
				defer reader.Wait()
				next := time.Now()
				for end := next.Add(3 * time.Second); time.Now().Before(end); {
					if scraped && !time.Now().Before(next) {
						next = next.Add(time.Second)
						reader.Wait() // one at a time, as Prometheus does
						reader.Go(func() { s.read(b) })
					}
					if calls++; !how.inTurn {
						calls = 0
					}
					begun := time.Now()
					if a := infer(b.Context(), cc, sample.NewRequest(fmt.Sprintf("m%d", calls%scrapedRoutes), heldBack()[0].Measurements)); a.err != nil {
						b.Fatal(a.err)
					}
					took = append(took, time.Since(begun))
				}
				return took
			})
			b.ReportMetric(atRest, "cpu-ms/scrape-at-rest")
			s.report(b)
		})
	}
}

// startScraped starts a gateway whose routes have had all sorts of calls.
func startScraped(b *testing.B) *shared {
	v1, v2 := startBackend(b, "v1"), startBackend(b, "v2")
	doc := new(strings.Builder)
	doc.WriteString("routes:")
	for i := range scrapedRoutes {
		fmt.Fprintf(doc, "\n  - {model: m%d, health: {off: true}, weights: {v1: 9, v2: 1}, versions: [{name: v1, endpoints: [%q], rename: {model: %s}}, {name: v2, endpoints: [%q], rename: {model: %s}}]}",
			i, v1.addr, model, v2.addr, model)
	}
	g := startShared(b, "memory", doc.String())
	cc := dial(b, g.data)
	for _, rate := range []float64{0, 1} {
		for _, v := range []*backend{v1, v2} {
			v.turn(b, sample.Behaviour{ErrorRate: rate, ErrorCode: codes.Internal})
		}
		for i := range scrapedRoutes {
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
	return g
}

// scrapes are the times that a gateway's metrics were read.
type scrapes struct {
	gateway *shared
	took    []time.Duration
	length  int64
}

// read reads them once.
func (s *scrapes) read(b *testing.B) {
	begun := time.Now()
	n, err := s.copyTo(b, io.Discard, "gzip")
	if err != nil || n < 100_000 {
		b.Errorf("%d bytes, %v", n, err)
	}
	s.took, s.length = append(s.took, time.Since(begun)), n
}

func (s *scrapes) copyTo(b *testing.B, w io.Writer, encoding string) (int64, error) {
	q, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.gateway.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	q.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	q.Header.Set("Accept-Encoding", encoding)
	resp, err := s.gateway.http.Do(q)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New(resp.Status)
	}
	return io.Copy(w, resp.Body)
}

// cpu is how many milliseconds of CPU the gateway takes for being read while there are no calls, by its own account.
func (s *scrapes) cpu(b *testing.B) float64 {
	used := func() float64 {
		var text bytes.Buffer
		if _, err := s.copyTo(b, &text, "identity"); err != nil {
			b.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^process_cpu_seconds_total (\S+)$`).FindSubmatch(text.Bytes())
		if m == nil {
			b.Fatal("the gateway does not say what CPU it has used")
		}
		seconds, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.Fatal(err)
		}
		return seconds
	}
	const times = 20
	for range 2 {
		s.read(b)
	}
	_ = used()
	between := used() // of reading without gzip once
	begun := used()
	between = begun - between
	for range times {
		s.read(b)
	}
	return (used() - begun - between) * 1000 / times
}

func (s *scrapes) report(b *testing.B) {
	total := time.Duration(0)
	for _, d := range s.took {
		total += d
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(len(s.took)), "ms/scrape")
	b.ReportMetric(float64(s.length), "B/scrape")
}
