package telemetry

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

const (
	// scrapes is how many requests for metrics are answered at once.
	scrapes = 2
	// scrapeTimeout is how long somebody may take to read an answer.
	scrapeTimeout = time.Minute
	// pieceBytes is how much is written at once.
	pieceBytes = 8 << 10
	// Calls go first: a scrape works for so long at a stretch, and then pauses. Go looks for what has arrived from the
	// network when a processor has nothing to do, else every 10 ms, and its pauses last a millisecond at least. The
	// clock is looked at once in so many steps, each of which takes some microseconds at most.
	stretch      = 150 * time.Microsecond
	breather     = 100 * time.Microsecond
	stepsPerLook = 16
	// collected is how many metrics of a collector may be on their way.
	collected = 256
)

// scraper answers Prometheus. It asks one collector after the other, and makes text of a few metrics at a time, so
// that neither its memory nor its work comes in one piece. It is used for one request after the other.
type scraper struct {
	log    *slog.Logger
	out    bytes.Buffer // a piece
	zip    *gzip.Writer
	began  time.Time // of the stretch of work under way
	steps  int
	lines  *lines // nil in formats that are not text
	metric dto.Metric
	values Values
	piece  piece
}

func newScraper(log *slog.Logger) *scraper {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // there is such a level
	}
	s := &scraper{log: log, zip: z, piece: piece{registry: prometheus.NewRegistry()}}
	s.piece.registry.MustRegister(&s.piece)
	s.values.breathe = s.breathe
	return s
}

// piece gathers some metrics of one family, whose names and types the library keeps to itself.
type piece struct {
	registry *prometheus.Registry
	metrics  []prometheus.Metric
}

// Describe implements [prometheus.Collector]: metrics of any kind may come.
func (p *piece) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (p *piece) Collect(ch chan<- prometheus.Metric) {
	for _, m := range p.metrics {
		ch <- m
	}
}

// Handler answers Prometheus, in the format that it asks for: text, OpenMetrics with exemplars, or
// protobuf with native histograms.
func (t *Telemetry) Handler() http.Handler {
	free := make(chan *scraper, scrapes)
	for range scrapes {
		free <- newScraper(t.cfg.Logger)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s := <-free:
			defer func() { free <- s }()
			if err := s.answer(w, r, t.metrics.registry); err != nil {
				t.cfg.Logger.LogAttrs(r.Context(), slog.LevelDebug, "metrics were not read to their end", slog.Any("error", err))
			}
		default:
			http.Error(w, "metrics are being read by others already; try again later", http.StatusServiceUnavailable)
		}
	})
}

// answer writes all metrics. The error is that of whoever reads them.
func (s *scraper) answer(w http.ResponseWriter, r *http.Request, registry *Registry) (err error) {
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	h := w.Header()
	h.Set("Content-Type", string(format))
	h.Add("Vary", "Accept, Accept-Encoding")
	deadline := http.NewResponseController(w)
	_ = deadline.SetWriteDeadline(time.Now().Add(scrapeTimeout))  // some writers have none
	defer func() { _ = deadline.SetWriteDeadline(time.Time{}) }() // the connection may be used for more
	var body io.Writer = w
	if acceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		s.zip.Reset(w)
		body = s.zip
		defer func() {
			if zipErr := s.zip.Close(); err == nil {
				err = zipErr
			}
		}()
	}
	return s.write(body, format, registry)
}

// write writes all metrics to whoever may take their time.
func (s *scraper) write(body io.Writer, format expfmt.Format, registry *Registry) error {
	s.began = time.Now()
	switch format.FormatType() {
	case expfmt.TypeTextPlain, expfmt.TypeOpenMetrics:
		s.lines = &lines{openMetrics: format.FormatType() == expfmt.TypeOpenMetrics}
	default:
		s.lines = nil
	}
	s.out.Reset() // of what the last one has not read
	encoder := expfmt.NewEncoder(&s.out, format)
	for _, c := range registry.list() {
		if r, ok := c.(readerCollector); ok && s.lines != nil {
			if err := s.read(body, encoder, r); err != nil {
				return err
			}
			continue
		}
		for _, family := range s.collect(c) {
			if err := s.family(body, encoder, family); err != nil {
				return err
			}
		}
	}
	if closer, ok := encoder.(expfmt.Closer); ok {
		if err := closer.Close(); err != nil { // the end of OpenMetrics
			return err
		}
	}
	return s.flush(body)
}

