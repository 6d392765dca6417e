// Package shadow sends copies of calls to versions whose answers nobody sees, and
// says how those answers differ from the ones the callers got.
//
// A [Mirror] belongs to one shadow version. The way of a copy:
//
//	if m.Admit(now) {      // a sampled call begins: is a copy wanted at all?
//		...                // the call is relayed, and its messages are copied
//		m.Offer(copy)      // it is over; or m.Withdraw(reason)
//	}
//
// None of the three blocks, and they may be called from anywhere. Whoever was
// admitted owes one Offer or one Withdraw. A copy that is offered waits in a queue
// with a bound, or is dropped and counted; workers send it, at most so many at once,
// over connections of the mirror's own, with its own deadline and behind its own
// breaker. Nothing of that can reach a caller: by the time a copy is offered its
// call is over.
//
// Every copy that was asked for ends in exactly one count: see [Counts].
package shadow
