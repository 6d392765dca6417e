package telemetry

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// The families that calls feed have thousands of members, and a scrape that makes the library's form of each takes most of
// its time for that, and leaves its garbage. So they are counted here, where text can be made of them at once; in
// the library's form they are for whoever wants protobuf or OTLP.

// counters are a family of counters that calls feed.
type counters struct{ list[*counter] }

func newCounters(name, help string, labels ...string) *counters {
	return &counters{list[*counter]{head: newFamily(prometheus.CounterValue, name, help, labels)}}
}

// Describe implements [prometheus.Collector].
func (f *counters) Describe(ch chan<- *prometheus.Desc) { ch <- f.head.desc }

// with returns the counter with those values of labels. It is asked for once.
func (f *counters) with(values ...string) *counter {
	c := newCounter(f.head, values)
	f.add(c)
	return c
}

// histograms are a family of histograms that calls feed.
type histograms struct {
	list[*histogram]
	bounds []float64
	native *prometheus.HistogramVec
}

func newHistograms(name, help string, bounds []float64, labels ...string) *histograms {
	return &histograms{
		list:   list[*histogram]{head: newFamily(prometheus.UntypedValue, name, help, labels)}, // there is no constant for what it is
		bounds: bounds,
		native: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets,
		}, labels),
	}
}

// Describe implements [prometheus.Collector].
func (f *histograms) Describe(ch chan<- *prometheus.Desc) { f.native.Describe(ch) }

// with returns the histogram with those values of labels. It is asked for once.
func (f *histograms) with(values ...string) *histogram {
	h := newHistogram(f.bounds, f.native.WithLabelValues(values...), newMember(f.head, values))
	f.add(h)
	return h
}

// remove takes a histogram out of what is exposed.
func (f *histograms) remove(h *histogram) {
	f.list.remove(h)
	f.native.DeleteLabelValues(h.values...)
}

// member is a metric of a family.
type member struct {
	values []string // of the labels, in the family's order
	labels []byte   // as they are written
	place  int      // in the family's list, -1 if it is in none
}

func newMember(f *Family, values []string) member {
	m := member{values: slices.Clone(values), place: -1}
	for i, from := range f.from {
		m.labels = appendLabel(m.labels, i == 0, f.labels[i], values[from])
	}
	return m
}

func (m *member) self() *member { return m }

// list has the members of a family in an order that changes only where one ends. Safe for concurrent use.
type list[M interface {
	prometheus.Metric
	self() *member
}] struct {
	head *Family

	mu      sync.Mutex
	members []M
}

func (l *list[M]) add(m M) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.self().place = len(l.members)
	l.members = append(l.members, m)
}

// remove takes a member out of what is exposed.
func (l *list[M]) remove(m M) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := m.self().place
	if place < 0 {
		return
	}
	end := len(l.members) - 1
	last := l.members[end]
	l.members[place], last.self().place = last, place
	m.self().place = -1
	clear(l.members[end:])
	l.members = l.members[:end]
}

// appendTo appends the members of the moment.
func (l *list[M]) appendTo(all []M) []M {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(all, l.members...)
}

// Collect implements [prometheus.Collector].
func (l *list[M]) Collect(ch chan<- prometheus.Metric) {
	for _, m := range l.appendTo(nil) {
		ch <- m
	}
}
