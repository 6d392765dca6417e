package telemetry

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Registry is where those register who know something that belongs to the metrics. It knows its collectors, so
// that one after the other can be asked: all at once, thousands of routes are a hundred megabytes. Safe for
// concurrent use.
type Registry struct {
	*prometheus.Registry // of all, for whoever wants all at once

	mu         sync.Mutex
	collectors []prometheus.Collector // in the order in which they came
}

func newRegistry() *Registry { return &Registry{Registry: prometheus.NewRegistry()} }

// Register implements [prometheus.Registerer].
func (r *Registry) Register(c prometheus.Collector) error {
	if err := r.Registry.Register(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collectors = append(r.collectors, c)
	return nil
}

// Read takes a reader's values into the metrics, until the returned function is called.
func (r *Registry) Read(from Reader) (end func(), err error) {
	c := readerCollector{from}
	if err := r.Register(c); err != nil {
		return func() {}, err
	}
	return func() { r.Unregister(c) }, nil
}

// MustRegister implements [prometheus.Registerer].
func (r *Registry) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements [prometheus.Registerer].
func (r *Registry) Unregister(c prometheus.Collector) bool {
	r.mu.Lock()
	r.collectors = slices.DeleteFunc(r.collectors, func(other prometheus.Collector) bool { return other == c })
	r.mu.Unlock()
	return r.Registry.Unregister(c)
}

// list returns the collectors of the moment.
func (r *Registry) list() []prometheus.Collector {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.collectors)
}
