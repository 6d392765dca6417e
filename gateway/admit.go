package gateway

import (
	"errors"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"

	"sluice/breaker"
	"sluice/gateway/identify"
	"sluice/gateway/relay"
	"sluice/telemetry"
)

// attempt is what is held for the attempt under way. Every path on which an
// attempt can end leads through settle, which gives it back.
type attempt struct {
	endpoint *endpoint
	version  breaker.Permit
	probe    breaker.Permit // of the endpoint
	had      time.Duration  // left until the deadline when it began
	trail    telemetry.Attempt
	parent   telemetry.Traceparent // that the model server gets

	rewriter identify.Rewriter
	dispatch relay.Dispatch
	request  [5]hpack.HeaderField
	answer   [7]hpack.HeaderField
}

// denial is why no attempt can be made at a version; the zero value is none. It
// becomes words only if the caller gets to read it: while a version is cut off,
// there is one for each of its calls.
type denial struct {
	reason string // as in ErrorInfo
	target *target
	err    error
}

var (
	errCutOff   = errors.New("operators have cut off all of its endpoints")
	errUnwell   = errors.New("all of its endpoints are unhealthy")
	errGone     = errors.New("it has just been taken out of the routes")
	errBudget   = errors.New("no budget for a second attempt")
	errDeadline = errors.New("the deadline passed before the call could be sent")
)

// next walks the plan (the chosen version, then the route's fallbacks) from
// where the call is to the first version that may be called now. If there is none,
// it says why: the first reason, or that the budget has nothing left for a second
// attempt, which ends the walk.
func (d *director) next(c *relay.Call, free bool) (relay.Verdict, denial) {
	s := c.Data.(*call)
	now := c.Now()
	if end := c.Deadline(); !end.IsZero() && !now.Before(end) {
		return relay.Verdict{}, denial{reasonDeadline, s.target, errDeadline}
	}
	var first denial
	for {
		n := d.admit(c, s, now, free)
		if n.reason != "" {
			s.record.Refuse(s.target.series, now, n.reason)
		}
		switch {
		case n.reason == "":
			return relay.To(&s.dispatch), denial{}
		case s.vanished(c):
			return d.again(c), denial{}
		case n.reason == reasonBudget:
			return relay.Verdict{}, n
		case first.reason == "":
			first = n
		}
		if !s.fallBack(n.reason) {
			return relay.Verdict{}, first
		}
	}
}

// vanished reports whether the call's version was taken out of the routes before the
// call could be sent.
func (s *call) vanished(c *relay.Call) bool { return c.Attempts() == 0 && s.target.group.closed() }

// again chooses anew for a call whose version has vanished. Endpoints are closed
// after the routes without them have been published, so there are newer ones than
// the call has seen.
func (d *director) again(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	s.target, s.last, s.step, s.fallbackReason = nil, nil, 0, ""
	return d.identified(c, true)
}

// fallBack moves the call on to the next version of its plan; reason says why
// the one before does not answer. A version stands once in a plan.
func (s *call) fallBack(reason string) bool {
	step, ok := s.nextFallback()
	if !ok {
		return false
	}
	s.target = s.snap.targets.get(s.route.Fallback[step])
	s.step = step + 1
	s.last, s.fallbackReason = nil, reason
	return true
}

// nextFallback returns which of the route's fallbacks is next.
func (s *call) nextFallback() (step int, ok bool) {
	if s.forced || s.method.Class == identify.ClassManagement {
		return 0, false // whoever asks for a version by name wants its answer, and manages its server
	}
	for step = s.step; step < len(s.route.Fallback); step++ {
		if s.route.Fallback[step] != s.primary.version {
			return step, true
		}
	}
	return 0, false
}

// hasWellFallback reports whether a version that is still to come in the plan may be
// called and is not all unhealthy. While there is none, the one that is asked now is
// called all the same: no answer is certain if nobody is asked.
func (s *call) hasWellFallback(now time.Time) bool {
	step, ok := s.nextFallback()
	if !ok {
		return false
	}
	for _, v := range s.route.Fallback[step:] {
		if v == s.primary.version {
			continue
		}
		if t := s.snap.targets.get(v); t.guard.Breaker().Ready(now) && s.snap.well(v) {
			return true
		}
	}
	return false
}

