package gateway

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/telemetry"
)

// beginAttempt notes an attempt that has been admitted.
func (s *call) beginAttempt(t *target, e *endpoint, now time.Time) {
	kind := telemetry.Fallback
	switch t {
	case s.asked:
		kind = telemetry.Retry
	case s.primary:
		kind = telemetry.Primary
	}
	s.asked = t
	s.trail = telemetry.Attempt{Series: t.series, Kind: kind, Endpoint: e.addr, DataVersion: t.version.Provenance.Data, Started: now}
}

// endAttempt records how an attempt ended.
func (s *call) endAttempt(a *telemetry.Attempt, o relay.Outcome, outcome breaker.Outcome) {
	if !o.Started.IsZero() {
		a.Started = o.Started // by the same clock as its end
	}
	a.FirstByte, a.Ended = o.FirstByte, o.Ended
	a.Outcome, a.Reason, a.Code = outcome.String(), attemptReason(o), o.Code
	if s.struck {
		a.Reason = reasonFault
	}
	a.Reset, a.ResetCode = o.Kind == relay.Reset, uint32(o.Reset)
	s.record.EndAttempt(a)
}

// attemptReason names the status that came back, or what came in its stead.
func attemptReason(o relay.Outcome) string {
	switch o.Kind {
	case relay.Answered:
		return telemetry.CodeName(o.Code)
	case relay.Canceled:
		return telemetry.CodeName(uint32(codes.Canceled))
	}
	reason, _ := outcomeReason(o.Kind)
	return reason
}

// recordCall records a call that is over.
func (d *director) recordCall(c *relay.Call, s *call, o relay.Outcome) {
	if d.telemetry == nil {
		return
	}
	r := &s.record
	r.Series = d.seriesOf(s)
	if s.target != nil {
		r.DataVersion = s.target.version.Provenance.Data
	}
	if s.primary != nil {
		r.Primary = s.primary.series
	}
	if s.named() {
		r.Service, r.Method = s.method.Service, s.method.Name
	}
	if s.snap != nil {
		r.Revision = s.snap.table.Revision()
	}
	r.Unary = s.method.Kind == identify.KindUnary
	r.RequestID, r.Forced, r.FallbackReason = s.requestID, s.forced, s.fallbackReason
	finish(r, c, o)
	r.Slow = s.tookLong(r.Ended.Sub(r.Opened))
	d.telemetry.Record(r)
}

// maxMethod is the longest name of a method that is repeated, in bytes.
const maxMethod = 64

// named reports whether the method's name can be repeated: it is in the list of known
// ones, or its service is in the routes and it could be one.
func (s *call) named() bool {
	if s.method.Kind != identify.KindUnknown {
		return true
	}
	if s.route == nil || !slices.Contains(s.route.Services, s.method.Service) || len(s.method.Name) > maxMethod {
		return false
	}
	return !strings.ContainsFunc(s.method.Name, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// farBeyond is how many times the p95 of its version a call takes that is worth a look:
// a few in a thousand of healthy ones do.
const farBeyond = 4

// tookLong reports whether a call took far longer than its version's calls do. How long
// a stream lasts is for its caller to say.
func (s *call) tookLong(d time.Duration) bool {
	if s.target == nil || s.method.Kind != identify.KindUnary {
		return false
	}
	p95, known := s.target.guard.P95()
	return known && d > farBeyond*p95
}

// seriesOf returns the metrics that a call belongs to.
func (d *director) seriesOf(s *call) *telemetry.Series {
	switch {
	case s.target != nil:
		return s.target.series
	case s.route != nil:
		return s.snap.targets.get(s.route.Versions[0]).refused // those of now may be of another route
	case s.method.Class == identify.ClassLocal:
		return d.telemetry.Local()
	}
	return d.telemetry.Unknown()
}

// recordUnseen records a call that ended before the director was asked.
func (d *director) recordUnseen(c *relay.Call, o relay.Outcome) {
	if d.telemetry == nil {
		return
	}
	r := telemetry.Call{Series: d.telemetry.Unknown()}
	if o.Kind != relay.Canceled {
		r.Reason = reasonBadRequest
	}
	finish(&r, c, o)
	d.telemetry.Record(&r)
}

// finish fills in how a call ended.
func finish(r *telemetry.Call, c *relay.Call, o relay.Outcome) {
	r.Opened, r.Ended = c.Opened(), o.Ended
	r.Code, r.Canceled = o.Code, o.Kind == relay.Canceled
	r.RequestBytes, r.AnswerBytes = c.RequestBytes(), c.AnswerBytes()
}
