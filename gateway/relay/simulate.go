package relay

import "golang.org/x/net/http2"

// A Simulation is how an attempt ends without having been sent, as if its upstream
// had ended it so.
type Simulation struct {
	// Kind is Answered, for a status in trailers alone, or Reset.
	Kind OutcomeKind
	// Code is the gRPC status code of an Answered one. That of a Reset follows from
	// what it stands for, an INTERNAL_ERROR.
	Code uint32
	// Message goes with the code.
	Message string
}

// launch sends an attempt, or ends it as its dispatch says. c.mu is held.
func (c *Call) launch(w *worker, a *attempt) (o Outcome, failed bool) {
	sim := a.d.Simulate
	if sim == nil {
		return c.place(w, a)
	}
	c.attempts++ // it stands for one that was sent
	o = c.outcome(w, a, sim.Kind, sim.Code, sim.Message)
	if sim.Kind == Reset {
		o.Code, o.Reset = resetToCode(http2.ErrCodeInternal), http2.ErrCodeInternal
	} else {
		o.FirstByte = w.now
	}
	return o, true
}

// resume launches an attempt that was postponed, if it is time. c.mu is held.
func (c *Call) resume(w *worker) {
	a := c.att
	if a == nil || !a.later || w.now.Before(a.d.NotBefore) {
		return
	}
	a.later = false
	if o, failed := c.launch(w, a); failed {
		c.failed(w, a, o)
	}
}
