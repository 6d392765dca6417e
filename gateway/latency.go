package gateway

import (
	"math"
	"sync"
	"time"
)

const (
	// latencyDecay is the time constant with which a peak fades (Finagle's
	// default for peak-EWMA).
	latencyDecay = 10 * time.Second
	// unknownCost is the latency assumed of an endpoint without answers while a
	// call is under way there: it is tried at once, but by one call at a time.
	unknownCost = time.Second
	// failurePenalty is the least cost of an endpoint right after a failure: fast
	// errors must not attract calls.
	failurePenalty = time.Second
)

// peakEWMA is a latency that jumps up to a peak at once and decays from it
// exponentially, so that an endpoint which turns slow is left alone soon.
// Safe for concurrent use.
type peakEWMA struct {
	mu    sync.Mutex
	cost  float64 // seconds
	at    time.Time
	known bool
}

// observe adds one attempt's latency.
func (e *peakEWMA) observe(now time.Time, d time.Duration, failed bool) {
	s := d.Seconds()
	e.mu.Lock()
	defer e.mu.Unlock()
	if failed {
		s = max(s, failurePenalty.Seconds())
	}
	if !e.known || s > e.cost {
		// The first answer ends the assumption about an unknown endpoint.
		e.cost, e.known = s, true
	} else {
		w := math.Exp(-now.Sub(e.at).Seconds() / latencyDecay.Seconds())
		e.cost = e.cost*w + s*(1-w)
	}
	e.at = now
}

// read returns the cost now, in seconds: it decays while nothing is observed, so
// that an endpoint avoided for a peak is tried again. known is false before the
// first observation.
func (e *peakEWMA) read(now time.Time) (cost float64, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.known {
		return 0, false
	}
	return e.cost * math.Exp(-now.Sub(e.at).Seconds()/latencyDecay.Seconds()), true
}
