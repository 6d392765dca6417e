package breaker

import (
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
)

const (
	// adaptiveStart is the limit an adaptive limiter begins with. It moves by one to three at a time, so
	// beginning at one would refuse most calls of a busy version for its first seconds.
	adaptiveStart = 100
	// adaptiveStep is how often the limit moves at most; it takes fifty answers, too. The library's own
	// second takes a minute and a half from the start to a version that bears ten calls at once.
	adaptiveStep = 250 * time.Millisecond
	// adaptiveBaseline is how many steps the latency is remembered for that is taken for normal: ten
	// seconds, as with the library's own values.
	adaptiveBaseline = 40
	// adaptiveTrend is how many steps it is looked back to see whether more calls at once bring more
	// answers. With the library's 50, a limit that has come down goes on down to one, by what was true
	// while it was far too high.
	adaptiveTrend = 10
)

// adaptive finds, by the trend of latencies, how many attempts a version can work on at once without
// queueing them. Of failsafe-go's limiter, only the way that never waits is used. Each place costs an
// allocation: the price of the option, not of the plain path.
type adaptive struct {
	limiter adaptivelimiter.AdaptiveLimiter[struct{}]
}

func newAdaptive(most int) *adaptive {
	return &adaptive{adaptivelimiter.NewBuilder[struct{}]().
		WithLimits(1, uint(most), uint(min(adaptiveStart, most))).
		WithRecentWindow(adaptiveStep, 30*time.Second, 50).
		WithBaselineWindow(adaptiveBaseline).WithCorrelationWindow(adaptiveTrend).Build()}
}

// acquire takes a place or says why not. Critical calls go past a limit that is an estimate: they get
// no place, and there is nothing to give back.
func (a *adaptive) acquire(p Priority) (adaptivelimiter.Permit, error) {
	if p == Sheddable {
		if n := int64(a.limiter.Limit()); int64(a.limiter.Inflight()) >= p.share(n, 0) {
			return nil, ErrShed
		}
	}
	permit, ok := a.limiter.TryAcquirePermit()
	if !ok && p != Critical {
		return nil, ErrFull
	}
	if !ok {
		return nil, nil
	}
	return permit, nil
}

// release gives a place back. Only good answers tell how long the server takes: errors can be fast
// because nothing was done, and slow because nobody was there.
func release(permit adaptivelimiter.Permit, o Outcome) {
	switch {
	case permit == nil:
	case o == Success || o == Slow:
		permit.Record()
	default:
		permit.Drop()
	}
}
