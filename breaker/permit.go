package breaker

import (
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
)

// Permit is the right to one attempt. Its holder owes exactly one [Permit.Done]. The zero Permit is
// one that is already settled, so a holder may settle on every path without asking whether it got one.
//
// Only the address of a permit is told from another's: a copy that is settled too gives a place back
// twice.
type Permit struct {
	breaker *Breaker
	version *Version // whose place it holds; nil for an endpoint's permit
	// adaptive is the place in the version's adaptive limiter, nil without one.
	adaptive   adaptivelimiter.Permit
	generation uint64
	role       role
	settled    bool
}

// role is what a result will be used for.
type role uint8

const (
	counted  role = iota // in the window of a closed breaker
	probe                // to decide a half-open one
	unjudged             // for nothing: admitted although the breaker would not have
)

// Held reports whether Done is still owed.
func (p *Permit) Held() bool { return p.breaker != nil && !p.settled }

// Done settles the permit. A second call does nothing but add to [Status].Repeated; a result from
// before the breaker last changed its state does nothing but add to [Status].Stale.
func (p *Permit) Done(r Result) {
	switch {
	case p.breaker == nil:
		return
	case p.settled:
		p.breaker.repeated.Add(1)
		return
	}
	p.settled = true
	if p.version != nil {
		p.version.release(p, r)
	}
	p.breaker.settle(p, r)
}

// Answering tells that a long answer has begun well. If the permit is a breaker's probe, that decides
// it now: a stream may go on for hours, and nobody else is let through until the probe is over. Done is
// still owed; for such a probe it no longer says anything about the server.
func (p *Permit) Answering(now time.Time) {
	if p.role != probe || !p.Held() {
		return
	}
	p.breaker.settle(p, Result{Outcome: Success, At: now})
	p.role = unjudged
}

// Failing tells that a long answer has gone bad while it goes on, with what a client can read in it.
// It counts now, as r says; Done is still owed and adds nothing to that.
func (p *Permit) Failing(r Result) {
	if !p.Held() || p.role == unjudged {
		return
	}
	p.breaker.settle(p, r)
	p.role = unjudged
}
