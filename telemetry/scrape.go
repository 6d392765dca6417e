package telemetry

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

const (
	// scrapes is how many requests for metrics are answered at once: a pair of Prometheus servers, and somebody who is slow.
	scrapes = 4
	// scrapeTimeout is how long somebody may take to read an answer. Prometheus gives up after 10 s unless told otherwise.
	scrapeTimeout = 20 * time.Second
	// writeBytes is how much is written at once.
	writeBytes = 32 << 10
	// pieceRows is how many lines are compressed at once: those of few series when one of them has changed, and of enough
	// to be short when compressed.
	pieceRows = 64
	// Calls go first: a scrape works for so long at a stretch, and then pauses. Go looks for what has arrived from the
	// network when a processor has nothing to do, else every 10 ms, and its pauses last a millisecond at least. The
	// clock is looked at once in so many small steps, each of which takes a microsecond at most.
	stretch      = 150 * time.Microsecond
	breather     = 100 * time.Microsecond
	stepsPerLook = 16
	// fewMetrics is how many metrics of a collector the library may be given at once.
	fewMetrics = 64
)

// scraper answers Prometheus. It asks one collector after the other, and makes text of a few metrics at a time, so
// that neither its memory nor its work comes in one piece. It is used for one request after the other.
type scraper struct {
	log        *slog.Logger
	text       bytes.Buffer // a piece
	out        *bufio.Writer
	packer     *packer   // onto out
	packs      bool      // whether what is written goes through it
	began      time.Time // of the stretch of work under way
	steps      int
	lines      *lines // nil in formats that are not text
	metric     dto.Metric
	values     Values
	counters   []*counter
	histograms []*histogram
	piece      *piece
}

func newScraper(log *slog.Logger) *scraper {
	s := &scraper{log: log, out: bufio.NewWriterSize(nil, writeBytes), piece: newPiece()}
	s.packer = newPacker(s.out)
	s.values.breathe = s.breathe
	return s
}

// Handler answers Prometheus, in the format that it asks for: text, OpenMetrics with exemplars, or
// protobuf with native histograms.
func (t *Telemetry) Handler() http.Handler {
	var mu sync.Mutex
	var free []*scraper
	for range scrapes {
		free = append(free, newScraper(t.cfg.Logger))
	}
	take := func() (s *scraper) {
		mu.Lock()
		defer mu.Unlock()
		if n := len(free); n > 0 {
			s, free = free[n-1], free[:n-1]
		}
		return s
	}
	back := func(s *scraper) { // the one used last is used next: it knows what it has written
		mu.Lock()
		defer mu.Unlock()
		free = append(free, s)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := take()
		if s == nil {
			http.Error(w, "metrics are being read by others already; try again later", http.StatusServiceUnavailable)
			return
		}
		defer back(s)
		if err := s.answer(w, r, t.metrics.registry); err != nil {
			t.cfg.Logger.LogAttrs(r.Context(), slog.LevelDebug, "metrics were not read to their end", slog.Any("error", err))
		}
	})
}

// answer writes all metrics. The error is that of whoever reads them.
func (s *scraper) answer(w http.ResponseWriter, r *http.Request, registry *Registry) error {
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	h := w.Header()
	h.Set("Content-Type", string(format))
	h.Add("Vary", "Accept, Accept-Encoding")
	deadline := http.NewResponseController(w)
	_ = deadline.SetWriteDeadline(time.Now().Add(scrapeTimeout))  // some writers have none
	defer func() { _ = deadline.SetWriteDeadline(time.Time{}) }() // the connection may be used for more
	zipped := acceptsGzip(r.Header)
	if zipped {
		h.Set("Content-Encoding", "gzip")
	}
	return s.write(w, zipped, format, registry)
}

// write writes all metrics to whoever may take their time.
func (s *scraper) write(w io.Writer, zipped bool, format expfmt.Format, registry *Registry) error {
	s.began = time.Now()
	s.text.Reset() // of what the last one has not read
	s.out.Reset(w)
	defer s.out.Reset(nil)
	switch format.FormatType() {
	case expfmt.TypeOpenMetrics:
		s.lines = &lines{format: openMetrics}
	case expfmt.TypeTextPlain:
		s.lines = &lines{format: plainText}
	default:
		s.lines = nil
	}
	if s.packs = zipped; zipped {
		if err := s.packer.begin(); err != nil {
			return err
		}
	}
	encoder := expfmt.NewEncoder(&s.text, format)
	for _, c := range registry.list() {
		if err := s.collector(encoder, c); err != nil {
			return err
		}
	}
	if closer, ok := encoder.(expfmt.Closer); ok {
		if err := closer.Close(); err != nil { // the end of OpenMetrics
			return err
		}
	}
	if err := s.cut(); err != nil {
		return err
	}
	if zipped {
		if err := s.packer.end(); err != nil {
			return err
		}
	}
	return s.out.Flush()
}

// collector writes what a collector knows.
func (s *scraper) collector(encoder expfmt.Encoder, c prometheus.Collector) error {
	if s.lines != nil {
		switch c := c.(type) {
		case readerCollector:
			return s.read(encoder, c)
		case *counters:
			return s.count(encoder, c)
		case *histograms:
			return s.measure(encoder, c)
		}
	}
	families := collect(c)
	if all := slices.Concat(families...); len(all) <= fewMetrics {
		if _, err := s.encode(encoder, all); err != nil {
			return err
		}
		return s.cut()
	}
	for _, family := range families {
		if err := s.family(encoder, family); err != nil {
			return err
		}
	}
	return nil
}

