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
)

// attempt is what is held for the attempt under way. Every path on which an
// attempt can end leads through settle, which gives it back.
type attempt struct {
	endpoint *endpoint
	version  breaker.Permit
	probe    breaker.Permit // of the endpoint
	had      time.Duration  // left until the deadline when it began
}

// next walks the plan (the chosen version, then the route's fallbacks) from
// where the call is to the first version that may be called now. It returns
// false if a second attempt has to be paid for and the budget has nothing left.
func (d *director) next(c *relay.Call, free bool) (relay.Verdict, bool) {
	s := c.Data.(*call)
	now := time.Now()
	if end := c.Deadline(); !end.IsZero() && !now.Before(end) {
		return d.refuse(c, refuse(codes.DeadlineExceeded, reasonDeadline, "the deadline passed before the call could be sent")), true
	}
	for {
		r, paid := d.admit(c, s, now, free)
		if r == nil {
			return relay.To(&s.dispatch), true
		}
		if s.vanished(c) {
			return d.again(c), true
		}
		if !paid {
			return relay.Verdict{}, false
		}
		if s.refused == nil {
			s.refused = r
		}
		if !s.fallBack(r.reason) {
			return d.refuse(c, s.refused), true
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
	s.target, s.last, s.step = nil, nil, 0
	s.refused, s.fallbackReason = nil, ""
	return d.identified(c, true)
}

// fallBack moves the call on to the next version of its plan; reason says why
// the one before does not answer. A version stands once in a plan.
func (s *call) fallBack(reason string) bool {
	if s.forced {
		return false // whoever asks for a version by name wants its answer
	}
	for s.step < len(s.route.Fallback) {
		v := s.route.Fallback[s.step]
		s.step++
		if v == s.primary.version {
			continue
		}
		s.target = s.snap.targets[v]
		s.last, s.fallbackReason = nil, reason
		return true
	}
	return false
}

// admit asks for an attempt at the current version: its breaker and its limit,
// then an endpoint with its own breaker, then the budget, which pays only for
// second attempts that are really sent. It returns why not; paid is false if
// only the budget stands in the way.
func (d *director) admit(c *relay.Call, s *call, now time.Time, free bool) (r *refusal, paid bool) {
	t := s.target
	rw := t.renames.of(s.method.Scope, s.clearing(t))
	if rw.err != nil {
		return refuse(codes.FailedPrecondition, reasonRename, "model %q, version %q: %v",
			t.version.Model, t.version.Name, rw.err), true
	}
	var err error
	if s.version, err = t.guard.Allow(now, breaker.Normal); err != nil {
		return notAdmitted(t, err, now), true
	}
	e, bypass := t.group.pick(now, s.last)
	if e == nil {
		s.version.Done(breaker.Result{At: now})
		r := refuse(codes.Unavailable, reasonNoEndpoint, "version %q of model %q has no endpoint: it has just been taken out of the routes",
			t.version.Name, t.version.Model)
		r.retry = retryAfter
		return r, true
	}
	if bypass {
		s.probe = e.breaker.Bypass(now)
	} else if s.probe, err = e.breaker.Allow(now); err != nil {
		s.probe = e.breaker.Bypass(now) // another call took the probe in between
	}
	if c.Attempts() == 0 {
		t.budget.Call(now)
	} else if !free && !t.budget.Take(now) {
		s.probe.Done(breaker.Result{At: now})
		s.version.Done(breaker.Result{At: now})
		return refuse(codes.Unavailable, reasonBudget, "no budget for a second attempt"), false
	}
	e.inFlight.Add(1)
	s.endpoint, s.had = e, 0
	if deadline := c.Deadline(); !deadline.IsZero() {
		s.had = deadline.Sub(now)
	}
	d.prepare(c, s, rw.rewrite)
	return nil, true
}

// prepare fills in the dispatch of the attempt that has been admitted.
func (d *director) prepare(c *relay.Call, s *call, rewrite *identify.Rewrite) {
	request := append(s.request[:0], hpack.HeaderField{Name: "x-request-id", Value: s.requestID, Sensitive: true})
	if s.scanner.MayChange() {
		// What was compressed goes on decompressed, and the server need not know the
		// codec: gRPC's own refuse a call for naming one that they do not have.
		request = append(request, hpack.HeaderField{Name: "grpc-encoding", Value: "identity"})
	}
	s.dispatch = relay.Dispatch{
		Upstream:     s.endpoint.up,
		Unary:        s.method.Kind == identify.KindUnary,
		Replay:       true,
		KeepReserved: s.target.version.TrustUpstream,
		BodyChanges:  rewrite != nil || s.scanner.MayChange(),
		Request:      request,
		Answer:       d.answerFields(s, c.Attempts()+1),
	}
	if rewrite != nil {
		s.rewriter.Reset(rewrite)
		s.dispatch.Rewrite = &s.rewriter
	}
}

// clearing reports whether the caller's model_version has done its work: it is a
// name of the gateway's that the version's server would not know.
func (s *call) clearing(t *target) bool {
	v := s.modelVersion
	return v != "" && v != t.version.Rename.Version &&
		(v == s.primary.version.Name || (t != s.primary && v == s.primary.version.Rename.Version))
}

// notAdmitted turns a refusal of the breaker room into one for the caller.
func notAdmitted(t *target, err error, now time.Time) *refusal {
	if errors.Is(err, breaker.ErrFull) {
		r := refuse(codes.ResourceExhausted, reasonInFlight, "version %q of model %q: %v",
			t.version.Name, t.version.Model, err)
		r.retry = retryAfter
		return r
	}
	r := refuse(codes.Unavailable, reasonBreakerOpen, "version %q of model %q is cut off: %v",
		t.version.Name, t.version.Model, err)
	r.retry = retryAfter
	if until := t.guard.Breaker().Status(now).OpenUntil; until.After(now) {
		r.retry = until.Sub(now)
	}
	return r
}

// Failed answers: what now, nothing of the answer having reached the client?
// First another endpoint of the same version, where that is safe; then the next
// version of the plan, where the route says so.
func (d *director) Failed(c *relay.Call, o relay.Outcome) relay.Verdict {
	s := c.Data.(*call)
	s.settle(c, o)
	if s.target == nil || o.Kind == relay.DeadlineExceeded || o.Kind == relay.Canceled {
		return relay.Pass()
	}
	sent := o.Kind != relay.Unreachable
	if !sent && s.vanished(c) {
		return d.again(c)
	}
	if sent && (c.Attempts() >= maxAttempts || !c.Replayable()) {
		return relay.Pass()
	}
	free := !sent
	switch {
	case o.Kind == relay.Unprocessed && !s.repeated:
		// Never looked at: free to repeat, once, on the only endpoint too.
		s.repeated, free = true, true
		s.last = nil
	case !o.Pushback && safeToRepeat(o) && !s.retried && s.target.group.hasOther(s.last):
		s.retried = sent
	case s.route.FallsBackOn(o.Code) && s.fallBack(code.Code(o.Code).String()):
		s.retried = false
	default:
		return relay.Pass()
	}
	if v, ok := d.next(c, free); ok {
		return v
	}
	return relay.Pass()
}

// safeToRepeat reports an outcome after which the same version may be asked
// again, elsewhere: it never looked at the call, or was not available.
func safeToRepeat(o relay.Outcome) bool {
	switch o.Kind {
	case relay.Unreachable, relay.Unprocessed:
		return true
	case relay.Answered, relay.Reset, relay.Lost, relay.Invalid:
		return codes.Code(o.Code) == codes.Unavailable
	}
	return false
}
