package gateway

import (
	"sync/atomic"
	"time"

	"sluice/breaker"
	"sluice/gateway/health"
	"sluice/gateway/relay"
)

// endpoint is one address of a version.
type endpoint struct {
	addr     string // the address dialled
	host     string // names the server for TLS
	up       *relay.Upstream
	inFlight atomic.Int64
	retired  atomic.Bool // no longer in its group
	latency  peakEWMA
	breaker  *breaker.Breaker

	watch     atomic.Pointer[health.Watch] // nil if nobody asks how it is
	unhealthy atomic.Bool                  // by its own word, or for it does not answer
	back      atomic.Int64                 // when it last came back, as Unix time in nanoseconds
}

// load is what power-of-two choices compare.
func (e *endpoint) load(now time.Time) float64 {
	return e.latency.load(now, e.inFlight.Load())
}

// loadFor is load as it would be if the endpoint had its full share.
func (e *endpoint) loadFor(share float64, now time.Time) float64 {
	return e.latency.load(now, int64(float64(e.inFlight.Load())/share))
}

// ejected reports whether the endpoint is to get no calls: it is unhealthy, or its
// breaker is open.
func (e *endpoint) ejected(now time.Time) bool {
	return e.unhealthy.Load() || !e.breaker.Ready(now)
}

// usable reports whether calls can be sent to an endpoint, as far as is known.
func usable(e, avoid *endpoint) bool {
	return e != avoid && !e.breaker.Forced() && !e.up.Failing()
}

// ready reports whether the endpoint can be reached and is not ejected.
func (e *endpoint) ready(now time.Time, avoid *endpoint) bool {
	return usable(e, avoid) && !e.ejected(now)
}

// returned begins the endpoint anew: what was known of its latency is from before it
// was gone, and its share grows slowly.
func (e *endpoint) returned(now time.Time) {
	e.latency.forget()
	e.back.Store(now.UnixNano())
}

// noteBreaker looks at the breaker after a result; wasIn is what it said before. That it
// wants another probe, the last one having told nothing, is no return.
func (e *endpoint) noteBreaker(wasIn bool, now time.Time) {
	if !wasIn && e.breaker.Ready(now) && !e.breaker.ProbeDue(now) {
		e.returned(now)
	}
}

// answered tells whoever asks for the endpoint's health that it answers calls.
func (e *endpoint) answered(now time.Time) {
	if w := e.watch.Load(); w != nil {
		w.Answered(now)
	}
}

// minShare is the part of its share that an endpoint has when it comes back: enough to
// find out how it does.
const minShare = 0.1

// share is the part of its full share that an endpoint gets now, from minShare when it
// has just come back to 1 when slowStart has passed.
func (e *endpoint) share(now time.Time, slowStart time.Duration) float64 {
	back := max(e.back.Load(), e.up.Recovered())
	since := time.Duration(now.UnixNano() - back)
	if back == 0 || since >= slowStart || since < 0 {
		return 1
	}
	return max(minShare, since.Seconds()/slowStart.Seconds())
}