// read writes the values of a reader. They are all there before the first is written, since those who read metrics may
// be slow.
func (s *scraper) read(encoder expfmt.Encoder, from Reader) error {
	v := &s.values
	v.reset()
	from.Read(v)
	for _, c := range v.order {
		if err := s.head(encoder, c.family, c.family.kind.ToDTO()); err != nil {
			return err
		}
		for i, r := range c.rows {
			s.lines.labels = v.text[r.begin:r.end]
			s.text.Write(s.lines.value(s.text.AvailableBuffer(), c.family.name, "", r.value))
			if err := s.row(i); err != nil {
				return err
			}
		}
		if err := s.cut(); err != nil {
			return err
		}
	}
	return nil
}

// count writes counters that calls feed.
func (s *scraper) count(encoder expfmt.Encoder, f *counters) error {
	s.counters = f.appendTo(s.counters[:0])
	defer clear(s.counters) // nobody keeps those that end meanwhile
	for i, c := range s.counters {
		if i == 0 {
			if err := s.head(encoder, f.head, dto.MetricType_COUNTER.Enum()); err != nil {
				return err
			}
		}
		s.lines.labels = c.labels
		s.text.Write(s.lines.value(s.text.AvailableBuffer(), f.head.name, "", float64(c.n.Load())))
		if err := s.row(i); err != nil {
			return err
		}
	}
	return s.cut()
}

// measure writes histograms that calls feed, each as a piece of its own.
func (s *scraper) measure(encoder expfmt.Encoder, f *histograms) error {
	s.histograms = f.appendTo(s.histograms[:0])
	defer clear(s.histograms)
	for i, h := range s.histograms {
		if i == 0 {
			if err := s.head(encoder, f.head, dto.MetricType_HISTOGRAM.Enum()); err != nil {
				return err
			}
			if err := s.cut(); err != nil {
				return err
			}
		}
		if err := s.histogram(f.head.name, h); err != nil {
			return err
		}
	}
	return nil
}

func (s *scraper) histogram(name string, h *histogram) error {
	if !s.packs {
		s.linesOf(name, h)
		return s.cut()
	}
	p, fresh, err := s.packedLines(name, h)
	if err != nil {
		return err
	}
	if fresh {
		s.rest() // it was not a small step
	} else {
		s.breathe()
	}
	return s.packer.add(p)
}

// packedLines are a histogram's lines, compressed: those that are kept unless values have come.
func (s *scraper) packedLines(name string, h *histogram) (p *packed, fresh bool, err error) {
	h.reading.Lock()
	defer h.reading.Unlock()
	k := &h.kept[s.lines.format]
	if k.packed != nil && k.values == h.counted() {
		return k.packed, false, nil
	}
	values := s.linesOf(name, h)
	defer s.text.Reset()
	if p, err = s.packer.pack(s.text.Bytes()); err == nil {
		*k = keptLines{values, p}
	}
	return p, true, err
}

// linesOf makes a histogram's lines, and returns how many values it has in them.
func (s *scraper) linesOf(name string, h *histogram) uint64 {
	text, values := s.lines.histogram(s.text.AvailableBuffer(), name, h)
	s.text.Write(text)
	return values
}

// head has the library write what stands before the metrics of a family.
func (s *scraper) head(encoder expfmt.Encoder, f *Family, kind *dto.MetricType) error {
	begin := s.text.Len()
	any := &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: kind, Metric: []*dto.Metric{{
		Gauge: new(dto.Gauge), Counter: new(dto.Counter), Histogram: new(dto.Histogram),
	}}}
	if err := encoder.Encode(any); err != nil {
		return err
	}
	s.text.Truncate(begin + endOfHead(s.text.Bytes()[begin:]))
	return nil
}

// family writes a family. The library writes its head and the first metric, since it keeps the names of families
// to itself.
func (s *scraper) family(encoder expfmt.Encoder, all []prometheus.Metric) error {
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
		line, ok := s.lines.append(s.text.AvailableBuffer(), head.GetName(), &s.metric)
		s.text.Write(line)
		if !ok {
			begin := s.text.Len()
			if _, err := s.encode(encoder, all[i+1:i+2]); err != nil {
				return err
			}
			cutHead(&s.text, begin)
		}
		if err := s.row(i); err != nil {
			return err
		}
	}
	return s.cut()
}

// encode has the library write metrics of one family, which it returns; nil if there is nothing of it.
func (s *scraper) encode(encoder expfmt.Encoder, all []prometheus.Metric) (family *dto.MetricFamily, err error) {
	gathered, err := s.piece.gather(all)
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

// row ends the i-th line of a family, and a piece after some of them. Pieces that have the same rows in one answer after the other are
// the same if their rows are.
func (s *scraper) row(i int) error {
	s.breathe()
	if i%pieceRows == pieceRows-1 {
		return s.cut()
	}
	return nil
}

// cut writes the piece of text that is there.
func (s *scraper) cut() error {
	defer s.text.Reset()
	for text := range slices.Chunk(s.text.Bytes(), writeBytes) {
		var err error
		switch {
		case !s.packs:
			_, err = s.out.Write(text)
		case s.lines != nil:
			err = s.packer.keep(text)
		default:
			err = s.packer.write(text)
		}
		if err != nil {
			return err
		}
		s.rest()
	}
	return nil
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
