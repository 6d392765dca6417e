package telemetry

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// textFormat is one of the two formats that are text.
type textFormat int

const (
	plainText textFormat = iota
	openMetrics
	textFormats // how many there are
)

// lines makes the lines of counters, gauges and histograms that calls feed, in text and in OpenMetrics 1.0. The library
// writes each name and label anew for each bucket, which is most of the work of a scrape of thousands of histograms; the
// labels of a metric are written once here, and copied. Whatever is rare is left to the library.
type lines struct {
	format textFormat
	labels []byte // of the metric under way, escaped; they may be somebody else's
	own    []byte // labels that were written here
	begun  []byte // of the lines of a histogram's buckets, up to their bounds
	bounds []bound
}

// bound is an upper bound of a bucket as it is written. Most histograms have the same ones.
type bound struct {
	value float64
	text  []byte
}

// append appends the lines of a metric of the family of that name. It reports false if the library has to write them:
// those of other types, and of counters that OpenMetrics gives another name or that have exemplars.
func (l *lines) append(b []byte, family string, m *dto.Metric) ([]byte, bool) {
	if m.TimestampMs != nil || l.format == openMetrics && m.Counter != nil && (m.Counter.Exemplar != nil || !isTotal(family)) {
		return b, false
	}
	l.own = appendLabels(l.own[:0], m.GetLabel())
	l.labels = l.own
	switch {
	case m.Counter != nil:
		return l.value(b, family, "", m.Counter.GetValue()), true
	case m.Gauge != nil:
		return l.value(b, family, "", m.Gauge.GetValue()), true
	}
	return b, false
}

func isTotal(family string) bool {
	const suffix = "_total"
	return len(family) > len(suffix) && strings.HasSuffix(family, suffix)
}

// histogram appends the lines of a histogram, and returns how many values it has in them. Of what comes meanwhile, all
// but the number may be there.
func (l *lines) histogram(b []byte, family string, h *histogram) (lines []byte, values uint64) {
	l.labels = h.labels
	l.begun = append(append(l.begun[:0], family...), "_bucket{"...)
	if len(l.labels) > 0 {
		l.begun = append(append(l.begun, l.labels...), ',')
	}
	l.begun = append(l.begun, `le="`...)
	for i := range h.buckets {
		values += h.buckets[i].Load()
		b = l.bucket(b, i, h.bound(i), values, h.example(i))
	}
	b = l.value(b, family, "_sum", math.Float64frombits(h.sum.Load()))
	b = l.begin(b, family, "_count")
	return append(l.count(b, values), '\n'), values
}

// begin appends what stands before a value.
func (l *lines) begin(b []byte, family, suffix string) []byte {
	b = append(append(b, family...), suffix...)
	if len(l.labels) > 0 {
		b = append(append(append(b, '{'), l.labels...), '}')
	}
	return append(b, ' ')
}

func (l *lines) value(b []byte, family, suffix string, v float64) []byte {
	return append(l.number(l.begin(b, family, suffix), v), '\n')
}

// bucket appends the line of a histogram's bucket, the i-th, with its example if it has one.
func (l *lines) bucket(b []byte, i int, upper float64, n uint64, e *example) []byte {
	if i == len(l.bounds) {
		l.bounds = append(l.bounds, bound{math.NaN(), nil})
	}
	if known := &l.bounds[i]; known.value != upper {
		known.value, known.text = upper, append(l.number(known.text[:0], upper), `"} `...)
	}
	b = append(append(b, l.begun...), l.bounds[i].text...)
	b = l.count(b, n)
	if e != nil && l.format == openMetrics {
		b = l.example(b, e)
	}
	return append(b, '\n')
}

func (l *lines) example(b []byte, e *example) []byte {
	b = append(appendLabel(append(b, " # {"...), true, traceLabel, e.trace), "} "...)
	b = l.number(b, e.value)
	return l.number(append(b, ' '), float64(e.at.UnixNano())/1e9)
}

// count appends a number of events: an integer in OpenMetrics, a number like others in text.
func (l *lines) count(b []byte, n uint64) []byte {
	if l.format == openMetrics || n < 1e6 { // from there on, floating-point numbers are written with exponents
		return strconv.AppendUint(b, n, 10)
	}
	return l.number(b, float64(n))
}

func (l *lines) number(b []byte, v float64) []byte {
	begin := len(b)
	switch {
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case v == 0:
		b = append(b, '0') // -0, too
	default:
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	if l.format == openMetrics && !bytes.ContainsAny(b[begin:], ".e") {
		b = append(b, ".0"...)
	}
	return b
}

func appendLabels(b []byte, all []*dto.LabelPair) []byte {
	for i, p := range all {
		b = appendLabel(b, i == 0, p.GetName(), p.GetValue())
	}
	return b
}

func appendLabel(b []byte, first bool, name, value string) []byte {
	if !first {
		b = append(b, ',')
	}
	b = append(append(b, name...), `="`...)
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
