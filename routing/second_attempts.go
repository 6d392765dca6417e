package routing

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Hedge says when a call that has not been answered is sent a second time.
type Hedge struct {
	// On says that it is at all.
	On bool
	// Delay is what an attempt gets alone; 0 means the version's observed 95th
	// percentile.
	Delay time.Duration
}

// Limits bounds what a version is asked to do at once.
type Limits struct {
	// InFlight is the greatest number of attempts under way.
	InFlight uint32
	// Reserve is the number of places among them that only critical calls may take.
	Reserve uint32
	// Adaptive lowers the limit further while latency shows that calls queue up.
	Adaptive bool
}

// Priority says where a call's class is found.
type Priority struct {
	// Metadata is the lower-case metadata key that holds the class; empty means that
	// callers have no say.
	Metadata string
	// Default is the class of calls that name none; empty means normal.
	Default string
}

// defaultInFlight is the number of attempts that may be under way at a version whose
// route says nothing else.
const defaultInFlight = 1024

// setSecondAttempts takes over what concerns attempts beyond the first, and the calls
// that go first. The document has been validated.
func (r *Route) setSecondAttempts(doc *routingv1.Route) {
	l, p, f := doc.GetLimits(), doc.GetPriority(), doc.GetFallback()
	r.Limits = Limits{InFlight: inFlight(l), Reserve: l.GetReserve(), Adaptive: l.GetAdaptive()}
	r.Priority = Priority{Metadata: p.GetMetadata(), Default: p.GetDefault()}
	r.Hedge = Hedge{On: doc.GetHedge() != nil, Delay: doc.GetHedge().GetDelay().AsDuration()}
	r.FallbackReserve = f.GetReserve().AsDuration()
	if digest, err := hex.DecodeString(f.GetForceSha256()); err == nil {
		r.forceDigest = digest
	}
}

// inFlight is the limit of the document, or the default.
func inFlight(l *routingv1.Limits) uint32 {
	if l.GetInFlight() == 0 {
		return defaultInFlight
	}
	return l.GetInFlight()
}

// MayForceFallback reports whether token is the one by which a call may be made to
// fall back. It takes as long for a wrong one as for the right one.
func (r *Route) MayForceFallback(token string) bool {
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], r.forceDigest) == 1
}
