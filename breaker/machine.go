package breaker

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

// What the machine is told; nil is a success.
var (
	errBad      = errors.New("bad result")
	errExcluded = errors.New("no result")
)

// newMachine makes a closed machine that, once it opens, stays open for the time that is due by the
// number of open periods so far. That time is fixed when a machine is made, hence one per period.
func (b *Breaker) newMachine() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	b.openTime = b.nextOpenTime()
	b.reached = Closed
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1, // one probe
		Interval:    0, // see window
		// The machine opens its door after its time, not at it, and a Timeout of 0 means a minute.
		Timeout:      max(b.openTime-1, 1),
		ReadyToTrip:  func(gobreaker.Counts) bool { return b.mustOpen() },
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   func(err error) bool { return errors.Is(err, errExcluded) },
		// Called with the machine's lock and b.mu held, when its counts are already cleared: it only
		// leaves a note, and the window knows the counts.
		OnStateChange: func(_ string, _, to gobreaker.State) { b.reached = stateOf(to) },
	})
}

func stateOf(s gobreaker.State) State {
	switch s {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	case gobreaker.StateClosed:
	}
	return Closed
}

// nextOpenTime doubles with every failed probe. The random part is within MaxOpenFor too: gateways
// that have come that far have drifted apart before.
func (b *Breaker) nextOpenTime() time.Duration {
	d := b.settings.OpenFor
	for range b.openings {
		if d >= b.settings.MaxOpenFor/2 {
			return b.settings.MaxOpenFor
		}
		d *= 2
	}
	return min(d+time.Duration(float64(d)*b.stretch()), b.settings.MaxOpenFor)
}

// report tells the closed machine of a result that was not good, and reports whether that opened it.
// Slow answers and overloads are bad results here: whether they matter is decided in mustOpen.
func (b *Breaker) report() bool {
	done, err := b.machine.Allow()
	if err == nil { // closed machines refuse nothing
		done(errBad)
	}
	return b.reached == Open
}

// mustOpen is the machine's ReadyToTrip.
func (b *Breaker) mustOpen() bool {
	if b.limit != CauseProbeFailed {
		b.limit = b.limitReached()
	}
	return b.limit != CauseNew
}

// limitReached names the limit that the window has reached, or CauseNew.
func (b *Breaker) limitReached() Cause {
	s, t := &b.settings, &b.window.total
	switch calls := float64(t.calls); {
	case b.row >= s.Consecutive:
		return CauseConsecutive
	case t.calls < s.MinCalls:
	case float64(t.failures+t.overloaded) >= s.FailureRatio*calls:
		return CauseFailureRatio
	case s.SlowCall > 0 && float64(t.slow) >= s.SlowRatio*calls:
		return CauseSlowRatio
	}
	return CauseNew
}
