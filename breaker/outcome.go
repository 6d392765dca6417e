package breaker

import "time"

// Outcome is what an attempt says about who was called.
type Outcome uint8

// The outcomes.
const (
	// Excluded says nothing: the caller's fault, the caller's impatience or the gateway's own refusal.
	// It is the zero value, so that a result nobody has filled in counts for nothing.
	Excluded Outcome = iota
	// Success is a good answer in good time.
	Success
	// Slow is a good answer that took longer than [Settings].SlowCall.
	Slow
	// Overloaded is a server that has no room just now. It counts towards the failure ratio only: a few
	// in a row are how a busy server defends itself.
	Overloaded
	// Failure is a bad answer, or none.
	Failure
)

var outcomeNames = [...]string{"excluded", "success", "slow", "overloaded", "failure"}

// String returns the outcome's name.
func (o Outcome) String() string { return outcomeNames[o] }

// Result is what a permit's holder reports.
type Result struct {
	// Outcome is how the attempt ended; see [Classify].
	Outcome Outcome
	// At is when it ended.
	At time.Time
	// Latency is how long a good answer took. 0 means that it says nothing about the next call's, as
	// with streams: it is kept out of [Version.P95].
	Latency time.Duration
	// RequestID names the call, to be shown as a sample if this result opens the breaker.
	RequestID string
}
