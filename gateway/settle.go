package gateway

import (
	"google.golang.org/grpc/codes"

	"sluice/breaker"
	"sluice/gateway/identify"
	"sluice/gateway/relay"
)

// settle gives back what the attempt under way holds and tells everybody how it
// ended.
func (s *call) settle(o relay.Outcome) {
	e := s.endpoint
	if e == nil {
		return
	}
	s.endpoint, s.last = nil, e
	e.inFlight.Add(-1)
	took := o.Ended.Sub(o.Started)
	result := breaker.Result{At: o.Ended, RequestID: s.requestID}
	result.Outcome = s.target.guard.Classify(breaker.Attempt{
		Kind: attemptKinds[o.Kind], Code: codes.Code(o.Code), Latency: took, Had: s.had,
	})
	if s.method.Kind == identify.KindUnary {
		result.Latency = took
	}
	s.probe.Done(result)
	s.version.Done(result)
	if result.Outcome != breaker.Excluded {
		e.latency.observe(o.Ended, took, result.Outcome == breaker.Failure || result.Outcome == breaker.Overloaded)
	}
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
}
