package breaker

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
)

// The reasons for which a limit refuses. ErrShed is ErrFull as well, for errors.Is.
var (
	// ErrFull: as many attempts as may be are under way.
	ErrFull = errors.New("in-flight limit reached")
	// ErrShed: the places left are for calls of a higher priority.
	ErrShed = fmt.Errorf("%w for this priority", ErrFull)
)

// DefaultInFlight is the number of attempts that may be under way at a version whose route says
// nothing else.
const DefaultInFlight = 1024

// Limits bounds what a version is asked to do at once.
type Limits struct {
	// InFlight is the number of attempts that may be under way; 0 means DefaultInFlight.
	InFlight int
	// Reserve is the number of places among them that only Critical calls may take.
	Reserve int
	// Adaptive lowers the limit further while latency shows that calls queue up in the server.
	Adaptive bool
}

func (l Limits) withDefaults() Limits {
	fill(&l.InFlight, DefaultInFlight)
	l.Reserve = min(max(l.Reserve, 0), l.InFlight-1)
	return l
}

// limit counts attempts under way.
type limit struct {
	inFlight   atomic.Int64
	most       atomic.Int64
	reserve    atomic.Int64
	adaptive   atomic.Pointer[adaptive] // nil without one
	full, shed atomic.Uint64
}

// update changes the limits. Attempts under way keep their places; an adaptive limit keeps what it has
// learned as long as InFlight is the same.
func (l *limit) update(cfg Limits) {
	old := l.most.Swap(int64(cfg.InFlight))
	l.reserve.Store(int64(cfg.Reserve))
	switch a := l.adaptive.Load(); {
	case !cfg.Adaptive:
		l.adaptive.Store(nil)
	case a == nil || old != int64(cfg.InFlight):
		l.adaptive.Store(newAdaptive(cfg.InFlight))
	}
}

// acquire takes a place or says why not. With an adaptive limit, the place there has to be given back
// too.
func (l *limit) acquire(p Priority) (adaptivelimiter.Permit, error) {
	most := l.most.Load()
	allowed := p.share(most, l.reserve.Load())
	for {
		n := l.inFlight.Load()
		if n >= allowed {
			return nil, l.refuse(n < most)
		}
		if l.inFlight.CompareAndSwap(n, n+1) {
			break
		}
	}
	a := l.adaptive.Load()
	if a == nil {
		return nil, nil
	}
	permit, err := a.acquire(p)
	if err != nil {
		l.release()
		return nil, l.refuse(errors.Is(err, ErrShed))
	}
	return permit, nil
}

// crowded reports whether sheddable calls are refused now, as far as the fixed limit
// goes.
func (l *limit) crowded() bool {
	return l.inFlight.Load() >= Sheddable.share(l.most.Load(), l.reserve.Load())
}

func (l *limit) release() { l.inFlight.Add(-1) }

func (l *limit) refuse(shed bool) error {
	if shed {
		l.shed.Add(1)
		return ErrShed
	}
	l.full.Add(1)
	return ErrFull
}

// now is the limit in force.
func (l *limit) now() int {
	most := int(l.most.Load())
	if a := l.adaptive.Load(); a != nil {
		return min(a.limiter.Limit(), most)
	}
	return most
}
