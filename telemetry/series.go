package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Series are the metrics of one version of a model, or of the calls of a model for which no version was
// chosen (Version is empty then). They outlive routing tables, and end with their version: see
// [Telemetry.Retain]. A nil *Series counts nothing. Safe for concurrent use.
//
// Counting looks nothing up by strings that have to be hashed together: each label that varies has a
// small map here that is replaced whole when it gets a new key, which happens a few times in the life of
// a version.
type Series struct {
	Model, Version string

	metrics *metrics
	tally   *Tally  // of the model; nil for calls that belong to no route
	lines   limiter // of lines for faults that are the version's own
	// refusalLines is of lines for calls that were refused because it was cut off, full or out of reach.
	refusalLines limiter
	mu           sync.Mutex  // serialises what follows being replaced
	retired      atomic.Bool // what is counted from now on is not exposed

	calls     children[uint32, *histogram]
	refused   children[string, *counter]
	fallbacks children[fallbackKey, *counter]
	durations children[string, *histogram]
	attempts  children[attemptKey, *counter]
	refusals  children[string, *counter]
	changes   children[changeKey, *counter]
	faults    children[string, *counter]
	bytes     children[direction, *counter]
}

type (
	fallbackKey struct {
		from   *Series
		reason string
	}
	attemptKey struct {
		kind            AttemptKind
		outcome, reason string
	}
	changeKey struct{ scope, to, cause string }
	direction uint8
)

const (
	request direction = iota
	answer
)

func newSeries(model, version string, m *metrics, tally *Tally) *Series {
	return &Series{
		Model: model, Version: version, metrics: m, tally: tally,
		lines:        limiter{every: versionLineEvery, burst: versionLineBurst},
		refusalLines: limiter{every: versionLineEvery, burst: versionLineBurst},
	}
}

// children are the metrics of a series that differ in one thing.
type children[K comparable, V any] struct {
	known atomic.Pointer[map[K]V]
	first atomic.Pointer[child[K, V]] // the one made first: nearly all calls end alike, and comparing is faster than hashing
}

type child[K comparable, V any] struct {
	key   K
	value V
}

