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
	// unknownCost is the latency assumed of an endpoint that has not answered yet,
	// once there is a call that will tell (Finagle's default).
	unknownCost = time.Second
	// failurePenalty is the least cost of an endpoint right after a failure: fast
	// errors must not attract calls.
	failurePenalty = time.Second
)

// peakEWMA is a latency that jumps up to a peak at once and decays from it
// exponentially, so that an endpoint which turns slow is left alone soon. The
// zero value is a latency of which nothing is known. Safe for concurrent use.
type peakEWMA struct {
	mu    sync.Mutex
	cost  float64   // seconds, as of at
	at    time.Time // zero: never asked
	known bool      // cost was measured
}

// answered adds the latency of a good answer. The first one ends what was assumed.
func (e *peakEWMA) answered(now time.Time, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, w := d.Seconds(), e.weight(now)
	if !e.known || s > e.cost*w {
		e.set(now, s, true)
		return
	}
	e.set(now, e.cost*w+s*(1-w), true)
}

// failed adds a failure that took d.
func (e *peakEWMA) failed(now time.Time, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set(now, max(d.Seconds(), failurePenalty.Seconds(), e.cost*e.weight(now)), true)
}

// tookAtLeast raises the latency to d if it is below; it never lowers it.
func (e *peakEWMA) tookAtLeast(now time.Time, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.at.IsZero():
		e.set(now, max(d, unknownCost).Seconds(), false)
	case d.Seconds() > e.cost*e.weight(now):
		e.set(now, d.Seconds(), e.known)
	}
}

// forget makes everything unknown again.
func (e *peakEWMA) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.set(time.Time{}, 0, false)
}

// load is the expected latency times the calls that would share it, in seconds. It
// decays while nothing is observed, so that an endpoint avoided for a peak is tried
// again. An endpoint never asked costs nothing until it has one call, which tries
// it, and then much: it is tried at once, but not by everybody.
func (e *peakEWMA) load(now time.Time, inFlight int64) float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	cost := e.cost * e.weight(now)
	if e.at.IsZero() {
		if inFlight == 0 {
			return 0
		}
		cost = unknownCost.Seconds()
	}
	return cost * float64(inFlight+1)
}

// weight is what is left of cost now. Clocks of two readers differ a little.
func (e *peakEWMA) weight(now time.Time) float64 {
	x := float64(max(0, now.Sub(e.at))) / float64(latencyDecay)
	if x < smallAge {
		return 1 - x + x*x/2
	}
	return math.Exp(-x)
}

// smallAge is up to which age, in units of latencyDecay, the first terms of the exponential
// series do: what they leave out is less than its cube. Most endpoints are called more often
// than every 10 ms.
const smallAge = 1e-3

func (e *peakEWMA) set(now time.Time, cost float64, known bool) {
	e.cost, e.at, e.known = cost, now, known
}
