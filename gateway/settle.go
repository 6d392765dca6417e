package gateway

import (
	"time"

	"google.golang.org/grpc/codes"

	"sluice/breaker"
	"sluice/gateway/identify"
	"sluice/gateway/relay"
)

// settle gives back what an attempt holds, if it still does, and tells everybody how it
// ended. It returns what that says about the version.
func (s *call) settle(c *relay.Call, o relay.Outcome) breaker.Outcome {
	held := s.attemptOf(o)
	e := held.endpoint
	if e == nil {
		return breaker.Excluded
	}
	held.endpoint = nil
	if o.Kind != relay.Unreachable || s.last == nil || !e.up.Failing() {
		s.last = e // an endpoint known to be down is avoided anyway
	}
	e.inFlight.Add(-1)
	unary := s.method.Kind == identify.KindUnary
	waited := s.waited(o, c.RequestEnded())
	a := breaker.Attempt{Kind: attemptKinds[o.Kind], Code: codes.Code(o.Code), Had: held.had}
	if unary {
		a.Latency = waited // of a stream it says nothing about the server's speed
	}
	switch {
	case o.Kind == relay.DeadlineExceeded && !s.serversTurn(o, c.RequestEnded()):
		a.Kind = breaker.Canceled // the client itself did not get on in time
	case o.Kind == relay.Unreachable && e.retired.Load():
		a.Kind = breaker.OwnRefusal // nobody asks for it any more
	case s.inBand != nil && s.inBand.failed:
		// Whatever came of the stream afterwards: clients leave when they have read it.
		a.Kind, a.InBandError = breaker.Answered, true
	}
	outcome := s.target.guard.Classify(a)
	result := breaker.Result{
		Outcome: outcome, At: o.Ended, Latency: a.Latency, RequestID: s.requestID,
	}
	s.endAttempt(&held.trail, o, outcome)
	wasIn := e.breaker.Ready(o.Ended)
	held.probe.Done(result)
	e.noteBreaker(wasIn, o.Ended)
	if outcome == breaker.Success || outcome == breaker.Slow {
		e.answered(o.Ended)
	}
	down := o.Kind == relay.Unreachable || o.Kind == relay.Lost || e.ejected(o.Ended)
	if down && s.target.group.spares(o.Ended, e) {
		// It is down by itself, and cut off by itself. That it had many calls must not
		// cut off the version, which others still serve.
		result.Outcome = breaker.Excluded
	}
	held.version.Done(result)
	switch {
	case o.Kind == relay.Unreachable:
		e.latency.forget() // once it is back, it is a new one
	case outcome == breaker.Excluded:
		e.latency.tookAtLeast(o.Ended, waited)
	case outcome == breaker.Failure || outcome == breaker.Overloaded:
		e.latency.failed(o.Ended, waited)
	default:
		e.latency.answered(o.Ended, waited)
	}
	return outcome
}

// attemptOf returns the attempt that o is about.
func (s *call) attemptOf(o relay.Outcome) *attempt {
	if s.hedge != nil && o.Dispatch == &s.hedge.dispatch {
		return s.hedge
	}
	return &s.attempt
}

// serversTurn reports whether the server had what it needed to answer, so that a
// deadline passed waiting for it.
func (s *call) serversTurn(o relay.Outcome, requestEnded bool) bool {
	return requestEnded || (o.FirstByte.IsZero() && s.scanner.Messages() > 0)
}

// waited is how long the endpoint kept the caller waiting: from when it had what
// it needed until it began to answer. How long a client takes to send
// a request or to read an answer is none of the endpoint's business.
func (s *call) waited(o relay.Outcome, requestEnded bool) time.Duration {
	from, to := o.Started, o.FirstByte
	if s.endedAt.After(from) {
		from = s.endedAt
	}
	unary := s.method.Kind == identify.KindUnary
	if to.IsZero() {
		if !unary || !requestEnded {
			return 0 // who kept whom waiting?
		}
		to = o.Ended
	}
	t := max(0, to.Sub(from))
	if !unary {
		// The client may have had to speak first, so that this is an upper bound: it
		// counts no more than what is assumed of an endpoint never asked.
		t = min(t, unknownCost)
	}
	return t
}

// attemptKinds says the relay's words in the breaker's.
var attemptKinds = [...]breaker.Kind{
	relay.Answered:         breaker.Answered,
	relay.Unprocessed:      breaker.Unprocessed,
	relay.Reset:            breaker.Reset,
	relay.Lost:             breaker.Lost,
	relay.Unreachable:      breaker.Unreachable,
	relay.Invalid:          breaker.Invalid,
	relay.DeadlineExceeded: breaker.Deadline,
	relay.Canceled:         breaker.Canceled,
	relay.Refused:          breaker.OwnRefusal,
	relay.Evicted:          breaker.OwnRefusal,
	relay.Outrun:           breaker.OwnRefusal,
}
