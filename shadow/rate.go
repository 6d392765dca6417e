package shadow

import (
	"sync"
	"time"
)

// rateLimit is a token bucket that holds the tokens of one second, and at least one.
type rateLimit struct {
	mu     sync.Mutex
	tokens float64
	last   time.Time // zero: it has never been asked, and is full
}

// take takes one of the tokens that come at rate per second.
func (l *rateLimit) take(now time.Time, rate float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := max(rate, 1)
	if l.last.IsZero() {
		l.tokens = most
	} else if d := now.Sub(l.last); d > 0 {
		l.tokens = min(most, l.tokens+d.Seconds()*rate)
	}
	if now.After(l.last) {
		l.last = now
	}
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}