// admit asks for an attempt at the current version: its breaker and its limit,
// then an endpoint with its own breaker, then the budget, which pays only for
// second attempts that are really sent.
func (d *director) admit(c *relay.Call, s *call, now time.Time, free bool) denial {
	t := s.target
	rw := t.renames.of(s.method.Scope, s.clearing(t))
	if rw.err != nil {
		return denial{reasonRename, t, rw.err}
	}
	var err error
	if s.version, err = t.guard.Allow(now, s.priority); err != nil {
		return denial{guardReason(err), t, err}
	}
	e, bypass := t.group.pick(now, s.last)
	if e != nil && e.unhealthy.Load() && t.group.unhealthy() && s.hasWellFallback(now) {
		s.version.Done(breaker.Result{At: now})
		return denial{reasonNoEndpoint, t, errUnwell}
	}
	if e == nil {
		s.version.Done(breaker.Result{At: now})
		if !t.group.closed() {
			return denial{reasonNoEndpoint, t, errCutOff}
		}
		return denial{reasonNoEndpoint, t, errGone}
	}
	if bypass {
		s.probe = e.breaker.Bypass(now)
	} else if s.probe, err = e.breaker.Allow(now); err != nil {
		s.probe = e.breaker.Bypass(now) // another call took the probe in between
	}
	switch {
	case !s.begun: // once per call, however many endpoints cannot be reached
		s.begun = true
		t.budget.Call(now)
	case !free && !t.budget.Take(now):
		s.probe.Done(breaker.Result{At: now})
		s.version.Done(breaker.Result{At: now})
		return denial{reasonBudget, t, errBudget}
	}
	e.inFlight.Add(1)
	s.endpoint, s.had = e, 0
	s.beginAttempt(t, e, now)
	end := s.attemptEnd(c, now)
	if !end.IsZero() {
		s.had = end.Sub(now)
	}
	d.prepare(c, s, rw.rewrite, now)
	if end != c.Deadline() {
		s.dispatch.Until = end
	}
	return denial{}
}

// guardReason names the reason for which a version lets no attempt through.
func guardReason(err error) string {
	switch {
	case errors.Is(err, breaker.ErrShed): // which is an ErrFull, too
		return reasonShed
	case errors.Is(err, breaker.ErrFull):
		return reasonInFlight
	}
	return reasonBreakerOpen
}

// attemptEnd is when an attempt that begins now has to be answered: with the call, or
// before it by what the route reserves for the versions still to try. Streams keep the
// whole deadline: once their answer has begun there is no other version for them.
func (s *call) attemptEnd(c *relay.Call, now time.Time) time.Time {
	end, reserve := c.Deadline(), s.route.FallbackReserve
	if reserve == 0 || end.IsZero() || s.method.Kind != identify.KindUnary || !c.Replayable() {
		return end
	}
	if c.Attempts()+1 >= maxAttempts || !s.hasWellFallback(now) {
		return end
	}
	return end.Add(-min(reserve, end.Sub(now)/2))
}

// The fields of W3C Trace Context.
const (
	traceparentField = "traceparent"
	tracestateField  = "tracestate"
)

// prepare fills in the dispatch of the attempt that has been admitted.
func (d *director) prepare(c *relay.Call, s *call, rewrite *identify.Rewrite, now time.Time) {
	s.dispatch = relay.Dispatch{
		Upstream:     s.endpoint.up,
		Unary:        s.method.Kind == identify.KindUnary,
		Replay:       true,
		KeepReserved: s.target.version.TrustUpstream,
		BodyChanges:  rewrite != nil || s.scanner.MayChange(),
		Request:      s.requestFields(),
	}
	if parent := s.record.BeginAttempt(&s.trail, &s.parent); parent != "" {
		s.dispatch.Request = append(s.dispatch.Request, hpack.HeaderField{Name: traceparentField, Value: parent, Sensitive: true})
		if s.meta.Tracestate && !s.record.Trace.Parent.IsValid() {
			// It belongs to a trace that the caller did not name, or not properly.
			s.dispatch.Request = append(s.dispatch.Request, hpack.HeaderField{Name: tracestateField})
		}
	}
	if s.struck = false; s.target.faults != nil {
		s.strike(now)
	}
	s.dispatch.Answer = d.answerFields(s, c.Attempts()+1)
	s.dispatch.Hedge = s.hedgeAfter(c)
	switch {
	case s.dispatch.Unary:
	case s.reportsInBand():
		s.inBand = &inBand{call: s}
		s.dispatch.Watch = s.inBand
	default:
		s.dispatch.Begun = s
	}
	if s.target.labels != nil {
		d.identifyPrediction(s)
	}
	if rewrite != nil {
		s.rewriter.Reset(rewrite)
		s.dispatch.Rewrite = &s.rewriter
	}
}

// requestFields are the fields that every request goes on with.
func (s *call) requestFields() []hpack.HeaderField {
	f := append(s.request[:0], hpack.HeaderField{Name: "x-request-id", Value: s.requestID, Sensitive: true})
	if s.scanner.MayChange() {
		// What was compressed goes on decompressed, and the server need not know the
		// codec: gRPC's own refuse a call for naming one that they do not have.
		f = append(f, hpack.HeaderField{Name: "grpc-encoding", Value: "identity"})
	}
	if s.meta.ForceFallback != "" {
		// The token is the gateway's business, and a gateway behind this one has another.
		f = append(f, hpack.HeaderField{Name: identify.ForceFallback})
	}
	return f
}

// Answering implements [relay.Observer]: a stream that has begun to be answered
// shows that its server is back, however long the stream lasts.
func (s *call) Answering(now time.Time) {
	wasIn := s.endpoint.breaker.Ready(now)
	s.probe.Answering(now)
	s.endpoint.noteBreaker(wasIn, now)
	s.version.Answering(now)
}

