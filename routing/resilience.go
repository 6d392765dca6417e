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

// setResilience takes over what concerns failures. The document has been
// validated.
func (r *Route) setResilience(doc *routingv1.Route) {
	b := doc.GetBreaker()
	r.Breaker = Breaker{
		FailureRatio: b.GetFailureRatio(), MinCalls: b.GetMinCalls(), Consecutive: b.GetConsecutive(),
		OpenFor: b.GetOpenFor().AsDuration(), MaxOpenFor: b.GetMaxOpenFor().AsDuration(),
		SlowCall: b.GetSlowCall().AsDuration(), DryRun: b.GetDryRun(),
	}
	r.InFlight = doc.GetLimits().GetInFlight()
	for _, name := range doc.GetFallback().GetOn() {
		r.fallbackOn |= 1 << code.Code_value[name]
	}
}

// FallsBackOn reports whether an attempt that ended with this gRPC code moves on
// to the next version of [Route.Fallback].
func (r *Route) FallsBackOn(grpcCode uint32) bool {
	return grpcCode < 32 && r.fallbackOn&(1<<grpcCode) != 0
}
