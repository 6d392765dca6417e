// Package incident keeps track of the times in which a model was in trouble.
//
// A [Tracker] is told of troubles as they begin and end (a breaker that opens, an error budget
// that burns, an operator who rolls back), and of what happens meanwhile. From the first trouble
// of a model to the last, there is one incident. Gateways that share a store share their
// incidents: whoever sees trouble first opens one, the others join it, and it is over when
// none of them has seen trouble for a while.
//
// Nothing here is on the path of a call. Telling never blocks; what finds no room is
// counted. While the store is out of reach, what is to be written waits.
package incident
