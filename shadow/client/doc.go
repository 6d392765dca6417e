// Package client makes gRPC calls whose requests are known whole, for those who do
// not wait for the answers: copies of calls, of which there are many and which must
// cost little.
//
// It knows nothing of messages. A request is the bytes that gRPC puts into DATA frames,
// and so is an answer, so that unary calls and streams are the same. One connection
// per address carries all calls; it has a goroutine that reads and one that writes what
// has been queued meanwhile, in one piece. Calls have none, and no timers: whoever
// started them cancels those that take too long.
package client
