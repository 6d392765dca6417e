package breaker

import (
	"sync/atomic"
	"time"
)

// A route's second attempts (retries, fallbacks, hedges) are at most a tenth of its calls plus five a
// second: enough to hide a failing version from its callers, too little to make a dead one's fate
// worse. Ten may be saved up.
const (
	budgetPerSecond = 5
	budgetCalls     = 10 // calls that earn a second attempt
	budgetBurst     = 10

	attemptCost = time.Second / budgetPerSecond
	callEarns   = attemptCost / budgetCalls
	budgetFull  = budgetBurst * attemptCost
)

// Budget is what a route may spend on second attempts. It is a token bucket kept in one number: the
// time since which it has been filling. Tokens are therefore time, counted in nanoseconds without
// rounding, and need neither a lock nor a clock.
type Budget struct {
	start time.Time
	empty atomic.Int64 // when it was empty, in ns after start; a token later per attemptCost
	taken atomic.Uint64
	short atomic.Uint64
}

// NewBudget returns a budget that is full.
func NewBudget(now time.Time) *Budget {
	b := &Budget{start: now}
	b.empty.Store(-int64(budgetFull))
	return b
}

// Call earns a tenth of an attempt. Call it for each call, with its first attempt. A full budget is
// only read.
func (b *Budget) Call(now time.Time) {
	// The bucket would be full if it had begun to fill at this time.
	full := int64(now.Sub(b.start) - budgetFull)
	for {
		empty := b.empty.Load()
		if empty <= full {
			return
		}
		if b.empty.CompareAndSwap(empty, empty-int64(callEarns)) {
			return
		}
	}
}

// Take pays for a second attempt, or reports that there is nothing left. Ask last, when the attempt
// can really be made: nothing is given back.
func (b *Budget) Take(now time.Time) bool {
	at := now.Sub(b.start)
	full := int64(at - budgetFull)
	for {
		empty := b.empty.Load()
		after := max(empty, full) + int64(attemptCost)
		if after > int64(at) {
			b.short.Add(1)
			return false
		}
		if b.empty.CompareAndSwap(empty, after) {
			b.taken.Add(1)
			return true
		}
	}
}

// BudgetStatus is a budget at one moment.
type BudgetStatus struct {
	// Left is the number of second attempts that could be made now.
	Left float64
	// Taken and Short are the numbers of second attempts made, and of those there was nothing left for.
	Taken, Short uint64
}

// Status returns what can be said about the budget now.
func (b *Budget) Status(now time.Time) BudgetStatus {
	at := now.Sub(b.start)
	left := at - time.Duration(max(b.empty.Load(), int64(at-budgetFull)))
	return BudgetStatus{
		Left:  max(float64(left)/float64(attemptCost), 0),
		Taken: b.taken.Load(), Short: b.short.Load(),
	}
}
