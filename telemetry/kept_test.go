package telemetry

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// unzipped is the text that a reader of gzip gets.
func unzipped(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sortedLines are the lines of a text in an order that does not depend on that of collectors and series.
func sortedLines(text string) []string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return lines
}

// byLibrary is the text that the library makes of everything at once.
func byLibrary(t *testing.T, tel *Telemetry, format expfmt.Format) string {
	t.Helper()
	all, err := tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := expfmt.NewEncoder(&b, format)
	for _, f := range all {
		if err := e.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	if c, ok := e.(expfmt.Closer); ok {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// Each answer is, to the byte, what the library says at that moment: with and without gzip, in both formats, again and again while
// some series change, get examples, come and go, and most stay as they were.
func TestKeptLinesAreThoseOfTheMoment(t *testing.T) {
	t.Parallel()
	tel := many(t)
	h := tel.Handler()
	last := make(map[string]string)
	for round := range 4 {
		for i := 0; i < 3*manyMetrics; i += 1 + rand.IntN(10) {
			s := tel.Series(fmt.Sprintf("model \"%d\"\n", i), "v7")
			now := time.Now()
			c := Call{Series: s, Primary: s, Code: uint32(i % 3), Opened: now, Ended: now.Add(time.Duration(rand.Int64N(int64(200 * time.Second)))), RequestBytes: 7}
			if i%5 == 0 {
				c.why, c.Trace.ID = keptSampled, newTraceID()
			}
			c.EndAttempt(&Attempt{Series: s, Started: now, Ended: c.Ended, Outcome: "failure", Reason: CodeName(c.Code)})
			s.call(&c)
		}
		if round == 2 {
			tel.Retain(func(model, _ string) bool { return !strings.Contains(model, "1") })
			record(tel.Series("after all", "v1"))
		}
		for _, accept := range []string{asOpenMetrics, "text/plain"} {
			plain := get(t, h, "Accept", accept)
			text := plain.Body.String()
			if unzipped := unzipped(t, get(t, h, "Accept", accept, "Accept-Encoding", "gzip")); unzipped != text {
				at := 0
				for at < min(len(text), len(unzipped)) && unzipped[at] == text[at] {
					at++
				}
				t.Fatalf("round %d, %s: with gzip it is another text from byte %d on: got %.100q, want %.100q", round, accept, at, unzipped[at:], text[at:])
			}
			got, want := sortedLines(text), sortedLines(byLibrary(t, tel, expfmt.Format(plain.Header().Get("Content-Type"))))
			for i := range want {
				if i >= len(got) || got[i] != want[i] {
					t.Fatalf("round %d, %s: got line\n%s\nwant\n%s", round, accept, got[min(i, len(got)-1)], want[i])
				}
			}
			if len(got) != len(want) || text == last[accept] {
				t.Fatalf("round %d, %s: %d lines, want %d, and others than before", round, accept, len(got), len(want))
			}
			last[accept] = text
		}
	}
}

// While many count and versions come and go, as many readers as there may be see, each in turn, whole histograms that never go
// back, and in the end everything that was counted, in each format.
func TestScrapesWhileManyCount(t *testing.T) {
	t.Parallel()
	const counters, calls, models = 6, 8000, 20
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	h := tel.Handler()
	var counting, reading sync.WaitGroup
	for n := range counters {
		counting.Go(func() {
			for i := range calls {
				s := tel.Series(fmt.Sprint("m", (i+n)%models), "v1")
				now := time.Now()
				c := Call{Series: s, Primary: s, Opened: now, Ended: now.Add(time.Duration(i) * time.Millisecond)}
				if i%10 == 0 {
					c.why, c.Trace.ID = keptSampled, newTraceID()
				}
				c.EndAttempt(&Attempt{Series: s, Started: now, Ended: c.Ended, Outcome: "success", Reason: "OK"})
				s.call(&c)
				if i%100 == 0 { // another version ends
					gone := fmt.Sprintf("%d.%d", n, i)
					record(tel.Series("m0", gone))
					tel.Retain(func(_, version string) bool { return version != gone })
				}
			}
		})
	}
	done := make(chan struct{})
	for range scrapes {
		reading.Go(func() {
			last := make(map[string]uint64)
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true // once more
				default:
				}
				text := unzipped(t, get(t, h, "Accept", asOpenMetrics, "Accept-Encoding", "gzip"))
				wholeHistograms(t, text, last)
			}
			if sum := totalOf(last, "sluice_call_duration_seconds_count"); sum != counters*calls {
				t.Errorf("%d calls in the end, want %d", sum, counters*calls)
			}
			if sum := totalOf(last, "sluice_attempt_duration_seconds_count"); sum != counters*calls {
				t.Errorf("%d attempts in the end, want %d", sum, counters*calls)
			}
		})
	}
	counting.Wait()
	close(done)
	reading.Wait()
	for _, name := range []string{"sluice_call_duration_seconds", "sluice_attempt_duration_seconds"} {
		sum := uint64(0)
		for _, m := range gathered(t, tel)[name].GetMetric() {
			sum += m.GetHistogram().GetSampleCount()
			for _, b := range m.GetHistogram().GetBucket() {
				if b.GetCumulativeCount() > m.GetHistogram().GetSampleCount() {
					t.Errorf("%s: a bucket has more than all", name)
				}
			}
		}
		if sum != counters*calls {
			t.Errorf("the library has %d of %s, want %d", sum, name, counters*calls)
		}
	}
}

// totalOf sums up the series of a name.
func totalOf(all map[string]uint64, name string) (sum uint64) {
	for series, n := range all {
		if strings.HasPrefix(series, name+"{") {
			sum += n
		}
	}
	return sum
}

// wholeHistograms checks that no bucket has more than the next, that the last one has all, and that nothing is less
// than last time.
func wholeHistograms(t *testing.T, text string, last map[string]uint64) {
	t.Helper()
	seen := make(map[string]bool)
	previous := uint64(0)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), " # ")
		series, value, _ := strings.Cut(line, " ")
		bucket, count := strings.Contains(series, "_bucket{"), strings.Contains(series, "_count{")
		if !strings.HasPrefix(series, "sluice_") || !bucket && !count {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil:
			t.Error(err)
		case n < previous, count && n != previous:
			t.Errorf("%s has %d, and %d before it", series, n, previous)
		case n < last[series]:
			t.Errorf("%s has %d, and had %d", series, n, last[series])
		}
		seen[series], last[series], previous = true, n, n
		if count {
			previous = 0
		}
	}
	for series := range last { // versions end
		if !seen[series] {
			delete(last, series)
		}
	}
}

