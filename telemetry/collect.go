package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// collected is how many metrics of a collector may be on their way.
const collected = 256

// collect asks a collector for its metrics, by family. They are all there before the first is used, and there are
// no pauses, since collectors hold locks that calls need for metrics they are the first to count.
func collect(c prometheus.Collector) (families [][]prometheus.Metric) {
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

// piece gathers some metrics, since the library keeps the names and types of their families to itself. It belongs to
// one goroutine.
type piece struct {
	registry *prometheus.Registry
	metrics  []prometheus.Metric
}

func newPiece() *piece {
	p := &piece{registry: prometheus.NewRegistry()}
	p.registry.MustRegister(p)
	return p
}

// Describe implements [prometheus.Collector]: metrics of any kind may come.
func (p *piece) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (p *piece) Collect(ch chan<- prometheus.Metric) {
	for _, m := range p.metrics {
		ch <- m
	}
}

// gather returns the families of some metrics.
func (p *piece) gather(some []prometheus.Metric) ([]*dto.MetricFamily, error) {
	p.metrics = some
	defer func() { p.metrics = nil }()
	return p.registry.Gather()
}
