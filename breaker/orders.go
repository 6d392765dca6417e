package breaker

import "time"

// ForceOpen cuts off until [Breaker.Reset], whatever the results, also in a dry run.
func (b *Breaker) ForceOpen(now time.Time) {
	b.mu.Lock()
	if !condition(b.condition.Load()).forced() {
		b.dropProbe()
		b.enter(Open, CauseForced, now, "")
	}
	b.mu.Unlock()
	b.events.deliver()
}

// Reset closes the breaker and forgets what it has counted.
func (b *Breaker) Reset(now time.Time) {
	b.mu.Lock()
	b.dropProbe()
	b.openings = 0
	b.restart()
	if condition(b.condition.Load()).state() != Closed {
		b.enter(Closed, CauseReset, now, "")
	} else {
		b.publish(Closed, false) // calls under way belong to what is forgotten
	}
	b.mu.Unlock()
	b.events.deliver()
}

// obey follows a standing order where it has changed.
func (b *Breaker) obey(before, after bool, now time.Time) {
	switch {
	case after && !before:
		b.ForceOpen(now)
	case before && !after:
		b.Reset(now)
	}
}

// Forced reports whether an operator has opened the breaker. It costs one load.
func (b *Breaker) Forced() bool { return condition(b.condition.Load()).forced() }

// update changes the settings and keeps the state. An open time that has begun is not changed.
func (b *Breaker) update(s Settings) {
	s = s.withDefaults()
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == b.settings {
		return
	}
	b.settings = s
	c := condition(b.condition.Load())
	if c.state() == Closed {
		b.machine = b.newMachine() // with the new open time
	}
	b.store(c.state(), c.forced(), c.generation())
}
