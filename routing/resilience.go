package routing

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Breaker holds a route's settings of its breakers; a zero field means the
// default.
type Breaker struct {
	// FailureRatio is the share of failures, of all calls in the window, that opens.
	FailureRatio float64
	// MinCalls is the number of calls below which the ratio is not looked at.
	MinCalls uint32
	// Consecutive is the number of failures in a row that opens.
	Consecutive uint32
	// OpenFor is the time before the first probe, MaxOpenFor what it grows to.
	OpenFor, MaxOpenFor time.Duration
	// SlowCall is the latency above which a good answer is slow; 0 means none is.
	SlowCall time.Duration
	// DryRun reports without cutting off.
	DryRun bool
}

// Probing holds a route's settings of probing its endpoints.
type Probing struct {
	// Off asks no endpoint; Interval, Timeout and FailAfter mean nothing then.
	Off bool
	// Interval is the time between two probes of an endpoint, Timeout how long an
	// answer may take.
	Interval, Timeout time.Duration
	// FailAfter is the number of probes in a row without an answer that makes an
	// endpoint unhealthy.
	FailAfter int
	// SlowStart is the time in which the share of an endpoint that comes back grows
	// to its full one; 0 means at once.
	SlowStart time.Duration
}

// What holds where a route does not say otherwise. A server that hangs right after it
// has answered is unhealthy within 1.1 * 3 s + 2 s, a pause of 1 s and another 2 s.
const (
	healthInterval  = 3 * time.Second
	healthTimeout   = 2 * time.Second
	healthFailAfter = 2
	healthSlowStart = 10 * time.Second
)

// newProbing completes the settings of a document.
func newProbing(doc *routingv1.Health) Probing {
	h := Probing{
		Off: doc.GetOff(), Interval: healthInterval, Timeout: healthTimeout,
		FailAfter: healthFailAfter, SlowStart: healthSlowStart,
	}
	if d := doc.GetInterval(); d != nil {
		h.Interval = d.AsDuration()
	}
	if d := doc.GetTimeout(); d != nil {
		h.Timeout = d.AsDuration()
	}
	if doc.GetFailAfter() > 0 {
		h.FailAfter = int(doc.GetFailAfter())
	}
	if d := doc.GetSlowStart(); d != nil {
		h.SlowStart = d.AsDuration()
	}
	return h
}

// setResilience takes over what concerns failures. The document has been
// validated.
func (r *Route) setResilience(doc *routingv1.Route) {
	b := doc.GetBreaker()
	r.Breaker = Breaker{
		FailureRatio: b.GetFailureRatio(), MinCalls: b.GetMinCalls(), Consecutive: b.GetConsecutive(),
		OpenFor: b.GetOpenFor().AsDuration(), MaxOpenFor: b.GetMaxOpenFor().AsDuration(),
		SlowCall: b.GetSlowCall().AsDuration(), DryRun: b.GetDryRun(),
	}
	r.Health = newProbing(doc.GetHealth())
	for _, name := range doc.GetFallback().GetOn() {
		r.fallbackOn |= 1 << code.Code_value[name]
	}
}

// FallsBackOn reports whether an attempt that ended with this gRPC code moves on
// to the next version of [Route.Fallback].
func (r *Route) FallsBackOn(grpcCode uint32) bool {
	return grpcCode < 32 && r.fallbackOn&(1<<grpcCode) != 0
}
