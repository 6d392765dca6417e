package telemetry

import (
	"bytes"
	"math"
	"strconv"

	dto "github.com/prometheus/client_model/go"
)

// lines makes the lines of counters, gauges and histograms, in text and in OpenMetrics 1.0. The library writes each
// name and label anew for each bucket, which is most of the work of a scrape of thousands of histograms; the labels
// of a metric are written once here, and copied. Whatever is rare is left to the library.
type lines struct {
	openMetrics bool
	labels      []byte // of the metric under way, escaped
	begun       []byte // of the lines of a histogram's buckets, up to their bounds
	bounds      []bound
}

// bound is an upper bound of a bucket as it is written. Most histograms have the same ones.
type bound struct {
	value float64
	text  []byte
}

// append appends the lines of a metric of the family of that name. It reports false if the library has to write them:
// those of other types, of names that OpenMetrics changes, and those with exemplars.
func (l *lines) append(b []byte, family string, m *dto.Metric) ([]byte, bool) {
	if m.TimestampMs != nil || l.openMetrics && l.unusual(family, m) {
		return b, false
	}
	l.labels = appendLabels(l.labels[:0], m.GetLabel())
	switch {
	case m.Counter != nil:
		return l.value(b, family, "", m.Counter.GetValue()), true
	case m.Gauge != nil:
		return l.value(b, family, "", m.Gauge.GetValue()), true
	case m.Histogram != nil && m.Histogram.SampleCountFloat == nil:
		return l.histogram(b, family, m.Histogram), true
	}
	return b, false
}

func (l *lines) unusual(family string, m *dto.Metric) bool {
	if m.Counter != nil {
		const suffix = "_total"
		return m.Counter.Exemplar != nil || len(family) <= len(suffix) || family[len(family)-len(suffix):] != suffix
	}
	for _, b := range m.GetHistogram().GetBucket() {
		if b.Exemplar != nil {
			return true
		}
	}
	return false
}

func (l *lines) histogram(b []byte, family string, h *dto.Histogram) []byte {
	l.begun = append(append(l.begun[:0], family...), "_bucket{"...)
	if len(l.labels) > 0 {
		l.begun = append(append(l.begun, l.labels...), ',')
	}
	l.begun = append(l.begun, `le="`...)
	infinite := false
	for i, bucket := range h.GetBucket() {
		infinite = infinite || math.IsInf(bucket.GetUpperBound(), 1)
		b = l.bucket(b, i, bucket.GetUpperBound(), bucket.GetCumulativeCount())
	}
	if !infinite {
		b = l.bucket(b, len(h.GetBucket()), math.Inf(1), h.GetSampleCount())
	}
	b = l.value(b, family, "_sum", h.GetSampleSum())
	b = l.begin(b, family, "_count")
	return append(l.count(b, h.GetSampleCount()), '\n')
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

// bucket appends the line of a histogram's bucket, the i-th.
func (l *lines) bucket(b []byte, i int, upper float64, n uint64) []byte {
	if i == len(l.bounds) {
		l.bounds = append(l.bounds, bound{math.NaN(), nil})
	}
	if known := &l.bounds[i]; known.value != upper {
		known.value, known.text = upper, append(l.number(known.text[:0], upper), `"} `...)
	}
	b = append(append(b, l.begun...), l.bounds[i].text...)
	return append(l.count(b, n), '\n')
}

// count appends a number of events: an integer in OpenMetrics, a number like others in text.
func (l *lines) count(b []byte, n uint64) []byte {
	if l.openMetrics || n < 1e6 { // from there on, floating-point numbers are written with exponents
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
	if l.openMetrics && !bytes.ContainsAny(b[begin:], ".e") {
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
