package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/telemetry"
)

// manyRoutes are n models of two versions, which nobody answers for.
func manyRoutes(n int) string {
	var b strings.Builder
	b.WriteString("routes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {model: m%d, versions: [{name: v1, endpoints: [\"192.0.2.1:1\"]}, {name: v2, endpoints: [\"192.0.2.2:1\"]}], weights: {v1: 9, v2: 1}}\n", i)
	}
	return b.String()
}

// used makes every version of every model have metrics, as if it had answered, and failed.
func (r *rig) used() {
	for v, t := range r.director.snapshot.Load().targets.all() {
		for _, code := range []uint32{0, 13} {
			now := time.Now()
			c := telemetry.Call{Series: t.series, Primary: t.series, Opened: now, Ended: now.Add(5 * ms), Code: code, RequestBytes: 1, AnswerBytes: 1}
			a := telemetry.Attempt{Series: t.series, Endpoint: v.Endpoints[0], Started: now, Ended: now.Add(4 * ms), Outcome: "success", Reason: "OK"}
			c.EndAttempt(&a)
			r.cfg.Telemetry.Record(&c)
		}
	}
}

// A scrape of many routes is whole; how long it takes is BenchmarkScrape's to say.
func TestScrapeOfManyRoutes(t *testing.T) {
	const models = 100
	r := start(t, manyRoutes(models), func(c *Config) { c.Admin = "127.0.0.1:0" })
	r.used()
	body := scrape(t, r.AdminAddr().String())
	if n := strings.Count(body, "sluice_call_duration_seconds_count{"); n != 4*models {
		t.Errorf("%d series of calls, want one for each version and code", n)
	}
}

func scrape(t testing.TB, addr string) string {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	http.DefaultClient.CloseIdleConnections()
	return string(b)
}

func BenchmarkScrape(b *testing.B) {
	r := start(b, manyRoutes(1000), func(c *Config) { c.Admin = "127.0.0.1:0" })
	r.used()
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(scrape(b, r.AdminAddr().String()))))
	}
}
