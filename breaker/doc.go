// Package breaker decides whether a version, or one of its endpoints, may be called, and learns from
// how the attempts ended.
//
// A [Group] keeps one [Version] per key and, within it, one [Breaker] per endpoint; both outlive
// routing tables. The way of an attempt:
//
//	permit, err := version.Allow(now, priority)  // breaker closed, place free?
//	probe, err := endpoint.Allow(now)            // the endpoint's own breaker
//	ok := budget.Take(now)                       // only for a second attempt that is really sent
//	...                                          // the attempt
//	result := Result{Outcome: version.Classify(attempt), At: ended, Latency: took}
//	probe.Done(result)
//	permit.Done(result)
//
// Whoever got a [Permit] owes exactly one Done, with [Excluded] if nothing came of the attempt: a
// permit holds a place of the in-flight limit and may be the single probe of a half-open breaker. A
// permit is a value and costs no allocation; keep it in one place and do not copy it.
//
// Everything is safe for concurrent use, except that one permit belongs to one goroutine at a time.
// Nothing blocks: locks are held for the time of a few additions, so all of it may be used on a
// connection's reader. There are no goroutines and no timers: an open breaker turns half-open when
// the first call after its time asks.
//
// Time is handed in by the caller, who has read the clock for other reasons already. It must come
// from time.Now: the monotonic reading is used.
package breaker
