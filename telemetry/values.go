package telemetry

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Family is a family of gauges or of counters whose values are known elsewhere, and are read when somebody asks
// for metrics. It does not change.
type Family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string // sorted
	from       []int    // where the value of each of labels stands among those of [Values.Add]
	desc       *prometheus.Desc
}

// NewGauge returns a family of gauges, with the names of its labels.
func NewGauge(name, help string, labels ...string) *Family {
	return newFamily(prometheus.GaugeValue, name, help, labels)
}

// NewCounter returns a family of counters, with the names of its labels. Its name ends in _total.
func NewCounter(name, help string, labels ...string) *Family {
	return newFamily(prometheus.CounterValue, name, help, labels)
}

func newFamily(kind prometheus.ValueType, name, help string, labels []string) *Family {
	f := &Family{name: name, help: help, kind: kind, desc: prometheus.NewDesc(name, help, labels, nil)}
	for i := range labels {
		f.from = append(f.from, i)
	}
	slices.SortFunc(f.from, func(a, b int) int { return cmp.Compare(labels[a], labels[b]) })
	for _, i := range f.from {
		f.labels = append(f.labels, labels[i])
	}
	return f
}

// Reader knows values that belong to the metrics. Its methods may be called at any time, by several at once.
type Reader interface {
	// Families returns all families that Read may add values of.
	Families() []*Family
	// Read adds the values of the moment.
	Read(*Values)
}

// Values are those of one reader, by family. A fleet of routes has tens of thousands of them in each scrape: they lie
// side by side in memory that the next scrape uses again, and labels are written once for all families that
// have the same ones in a row. They belong to one goroutine.
type Values struct {
	columns map[*Family]*column
	order   []*column                // those that have rows, as they came
	text    []byte                   // the labels of all rows, as they are written
	names   []string                 // of the labels that were written last
	values  []string                 // likewise, in the same order
	begin   int                      // of what was written last
	breathe func()                   // nil if nobody else waits
	library chan<- prometheus.Metric // if the library wants them, nothing is kept here
}

type column struct {
	family *Family
	rows   []row
}

// row is a value and where its labels stand.
type row struct {
	value      float64
	begin, end int
}

// reset forgets the values and keeps their memory.
func (v *Values) reset() {
	for _, c := range v.order {
		c.rows = c.rows[:0]
	}
	v.order, v.text, v.names, v.values, v.begin = v.order[:0], v.text[:0], nil, v.values[:0], 0
}

// Add adds a value, with those of the labels in the order in which they were named.
func (v *Values) Add(f *Family, value float64, labels ...string) {
	if v.library != nil {
		v.library <- prometheus.MustNewConstMetric(f.desc, f.kind, value, slices.Clone(labels)...) // a copy: it keeps them, and most callers' stay on the stack
		return
	}
	c := v.columns[f]
	if c == nil {
		if v.columns == nil {
			v.columns = make(map[*Family]*column)
		}
		c = &column{family: f}
		v.columns[f] = c
	}
	if len(c.rows) == 0 {
		v.order = append(v.order, c)
	}
	if !v.same(f, labels) {
		v.begin, v.names, v.values = len(v.text), f.labels, v.values[:0]
		for i, from := range f.from {
			v.values = append(v.values, labels[from])
			v.text = appendLabel(v.text, i == 0, f.labels[i], labels[from])
		}
	}
	c.rows = append(c.rows, row{value, v.begin, len(v.text)})
}

// same reports whether the labels written last are these.
func (v *Values) same(f *Family, labels []string) bool {
	if len(v.values) != len(labels) || !slices.Equal(v.names, f.labels) {
		return false
	}
	for i, from := range f.from {
		if v.values[i] != labels[from] {
			return false
		}
	}
	return true
}

// Breathe lets calls go first, if it is time to. Readers of much call it between the pieces of their work, without
// holding a lock that calls need.
func (v *Values) Breathe() {
	if v.breathe != nil {
		v.breathe()
	}
}

// readerCollector is a reader to whom the library comes for everything at once.
type readerCollector struct{ Reader }

// Describe implements [prometheus.Collector].
func (c readerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.Families() {
		ch <- f.desc
	}
}

// Collect implements [prometheus.Collector].
func (c readerCollector) Collect(ch chan<- prometheus.Metric) { c.Read(&Values{library: ch}) }