// A scrape of series that have not changed makes none of their lines again, and takes a fraction of the memory of its text, however
// many they are; what is kept of a series is little, and ends with it.
func TestMemoryOfScrapesIsBounded(t *testing.T) {
	const routes = 150
	f := newFleet(t, routes)
	scraper := newScraper(f.cfg.Logger)
	q := httptest.NewRequest("GET", "/metrics", nil)
	q.Header.Set("Accept", asOpenMetrics)
	w := &nobody{fields: make(map[string][]string)}
	scrape := func() {
		if err := scraper.answer(w, q, f.metrics.registry); err != nil {
			t.Fatal(err)
		}
	}
	scrape()
	text := w.bytes
	q.Header.Set("Accept-Encoding", "gzip")
	allocated := func() int {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		scrape()
		runtime.ReadMemStats(&after)
		return int(after.TotalAlloc - before.TotalAlloc)
	}
	packs := func() (all []*packed) {
		for _, of := range []*histograms{f.metrics.calls, f.metrics.durations} {
			for _, h := range of.appendTo(nil) {
				all = append(all, h.kept[openMetrics].packed)
			}
		}
		return all
	}
	first := allocated()
	made, pieces := packs(), maps.Clone(scraper.packer.kept)
	later := first
	for range 3 { // the least of them: pools are emptied at any time, and others allocate, too
		later = min(later, allocated())
	}
	if first > text/2 || later > 1<<20 { // whatever the number of series
		t.Errorf("the first scrape of %d bytes of text took %d bytes of memory, a later one %d", text, first, later)
	}
	if !slices.Equal(packs(), made) {
		t.Error("histograms that have not changed were compressed again")
	}
	maps.DeleteFunc(pieces, func(key textKey, p *packed) bool { return scraper.packer.kept[key] != p })
	if n, all := len(pieces), len(scraper.packer.kept); all < 50 || n < all-10 { // a few have what Go says of itself
		t.Errorf("of %d pieces beside them, %d are those of before", all, n)
	}
	kept, all := 0, 0
	for _, of := range []*histograms{f.metrics.calls, f.metrics.durations} {
		for _, h := range of.appendTo(nil) {
			all++
			kept += cap(h.kept[openMetrics].packed.deflated)
			if h.kept[plainText].packed != nil {
				t.Error("lines are kept in a format that nobody has asked for")
			}
		}
	}
	if all != 8*routes || kept > 512*all {
		t.Errorf("%d bytes are kept of %d histograms, want 512 each at most", kept, all)
	}
	f.Retain(func(string, string) bool { return false })
	for _, of := range []*histograms{f.metrics.calls, f.metrics.durations} {
		if n := len(of.appendTo(nil)); n != 0 {
			t.Errorf("%d histograms are left", n)
		}
		if n := native(of); n != 0 {
			t.Errorf("the library still has %d", n)
		}
	}
}

// native is how many histograms the library has.
func native(h *histograms) (n int) {
	ch := make(chan prometheus.Metric)
	go func() {
		defer close(ch)
		h.native.Collect(ch)
	}()
	for range ch {
		n++
	}
	return n
}
