package telemetry

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// histogram has classic buckets of its own, of which text is made; it leaves native buckets to the library. Safe for
// concurrent use.
//
// Most of the histograms of a fleet have not changed from one scrape to the next: their lines are kept, compressed to some
// 250 bytes for each format that somebody asks for.
type histogram struct {
	member
	native  prometheus.Histogram // every value once more
	bounds  []float64
	buckets []atomic.Uint64 // one more than bounds. What is counted here is everywhere else already
	sum     atomic.Uint64   // a float64
	// examples are the latest of each bucket, nil before the first of all.
	examples atomic.Pointer[[]atomic.Pointer[example]]

	reading sync.Mutex // of what follows: several read in turn, so that nobody sees less than what somebody has seen before
	kept    [textFormats]keptLines
}

// example is a value and the trace that it comes from.
type example struct {
	trace string
	value float64
	at    time.Time
}

// traceLabel names the trace of an example.
const traceLabel = "trace_id"

// keptLines are the lines of a histogram while it has so many values.
type keptLines struct {
	values uint64
	packed *packed // nil if there are none
}

func newHistogram(bounds []float64, native prometheus.Observer, m member) *histogram {
	return &histogram{member: m, native: native.(prometheus.Histogram), bounds: bounds, buckets: make([]atomic.Uint64, len(bounds)+1)}
}

// observe counts a value.
func (h *histogram) observe(v float64) {
	h.native.Observe(v)
	h.count(v, h.bucketOf(v))
}

// observeExample counts a value that comes from a trace.
func (h *histogram) observeExample(v float64, trace string) {
	h.native.(prometheus.ExemplarObserver).ObserveWithExemplar(v, prometheus.Labels{traceLabel: trace})
	i := h.bucketOf(v)
	if h.examples.Load() == nil {
		all := make([]atomic.Pointer[example], len(h.buckets))
		h.examples.CompareAndSwap(nil, &all)
	}
	(*h.examples.Load())[i].Store(&example{trace, v, time.Now()})
	h.count(v, i)
}

// bucketOf returns the bucket of a value. NaN is in the last, as with the library.
func (h *histogram) bucketOf(v float64) int {
	for i, bound := range h.bounds {
		if v <= bound {
			return i
		}
	}
	return len(h.bounds)
}

// count counts a value in its classic bucket, last of all: a state that has as many values has no less of anything.
func (h *histogram) count(v float64, bucket int) {
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			break
		}
	}
	h.buckets[bucket].Add(1)
}

// counted returns how many values there are.
func (h *histogram) counted() (n uint64) {
	for i := range h.buckets {
		n += h.buckets[i].Load()
	}
	return n
}

// bound returns the upper bound of a bucket.
func (h *histogram) bound(bucket int) float64 {
	if bucket == len(h.bounds) {
		return math.Inf(1)
	}
	return h.bounds[bucket]
}

// example returns the latest example of a bucket, nil if there is none.
func (h *histogram) example(bucket int) *example {
	if all := h.examples.Load(); all != nil {
		return (*all)[bucket].Load()
	}
	return nil
}

// exemplar returns the library's form of an example.
func (e *example) exemplar() *dto.Exemplar {
	if e == nil {
		return nil
	}
	return &dto.Exemplar{
		Label: []*dto.LabelPair{{Name: new(traceLabel), Value: &e.trace}}, Value: &e.value, Timestamp: timestamppb.New(e.at),
	}
}

// Desc implements [prometheus.Metric].
func (h *histogram) Desc() *prometheus.Desc { return h.native.Desc() }

// Write implements [prometheus.Metric]. The classic buckets are read first, so that the library knows all that they count.
func (h *histogram) Write(out *dto.Metric) error {
	buckets, n := make([]*dto.Bucket, 0, len(h.buckets)), uint64(0)
	for i := range h.buckets {
		n += h.buckets[i].Load()
		if e := h.example(i); e != nil || i < len(h.bounds) { // the last is there only for the sake of its example
			buckets = append(buckets, &dto.Bucket{CumulativeCount: new(n), UpperBound: new(h.bound(i)), Exemplar: e.exemplar()})
		}
	}
	if err := h.native.Write(out); err != nil {
		return err
	}
	if len(buckets) == len(h.buckets) {
		*buckets[len(h.bounds)].CumulativeCount = out.Histogram.GetSampleCount()
	}
	out.Histogram.Bucket = buckets
	return nil
}
