package gateway

import (
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/breaker"
	"sluice/gateway/relay"
	"sluice/telemetry"
)

// hedgeAfter is how long the attempt that is being prepared gets alone, 0 if no other
// one may be sent beside it.
func (s *call) hedgeAfter(c *relay.Call) time.Duration {
	if !s.route.Hedge.On || c.Attempts() > 0 || !s.method.OnlyAsks() {
		return 0
	}
	if d := s.route.Hedge.Delay; d > 0 {
		return d
	}
	d, _ := s.target.guard.P95()
	return d
}

// Due answers what was put off: an attempt beside one that is late, or one that a
// server wanted to see later.
func (d *director) Due(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	if s.endpoint == nil {
		return d.onward(c, false, s.target, s.fallbackReason)
	}
	now := c.Now()
	h := s.admitHedge(now)
	if h == nil {
		return relay.Wait()
	}
	s.hedge = h
	h.trail = telemetry.Attempt{Series: s.target.series, Kind: telemetry.Hedge, Endpoint: h.endpoint.addr, DataVersion: s.target.version.Provenance.Data, Started: now}
	if end := s.attemptEnd(c, now); !end.IsZero() {
		h.had = end.Sub(now)
	}
	h.dispatch = s.dispatch
	h.dispatch.Upstream, h.dispatch.Hedge, h.dispatch.NotBefore = h.endpoint.up, 0, time.Time{}
	h.dispatch.Request = append(h.request[:0], s.dispatch.Request...)
	if parent := s.record.BeginAttempt(&h.trail, &h.parent); parent != "" {
		setField(h.dispatch.Request, traceparentField, parent)
	}
	h.dispatch.Answer = append(h.answer[:0], s.dispatch.Answer...)
	if s.dispatch.Rewrite != nil {
		h.rewriter = s.rewriter.Restarted()
		h.dispatch.Rewrite = &h.rewriter
	}
	setAttempts(s.dispatch.Answer, c.Attempts()+1)
	setAttempts(h.dispatch.Answer, c.Attempts()+1)
	return relay.To(&h.dispatch)
}

// admitHedge asks for a second attempt at the call's version. It is a luxury: only
// another endpoint that is well will do, and only room that nobody else needs.
func (s *call) admitHedge(now time.Time) *attempt {
	if s.scanner.InSequence() {
		return nil
	}
	t, h := s.target, new(attempt)
	var err error
	if h.version, err = t.guard.Allow(now, breaker.Sheddable); err != nil {
		return nil
	}
	e, bypass := t.group.pick(now, s.endpoint)
	if e != nil && e != s.endpoint && !bypass {
		h.probe, err = e.breaker.Allow(now)
		if err == nil && t.budget.Take(now) {
			e.inFlight.Add(1)
			h.endpoint = e
			return h
		}
	}
	h.probe.Done(breaker.Result{At: now})
	h.version.Done(breaker.Result{At: now})
	return nil
}

// Dropped settles an attempt that was given up for the one beside it, or with it.
func (d *director) Dropped(c *relay.Call, o relay.Outcome) {
	s := c.Data.(*call)
	s.settle(c, o)
	s.recount(c)
}

// recount tells, in the answer of whichever attempt is left of two, how many were sent:
// one that never found a connection is none.
func (s *call) recount(c *relay.Call) {
	setAttempts(s.dispatch.Answer, c.Attempts())
	if s.hedge != nil {
		setAttempts(s.hedge.dispatch.Answer, c.Attempts())
	}
}

func setAttempts(fields []hpack.HeaderField, n int) { setField(fields, attemptsField, strconv.Itoa(n)) }

func setField(fields []hpack.HeaderField, name, value string) {
	for i := range fields {
		if fields[i].Name == name {
			fields[i].Value = value
		}
	}
}
