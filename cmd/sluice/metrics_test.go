package main

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/gateway"
	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/stores"
)

// docs/metrics.md names every metric of the gateway's with its labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string) // labels by name
	row := regexp.MustCompile("(?m)^\\| `(sluice_[a-z0-9_]+)` \\| (counter|gauge|histogram) \\| ([a-z_, ]*) ?\\| \\S")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		labels := strings.Split(strings.ReplaceAll(strings.TrimSpace(m[3]), " ", ""), ",")
		slices.Sort(labels)
		documented[m[1]] = strings.Join(labels, ",")
		if isTotal := strings.HasSuffix(m[1], "_total"); isTotal != (m[2] == "counter") {
			t.Errorf("%s is said to be a %s: counters, and nothing else, end in _total", m[1], m[2])
		}
	}
	exposed := exposedMetrics(t)
	for _, name := range slices.Sorted(maps.Keys(exposed)) {
		if labels, ok := documented[name]; !ok {
			t.Errorf("docs/metrics.md does not name %s", name)
		} else if labels != exposed[name] {
			t.Errorf("%s has the labels %q, docs/metrics.md says %q", name, exposed[name], labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := exposed[name]; !ok {
			t.Errorf("docs/metrics.md names %s, which does not exist", name)
		}
	}
}

// exposedMetrics returns the labels of all metrics of the gateway's own, by name.
func exposedMetrics(t *testing.T) map[string]string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	tel, err := newTelemetry(t.Context(), "on", func() routing.Status { return routing.Status{} }, log)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := newLabels("", memstore.New(memstore.Config{}), log)
	if err != nil {
		t.Fatal(err)
	}
	gw, err := gateway.New(gateway.Config{Incidents: memstore.New(memstore.Config{}).Shelf("incidents"), Labels: taken, Listen: "127.0.0.1:0", Admin: "off", DrainDelay: -1, Logger: log, Telemetry: tel, Drift: newDrift(memstore.New(memstore.Config{}), stores.Memory, nil, log)}, routing.NewRouter())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- gw.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-gw.Ready()
	described := make(chan *prometheus.Desc)
	go func() {
		tel.Registry().Describe(described)
		close(described)
	}()
	exposed := make(map[string]string)
	// The library keeps what is in a description to itself, but for its text.
	text := regexp.MustCompile(`fqName: "(sluice_[^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	for d := range described {
		m := text.FindStringSubmatch(d.String())
		if m == nil {
			continue
		}
		labels := strings.FieldsFunc(m[2]+","+m[3], func(r rune) bool { return r == ',' })
		for i, l := range labels {
			labels[i], _, _ = strings.Cut(l, "=")
		}
		slices.Sort(labels)
		exposed[m[1]] = strings.Join(labels, ",")
	}
	return exposed
}
