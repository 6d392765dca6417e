package telemetry

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
)

const (
	asOpenMetrics = "application/openmetrics-text;version=1.0.0"
	asProtobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// manyMetrics is more than are written at once.
const manyMetrics = 100

// mixed has two families, whose metrics come in turn.
type mixed struct{}

var (
	descOne = prometheus.NewDesc("mixed_one", "One.\nOf two.", []string{"model"}, nil)
	descTwo = prometheus.NewDesc("mixed_two_total", "Two.", []string{"model"}, nil)
)

func (mixed) Describe(ch chan<- *prometheus.Desc) { ch <- descOne; ch <- descTwo }

func (mixed) Collect(ch chan<- prometheus.Metric) {
	for i := range 3 * manyMetrics {
		ch <- prometheus.MustNewConstMetric(descOne, prometheus.GaugeValue, float64(i), fmt.Sprint("m", i))
		ch <- prometheus.MustNewConstMetric(descTwo, prometheus.CounterValue, float64(i), fmt.Sprint("m", i))
	}
}

// readings has families whose values come in turn, with labels that are the same in a row, and some that look alike.
type readings struct{}

var (
	readOne   = NewGauge("read_one", "One \"of\" \\ two.\nAnd more.", "version", "model")
	readTwo   = NewCounter("read_two_total", "Two.", "model", "version")
	readOther = NewGauge("read_other", "Other names.", "from", "to")
	readAlone = NewGauge("read_alone", "Without labels.")
	readNone  = NewGauge("read_none", "Nothing is known of it.", "model")
)

func (readings) Families() []*Family {
	return []*Family{readOne, readTwo, readOther, readAlone, readNone}
}

func (readings) Read(out *Values) {
	out.Add(readAlone, math.Inf(1))
	for i := range 3 * manyMetrics {
		model := fmt.Sprintf("m\"%d\"\n\\", i)
		out.Add(readOne, float64(i), "v1", model)
		out.Add(readTwo, float64(i), model, "v1")
		out.Add(readOther, -1, model, "v1")
		out.Add(readOther, 0, "v1", model)
		out.Add(readTwo, 1e9, "v1", model)
		out.Breathe()
	}
}

// many returns telemetry with families of more metrics than are made text at once. Go and the process itself are
// not in it: their numbers change.
func many(t *testing.T) *Telemetry {
	t.Helper()
	tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
	for _, c := range tel.Registry().list() {
		switch c.(type) {
		case *counters, *histograms:
		default:
			tel.Registry().Unregister(c)
		}
	}
	tel.Registry().MustRegister(mixed{})
	if _, err := tel.Registry().Read(readings{}); err != nil {
		t.Fatal(err)
	}
	for i := range 3*manyMetrics + 1 {
		record(tel.Series(fmt.Sprintf("model \"%d\"\n", i), "v7"))
	}
	return tel
}

// record records a call with an attempt.
func record(s *Series) {
	now := time.Now()
	c := Call{Series: s, Primary: s, Opened: now, Ended: now.Add(5 * time.Millisecond), RequestBytes: 1, AnswerBytes: 1}
	c.EndAttempt(&Attempt{Series: s, Started: now, Ended: c.Ended, Outcome: "success", Reason: "OK"})
	s.call(&c)
}

func get(t *testing.T, h http.Handler, fields ...string) *httptest.ResponseRecorder {
	t.Helper()
	q := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	for pair := range slices.Chunk(fields, 2) {
		q.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w
}

// gathered are all families as the library gathers them, at once.
func gathered(t *testing.T, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*dto.MetricFamily)
	for _, f := range all {
		byName[f.GetName()] = f
	}
	return byName
}

// compareFamilies compares families without regard to the order of their metrics.
func compareFamilies(t *testing.T, got, want map[string]*dto.MetricFamily) {
	t.Helper()
	for _, all := range []map[string]*dto.MetricFamily{got, want} {
		for _, f := range all {
			slices.SortFunc(f.Metric, func(a, b *dto.Metric) int { return strings.Compare(fmt.Sprint(a.Label), fmt.Sprint(b.Label)) })
		}
	}
	for name, f := range want {
		if !proto.Equal(f, got[name]) {
			t.Errorf("got\n%.1000v\nwant\n%.1000v", got[name], f)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d families, want %d", len(got), len(want))
	}
}

// What is written piece by piece is what the library would write at once, in each format.
func TestScrapeInPiecesIsWhole(t *testing.T) {
	tel := many(t)
	want := gathered(t, tel)
	if len(want) < 7 || len(want["sluice_call_duration_seconds"].GetMetric()) != 3*manyMetrics+1 {
		t.Fatalf("%d families, want more, and more metrics than a piece has", len(want))
	}
	t.Run("protobuf", func(t *testing.T) {
		w := get(t, tel.Handler(), "Accept", asProtobuf)
		got := make(map[string]*dto.MetricFamily)
		d := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
		for {
			f := new(dto.MetricFamily)
			if err := d.Decode(f); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if got[f.GetName()] != nil {
				t.Errorf("%s comes in pieces", f.GetName())
			}
			got[f.GetName()] = f
		}
		compareFamilies(t, got, want)
	})
	for _, f := range want { // text has no native histograms
		for _, m := range f.Metric {
			if h := m.Histogram; h != nil {
				h.Schema, h.ZeroThreshold, h.ZeroCount, h.CreatedTimestamp = nil, nil, nil, nil
				h.PositiveSpan, h.PositiveDelta = nil, nil
				h.Bucket = slices.DeleteFunc(h.Bucket, func(b *dto.Bucket) bool { return b.GetCumulativeCount() == 0 && b.UpperBound == nil })
			}
			if m.Counter != nil {
				m.Counter.CreatedTimestamp = nil
			}
		}
	}
	t.Run("text", func(t *testing.T) {
		w := get(t, tel.Handler())
		parser := expfmt.NewTextParser(model.UTF8Validation)
		got, err := parser.TextToMetricFamilies(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range got {
			for _, m := range f.Metric {
				if h := m.Histogram; h != nil { // text says the total once more
					h.Bucket = slices.DeleteFunc(h.Bucket, func(b *dto.Bucket) bool { return b.GetUpperBound() > 1e9 })
				}
			}
		}
		compareFamilies(t, got, want)
	})
	t.Run("OpenMetrics", func(t *testing.T) {
		w := get(t, tel.Handler(), "Accept", asOpenMetrics, "Accept-Encoding", "deflate, gzip;q=0.5")
		if w.Header().Get("Content-Encoding") != "gzip" {
			t.Fatalf("header %v, want gzip", w.Header())
		}
		plain, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		heads, samples, last := make(map[string]int), 0, ""
		lines := bufio.NewScanner(plain)
		for lines.Scan() {
			if last = lines.Text(); strings.HasPrefix(last, "# ") {
				heads[last]++
			} else {
				samples++
			}
		}
		if lines.Err() != nil || last != "# EOF" {
			t.Errorf("it ends with %q, %v", last, lines.Err())
		}
		for head, n := range heads {
			if n != 1 {
				t.Errorf("%d times %q", n, head)
			}
		}
		if n := 2*len(want) + 1; len(heads) != n {
			t.Errorf("%d lines are about families, want %d: HELP and TYPE of each, and the end", len(heads), n)
		}
		number := 0
		for _, f := range want {
			for _, m := range f.Metric {
				number++
				if m.Histogram != nil {
					number += len(m.Histogram.Bucket) + 2 // +Inf, count and sum instead of one
				}
			}
		}
		if samples != number {
			t.Errorf("%d samples, want %d", samples, number)
		}
	})
}

// gzip is for those who take it.
func TestGzipIsNegotiated(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, "gzip": true, "deflate, gzip": true, "gzip;q=0.7, br": true, "gzip;q=0": false, "gzip; q=0.000": false, "gzip; q=1": true,
		"br": false, "xgzip": false,
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": {value}}); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

// A sampled call is an example of its bucket, by its trace; one that is not kept is none.
func TestExemplarsNameTracesThatAreKept(t *testing.T) {
	tel := tracingAt(t, 0)
	s := tel.Series("fraud", "v7")
	var kept, other Call
	for c, parent := range map[*Call]string{&kept: "00-" + parentTrace + "-" + parentSpan + "-01", &other: ""} {
		*c = Call{Series: s, Primary: s, ID: 1 << 63}
		tel.Begin(c, parent)
		c.Opened = time.Now()
		c.Ended = c.Opened.Add(4 * time.Millisecond)
		tel.Record(c)
	}
	text := get(t, tel.Handler(), "Accept", asOpenMetrics).Body.String()
	line := regexp.MustCompile(`(?m)^sluice_call_duration_seconds_bucket\{.*model="fraud".*le="0.005"\} 2 # \{trace_id="` + parentTrace + `"\} 0\.004`)
	if !line.MatchString(text) || strings.Count(text, "trace_id=") != 1 {
		t.Errorf("no exemplar of trace %s, or others:\n%s", parentTrace, text)
	}
	again := kept
	again.Series = tel.Series("spam", "v1")
	tel.Record(&again)
	text = get(t, tel.Handler(), "Accept", asOpenMetrics).Body.String()
	if strings.Count(text, "trace_id=") != 2 || strings.Count(text, "# TYPE sluice_call_duration_seconds histogram\n") != 1 {
		t.Errorf("want two exemplars and one head:\n%s", text)
	}
	if text := get(t, tel.Handler()).Body.String(); strings.Contains(text, "trace_id") {
		t.Error("there are exemplars in a format that has none")
	}
}

// stuck is a reader that reads nothing after the first bytes, until it is closed.
type stuck struct {
	*httptest.ResponseRecorder
	waits, goOn chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	select {
	case s.waits <- struct{}{}:
	default:
	}
	<-s.goOn
	return len(b), nil
}

// Readers that do not read keep nobody from counting, and others from reading only once there are too many of them.
func TestSlowReadersHoldNobodyUp(t *testing.T) {
	tel := many(t)
	h := tel.Handler()
	goOn := make(chan struct{})
	ended := make(chan struct{})
	for range scrapes {
		s := &stuck{httptest.NewRecorder(), make(chan struct{}, 1), goOn}
		go func() {
			h.ServeHTTP(s, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			ended <- struct{}{}
		}()
		<-s.waits
	}
	record(tel.Series("new", "v1")) // would wait if somebody held a family's lock
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d, want that others read", w.Code)
	}
	close(goOn)
	for range scrapes {
		<-ended
	}
	if text := get(t, h).Body.String(); !strings.Contains(text, `model="new"`) {
		t.Error("what was counted meanwhile is not there")
	}
}

// A reader that goes away ends its scrape, and the next one begins afresh.
func TestScrapeAfterOneThatBroke(t *testing.T) {
	tel := many(t)
	s := newScraper(slog.New(slog.DiscardHandler))
	if err := s.write(&breaks{left: 10_000}, false, expfmt.NewFormat(expfmt.TypeTextPlain), tel.Registry()); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("got %v, want the writer's error", err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := s.write(out, false, expfmt.NewFormat(expfmt.TypeTextPlain), tel.Registry()); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(first.String(), "# HELP ") || first.Len() != second.Len() {
		t.Errorf("after a scrape that broke: %d bytes that begin with %.40q, want %d", first.Len(), first.String(), second.Len())
	}
}

type breaks struct{ left int }

func (b *breaks) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// Lines are what the library writes of the same metric, byte for byte.
func FuzzLines(f *testing.F) {
	f.Add("fraud", 1.0, uint64(3), 0.25, int64(1))
	f.Add("a\"b\\c\nd\xff", math.Copysign(0, -1), uint64(12_345_678), 1e9, int64(1_777_777_777_123_456_789))
	f.Add("", math.Inf(-1), uint64(1<<63), math.NaN(), int64(-1))
	f.Fuzz(func(t *testing.T, label string, value float64, n uint64, bound float64, nanoseconds int64) {
		label = strings.ToValidUTF8(label, "?")
		if math.IsInf(bound, 0) {
			bound = 1 // the last bucket is there without being asked for
		}
		labels := []*dto.LabelPair{{Name: new("model"), Value: &label}, {Name: new("version"), Value: new("v7")}}
		head := newFamily(prometheus.UntypedValue, "sluice_any_total", "", []string{"version", "model"})
		values := []string{"v7", label}
		if label == "" {
			labels, values = nil, nil
			head = newFamily(prometheus.UntypedValue, "sluice_any_total", "", nil)
		}
		h := &histogram{member: newMember(head, values), bounds: []float64{0.005, bound}, buckets: make([]atomic.Uint64, 3)}
		h.buckets[0].Store(1)
		h.buckets[1].Store(n - 1)
		h.sum.Store(math.Float64bits(value))
		latest := &example{label, value, time.Unix(0, nanoseconds)}
		examples := make([]atomic.Pointer[example], 3)
		examples[1].Store(latest)
		h.examples.Store(&examples)
		for _, m := range []*dto.Metric{
			{Label: labels, Gauge: &dto.Gauge{Value: &value}},
			{Label: labels, Counter: &dto.Counter{Value: &value}},
			{Label: labels, Histogram: &dto.Histogram{SampleCount: &n, SampleSum: &value, Bucket: []*dto.Bucket{
				{UpperBound: new(0.005), CumulativeCount: new(uint64(1))}, {UpperBound: &bound, CumulativeCount: &n, Exemplar: latest.exemplar()}}}},
		} {
			for _, format := range []expfmt.Format{expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeOpenMetrics)} {
				family := &dto.MetricFamily{Name: &head.name, Metric: []*dto.Metric{m}, Type: dto.MetricType_GAUGE.Enum()}
				switch {
				case m.Counter != nil:
					family.Type = dto.MetricType_COUNTER.Enum()
				case m.Histogram != nil:
					family.Type = dto.MetricType_HISTOGRAM.Enum()
				}
				want := new(bytes.Buffer)
				if err := expfmt.NewEncoder(want, format).Encode(family); err != nil {
					t.Fatal(err)
				}
				cutHead(want, 0)
				l := lines{format: plainText}
				if format.FormatType() == expfmt.TypeOpenMetrics {
					l.format = openMetrics
				}
				var got []byte
				ok := true
				if m.Histogram != nil {
					got, _ = l.histogram(nil, head.name, h)
				} else {
					got, ok = l.append(nil, head.name, m)
				}
				if !ok || string(got) != want.String() {
					t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
				}
			}
		}
	})
}

// A scrape leaves next to nothing for the collector of garbage of values that are read.
func TestReadValuesLeaveNoGarbage(t *testing.T) {
	s := newScraper(slog.New(slog.DiscardHandler))
	registry := newRegistry()
	end, err := registry.Read(plenty{})
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(3, func() {
		if err := s.write(io.Discard, false, expfmt.NewFormat(expfmt.TypeOpenMetrics), registry); err != nil {
			t.Fatal(err)
		}
	})
	if n > manyMetrics {
		t.Errorf("%v allocations for %d values, want hardly any", n, 10*manyMetrics)
	}
	end()
	if n := len(registry.list()); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}

// plenty has many values whose labels cost nothing.
type plenty struct{}

func (plenty) Families() []*Family { return []*Family{readOne} }

func (plenty) Read(out *Values) {
	for i := range 10 * manyMetrics {
		out.Add(readOne, float64(i), "v1", codeNames[i%len(codeNames)])
	}
}
