package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/routing"
)

// stateMetrics reads, when somebody asks for metrics, how the routing state stands.
type stateMetrics struct{ status func() routing.Status }

var (
	stateAge = prometheus.NewDesc("sluice_state_age_seconds",
		"Time since the store last said that the routing state is the one served here; absent if it never did.", nil, nil)
	stateChanged = prometheus.NewDesc("sluice_state_changed_timestamp_seconds",
		"When the routing state was changed last, in Unix time.", nil, nil)
	stateFollowing = prometheus.NewDesc("sluice_state_following",
		"1 while changes in the store are seen.", nil, nil)
	stateLate = prometheus.NewDesc("sluice_state_late",
		"1 while changes in the store are seen seconds late, by polling alone.", nil, nil)
	stateRefused = prometheus.NewDesc("sluice_state_refused_routes",
		"Routes in the store that are not served, because their documents cannot be.", nil, nil)
	storeUp = prometheus.NewDesc("sluice_store_up",
		"1 if the store answered when it was last asked.", nil, nil)
	storeErrors = prometheus.NewDesc("sluice_store_errors_total",
		"Failures of the store, by what was asked of it and what kept it from that.", []string{"op", "reason"}, nil)
	storeReconnects = prometheus.NewDesc("sluice_store_reconnects_total",
		"Times that the store was followed again after it was not.", nil, nil)
	storeLost = prometheus.NewDesc("sluice_store_lost_changes_total",
		"Changes that the store had acknowledged and lost, as this gateway noticed.", nil, nil)
	stateMissing = prometheus.NewDesc("sluice_state_missing_routes",
		"Routes that are served although the store has lost them.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (m stateMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{stateAge, stateChanged, stateFollowing, stateLate, stateRefused, stateMissing, storeUp, storeErrors, storeReconnects, storeLost} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m stateMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.status()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	if !s.ConfirmedAt.IsZero() {
		gauge(stateAge, s.Age().Seconds())
	}
	if !s.ChangedAt.IsZero() {
		gauge(stateChanged, float64(s.ChangedAt.UnixNano())/float64(time.Second))
	}
	gauge(stateFollowing, oneIf(s.Following))
	gauge(stateLate, oneIf(s.Health.Late != nil))
	gauge(stateRefused, float64(len(s.Refused)))
	gauge(storeUp, oneIf(s.Health.Err == nil))
	gauge(stateMissing, float64(len(s.Missing)))
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for e, n := range s.Counts.Errors {
		counter(storeErrors, n, e.Op, e.Reason)
	}
	counter(storeReconnects, s.Counts.Reconnects)
	counter(storeLost, s.Counts.LostChanges)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