// get returns the child of a key; one that is not known yet is made. K has few values: whoever calls
// sees to that.
func (c *children[K, V]) get(s *Series, k K, of func(*Series, K) V) V {
	if f := c.first.Load(); f != nil && f.key == k {
		return f.value
	}
	if m := c.known.Load(); m != nil {
		if v, ok := (*m)[k]; ok {
			return v
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := c.known.Load()
	next := make(map[K]V)
	if old != nil {
		if v, ok := (*old)[k]; ok {
			return v
		}
		next = maps.Clone(*old)
	}
	v := of(s, k)
	next[k] = v
	c.known.Store(&next)
	if c.first.Load() == nil {
		c.first.Store(&child[K, V]{k, v})
	}
	return v
}

// drop forgets the children of some keys. s.mu is held.
func (c *children[K, V]) drop(gone func(K) bool) {
	known := c.known.Load()
	if known == nil {
		return
	}
	next := maps.Clone(*known)
	maps.DeleteFunc(next, func(k K, _ V) bool { return gone(k) })
	c.known.Store(&next)
	if f := c.first.Load(); f != nil && gone(f.key) {
		c.first.Store(nil)
	}
}

// each visits the children.
func (c *children[K, V]) each(visit func(K, V)) {
	if m := c.known.Load(); m != nil {
		for k, v := range *m {
			visit(k, v)
		}
	}
}

// isLate reports whether a call is a good answer that took longer than the model's objective says.
func (s *Series) isLate(c *Call) bool { return s != nil && s.tally.isLate(c) }

// call counts a call that is over.
func (s *Series) call(c *Call) {
	if s == nil {
		return
	}
	s.tally.count(c)
	h := s.calls.get(s, min(c.Code, uint32(len(codeNames))), newCallSeries)
	seconds := c.Ended.Sub(c.Opened).Seconds()
	if c.why != notKept {
		h.observeExample(seconds, c.Trace.ID.String())
	} else {
		h.observe(seconds)
	}
	if c.RequestBytes > 0 {
		s.bytes.get(s, request, newByteSeries).n.Add(uint64(c.RequestBytes))
	}
	if c.AnswerBytes > 0 {
		s.bytes.get(s, answer, newByteSeries).n.Add(uint64(c.AnswerBytes))
	}
	if c.Reason != "" {
		s.refused.get(s, c.Reason, newRefusedSeries).n.Add(1)
	}
	if c.FallbackReason != "" && c.Primary != nil {
		s.fallbacks.get(s, fallbackKey{c.Primary, c.FallbackReason}, newFallbackSeries).n.Add(1)
	}
}

// attempt counts an attempt that is over.
func (s *Series) attempt(a *Attempt) {
	if s == nil {
		return
	}
	s.attempts.get(s, attemptKey{a.Kind, a.Outcome, a.Reason}, newAttemptSeries).n.Add(1)
	s.durations.get(s, a.Outcome, newDurationSeries).observe(a.Ended.Sub(a.Started).Seconds())
}

// refuse counts that the version could not be asked.
func (s *Series) refuse(reason string) {
	if s != nil {
		s.refusals.get(s, reason, newRefusalSeries).n.Add(1)
	}
}

// Transition counts a change of state of the version's breaker or, with scope "endpoint", of one of its
// endpoints'.
func (s *Series) Transition(scope, to, cause string) {
	if s != nil {
		s.changes.get(s, changeKey{scope, to, cause}, newChangeSeries).n.Add(1)
	}
}

// Strike counts an attempt at the version that a fault of a kind was injected into.
func (s *Series) Strike(kind string) {
	if s != nil {
		s.faults.get(s, kind, newFaultSeries).n.Add(1)
	}
}

// The functions below make what a key stands for. s.mu is held. A series that has been retired gets
// metrics that nobody exposes.

func newCallSeries(s *Series, code uint32) *histogram {
	return histogramOf(s, s.metrics.calls, s.Model, s.Version, CodeName(code))
}

func newDurationSeries(s *Series, outcome string) *histogram {
	return histogramOf(s, s.metrics.durations, s.Model, s.Version, outcome)
}

func newRefusedSeries(s *Series, reason string) *counter {
	return counterOf(s, s.metrics.refused, s.Model, s.Version, reason)
}

func newFallbackSeries(s *Series, k fallbackKey) *counter {
	labels := []string{s.Model, k.from.Version, s.Version, k.reason}
	if k.from.retired.Load() {
		return newCounter(s.metrics.fallbacks.head, labels)
	}
	return counterOf(s, s.metrics.fallbacks, labels...)
}

func newAttemptSeries(s *Series, k attemptKey) *counter {
	return counterOf(s, s.metrics.attempts, s.Model, s.Version, k.kind.String(), k.outcome, k.reason)
}

func newRefusalSeries(s *Series, reason string) *counter {
	return counterOf(s, s.metrics.refusals, s.Model, s.Version, reason)
}

func newChangeSeries(s *Series, k changeKey) *counter {
	return counterOf(s, s.metrics.transitions, s.Model, s.Version, k.scope, k.to, k.cause)
}

func newFaultSeries(s *Series, kind string) *counter {
	return counterOf(s, s.metrics.faults, s.Model, s.Version, kind)
}

func newByteSeries(s *Series, d direction) *counter {
	if d == request {
		return counterOf(s, s.metrics.requests, s.Model, s.Version)
	}
	return counterOf(s, s.metrics.answers, s.Model, s.Version)
}

func counterOf(s *Series, f *counters, labels ...string) *counter {
	if s.retired.Load() {
		return newCounter(f.head, labels)
	}
	return f.with(labels...)
}

func histogramOf(s *Series, f *histograms, labels ...string) *histogram {
	if s.retired.Load() {
		return newHistogram(f.bounds, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "retired"}), member{place: -1})
	}
	return f.with(labels...)
}

// retire takes everything of the series out of what is exposed.
func (s *Series) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired.Store(true)
	m := s.metrics
	s.calls.each(func(_ uint32, h *histogram) { m.calls.remove(h) })
	s.durations.each(func(_ string, h *histogram) { m.durations.remove(h) })
	s.refused.each(func(_ string, c *counter) { m.refused.remove(c) })
	s.fallbacks.each(func(_ fallbackKey, c *counter) { m.fallbacks.remove(c) })
	s.attempts.each(func(_ attemptKey, c *counter) { m.attempts.remove(c) })
	s.refusals.each(func(_ string, c *counter) { m.refusals.remove(c) })
	s.changes.each(func(_ changeKey, c *counter) { m.transitions.remove(c) })
	s.faults.each(func(_ string, c *counter) { m.faults.remove(c) })
	s.bytes.each(func(d direction, c *counter) {
		if d == request {
			m.requests.remove(c)
		} else {
			m.answers.remove(c)
		}
	})
}

// forgetFallbacks takes what is counted of fallbacks from versions that are gone out of what is exposed: a
// version that stays would else have series of all the canaries there ever were.
func (s *Series) forgetFallbacks(gone map[*Series]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	s.fallbacks.each(func(k fallbackKey, c *counter) {
		if gone[k.from] {
			found = true
			s.metrics.fallbacks.remove(c)
		}
	})
	if found {
		s.fallbacks.drop(func(k fallbackKey) bool { return gone[k.from] })
	}
}