// clearing reports whether the caller's model_version has done its work: it is a
// name of the gateway's that the version's server would not know.
func (s *call) clearing(t *target) bool {
	v := s.modelVersion
	return v != "" && v != t.version.Rename.Version &&
		(v == s.primary.version.Name || (t != s.primary && v == s.primary.version.Rename.Version))
}

// refusal puts a denial into words for the caller.
func (n denial) refusal() *refusal {
	v := n.target.version
	switch n.reason {
	case reasonDeadline:
		return refuse(codes.DeadlineExceeded, n.reason, "%v", n.err)
	case reasonRename:
		return refuse(codes.FailedPrecondition, n.reason, "model %q, version %q: %v", v.Model, v.Name, n.err)
	case reasonInFlight, reasonShed:
		r := refuse(codes.ResourceExhausted, n.reason, "version %q of model %q: %v", v.Name, v.Model, n.err)
		r.retry = retryAfter
		return r
	case reasonBreakerOpen:
		r := refuse(codes.Unavailable, n.reason, "version %q of model %q is cut off: %v", v.Name, v.Model, n.err)
		r.retry = retryAfter
		now := time.Now()
		if until := n.target.guard.Breaker().Status(now).OpenUntil; until.After(now) {
			r.retry = until.Sub(now)
		}
		return r
	default:
		r := refuse(codes.Unavailable, n.reason, "version %q of model %q cannot be called: %v", v.Name, v.Model, n.err)
		r.retry = retryAfter
		return r
	}
}

// Failed answers: what now, nothing of the answer having reached the client?
// First another endpoint of the same version, where that is safe; then the next
// version of the plan, where the route says so. If no version may be called, the
// client gets what this attempt brought.
func (d *director) Failed(c *relay.Call, o relay.Outcome) relay.Verdict {
	s := c.Data.(*call)
	outcome := s.settle(c, o)
	if c.Racing() {
		s.recount(c)
		if o.Kind == relay.Answered && outcome == breaker.Excluded {
			return relay.Pass() // the caller's own fault, which the other one would find as well
		}
		return relay.Wait()
	}
	if s.target == nil || o.Kind == relay.Canceled {
		return relay.Pass()
	}
	sent := o.Kind != relay.Unreachable
	if !sent && s.vanished(c) {
		return d.again(c)
	}
	if sent && c.Attempts() >= maxAttempts {
		return relay.Pass()
	}
	if sent && !c.Replayable() {
		if s.safeToRepeat(o) || s.route.FallsBackOn(o.Code) {
			s.record.Refuse(s.target.series, o.Ended, reasonNotKept)
		}
		return relay.Pass()
	}
	if sent && o.Kind != relay.Unprocessed && s.scanner.InSequence() {
		return relay.Pass() // what the server knows of the sequence by now, no other does
	}
	target, why, free := s.target, s.fallbackReason, !sent
	repeatable := s.safeToRepeat(o)
	if sent {
		repeatable = repeatable && !s.retried
	} else if s.unreached++; s.unreached >= maxUnreached {
		repeatable = false
	}
	switch {
	case o.Kind == relay.Unprocessed && !s.repeated:
		// Never looked at: free to repeat, once, on the only endpoint too.
		s.repeated, free = true, true
		s.last = nil
	case repeatable && (!o.Pushback || o.PushbackFor == 0) && target.group.hasOther(o.Ended, s.last):
		s.retried = s.retried || sent
	case s.route.FallsBackOn(o.Code) && s.fallBack(code.Code(o.Code).String()):
		s.retried, s.unreached = false, 0
	case repeatable && s.worthTheWait(c, o):
		s.retried = true
		return relay.Later(o.PushbackFor)
	default:
		return relay.Pass()
	}
	return d.onward(c, free, target, why)
}

// onward makes another attempt. If none can be made, the call is again about the version
// before, and the client gets what that one said.
func (d *director) onward(c *relay.Call, free bool, target *target, why string) relay.Verdict {
	v, n := d.next(c, free)
	if n.reason != "" {
		s := c.Data.(*call)
		s.target, s.fallbackReason = target, why
		return relay.Pass()
	}
	return v
}

// maxPushback is the longest pause asked for by a server that a call waits out: its
// request is kept meanwhile.
const maxPushback = 5 * time.Second

// worthTheWait reports whether the server wants to be asked again, soon enough.
func (s *call) worthTheWait(c *relay.Call, o relay.Outcome) bool {
	return o.Pushback && o.PushbackFor > 0 && o.PushbackFor <= maxPushback && c.RequestEnded() &&
		(c.Deadline().IsZero() || o.Ended.Add(o.PushbackFor).Before(c.Deadline()))
}

// maxUnreached is how many endpoints of a version a call finds out of reach before it
// moves on to the next version.
const maxUnreached = 8

// safeToRepeat reports an outcome after which the same version may be asked
// again, elsewhere: it never looked at the call, or was not available and the call is
// none that changes something.
func (s *call) safeToRepeat(o relay.Outcome) bool {
	switch o.Kind {
	case relay.Unreachable, relay.Unprocessed:
		return true
	case relay.Answered, relay.Reset, relay.Lost, relay.Invalid:
		return codes.Code(o.Code) == codes.Unavailable && !s.method.Acts()
	}
	return false
}