// read writes the values of a reader. They are all there before the first is written, since those who read metrics may
// be slow.
func (s *scraper) read(body io.Writer, encoder expfmt.Encoder, from Reader) error {
	v := &s.values
	v.reset()
	from.Read(v)
	for _, c := range v.order {
		if err := s.head(encoder, c.family); err != nil {
			return err
		}
		for _, r := range c.rows {
			s.lines.labels = v.text[r.begin:r.end]
			s.out.Write(s.lines.value(s.out.AvailableBuffer(), c.family.name, "", r.value))
			if err := s.pause(body); err != nil {
				return err
			}
		}
	}
	return nil
}

// head has the library write what stands before the metrics of a family.
func (s *scraper) head(encoder expfmt.Encoder, f *Family) error {
	begin := s.out.Len()
	any := &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: f.kind.ToDTO(), Metric: []*dto.Metric{{Gauge: new(dto.Gauge), Counter: new(dto.Counter)}}}
	if err := encoder.Encode(any); err != nil {
		return err
	}
	s.out.Truncate(begin + endOfHead(s.out.Bytes()[begin:]))
	return nil
}

// collect asks a collector for its metrics, by family. They are all there before the first is written, and there are
// no pauses, since collectors hold locks that calls need for metrics they are the first to count.
func (s *scraper) collect(c prometheus.Collector) (families [][]prometheus.Metric) {
	ch := make(chan prometheus.Metric, collected)
	go func() {
		defer close(ch)
		c.Collect(ch)
	}()
	index := make(map[*prometheus.Desc]int)
	for m := range ch {
		i, ok := index[m.Desc()]
		if !ok {
			i = len(families)
			index[m.Desc()] = i
			families = append(families, nil)
		}
		families[i] = append(families[i], m)
	}
	return families
}

// family writes a family. The library writes its head and the first metric, since it keeps the names of families
// to itself.
func (s *scraper) family(body io.Writer, encoder expfmt.Encoder, all []prometheus.Metric) error {
	first := all[:1]
	if s.lines == nil {
		first = all // families in other formats cannot be continued
	}
	head, err := s.encode(encoder, first)
	if err != nil || head == nil {
		return err
	}
	for i, m := range all[len(first):] {
		s.metric.Reset()
		if err := m.Write(&s.metric); err != nil {
			s.log.Warn("a metric cannot be read", "metric", head.GetName(), "error", err)
			continue
		}
		line, ok := s.lines.append(s.out.AvailableBuffer(), head.GetName(), &s.metric)
		s.out.Write(line)
		if !ok {
			begin := s.out.Len()
			if _, err := s.encode(encoder, all[i+1:i+2]); err != nil {
				return err
			}
			cutHead(&s.out, begin)
		}
		if err := s.pause(body); err != nil {
			return err
		}
	}
	return s.pause(body)
}

// encode has the library write metrics of one family, which it returns; nil if there is nothing of it.
func (s *scraper) encode(encoder expfmt.Encoder, all []prometheus.Metric) (family *dto.MetricFamily, err error) {
	s.piece.metrics = all
	gathered, err := s.piece.registry.Gather()
	if err != nil {
		s.log.Warn("metrics contradict each other", "error", err) // those that do not are there
	}
	for _, family = range gathered {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	return family, nil
}

// cutHead takes the lines that begin a family away, from what has been written since begin.
func cutHead(b *bytes.Buffer, begin int) {
	text := b.Bytes()[begin:]
	b.Truncate(begin + copy(text, text[endOfHead(text):]))
}

// endOfHead returns the length of the lines that begin a family.
func endOfHead(text []byte) (n int) {
	for bytes.HasPrefix(text[n:], []byte("# ")) {
		n += bytes.IndexByte(text[n:], '\n') + 1
	}
	return n
}

func (s *scraper) flush(body io.Writer) error {
	_, err := body.Write(s.out.Bytes())
	s.out.Reset()
	return err
}

// pause passes on what has been written, once it is a piece, and lets calls go first.
func (s *scraper) pause(body io.Writer) error {
	if s.out.Len() < pieceBytes {
		s.breathe()
		return nil
	}
	err := s.flush(body)
	s.rest()
	return err
}

// breathe lets calls go first after a stretch of work, of which this is a small step.
func (s *scraper) breathe() {
	if s.steps++; s.steps%stepsPerLook == 0 {
		s.rest()
	}
}

// rest lets calls go first after a stretch of work.
func (s *scraper) rest() {
	if time.Since(s.began) >= stretch {
		time.Sleep(breather)
		s.began = time.Now()
	}
}

// acceptsGzip reports whether the reader of an answer takes gzip.
func acceptsGzip(h http.Header) bool {
	for coding := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, weight, weighted := strings.Cut(coding, ";")
		if strings.TrimSpace(name) == "gzip" {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
			return !weighted || err == nil && q > 0
		}
	}
	return false
}
