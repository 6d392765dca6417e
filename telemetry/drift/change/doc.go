// Package change finds, in a stream of outcomes, the moment from which on things go worse.
//
// A detector is told one outcome after the other and says when to raise an alarm. It keeps a bounded number of
// values, whatever the length of the stream. A detector belongs to one goroutine at a time.
package change
