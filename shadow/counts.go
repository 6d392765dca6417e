package shadow

import (
	"strconv"
	"sync/atomic"
)

// Reason is why a copy was not sent, or brought no answer.
type Reason uint8

// The reasons. Copies with those up to Failed were dropped, nothing of them was sent;
// the others were sent and failed.
const (
	RateLimit    Reason = iota // more calls per second than the route says
	Shedding                   // the version that answers the caller has hardly a place left
	QueueFull                  // too many copies wait
	QueueBytes                 // the copies that wait and those under way take too much memory
	BreakerOpen                // the shadow's breaker
	TooLarge                   // the call was larger than what is copied, or is so uncompressed
	Ended                      // the call ended without an answer that could be compared
	Itself                     // the shadow's version has answered the caller
	Sequence                   // a request of a sequence
	SharedMemory               // the request names memory that its caller shares with the server
	Encoding                   // compressed in a way that is not known here, or not at all as it says
	Rename                     // the request cannot be renamed as the version wants it
	NoEndpoint                 // the version has none
	Closed                     // the mirror is gone
	numDropped
)

// Reasons of failure.
const (
	Deadline    = numDropped + iota // the shadow did not answer in time
	Unreachable                     // no connection could be had, or it was lost
	numReasons
)

var reasonNames = [numReasons]string{"rate", "shedding", "queue_full", "queue_bytes", "breaker_open", "too_large", "ended", "itself",
	"sequence", "shared_memory", "encoding", "rename", "no_endpoint", "closed", "deadline", "unreachable"}

// String returns the reason's name, as metrics and tables show it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// Counts tell what became of the copies that were asked for. Once none is under way,
// Offered = Answered + all Dropped + all Failed, exactly.
type Counts struct {
	Offered  uint64
	Answered uint64 // by the shadow, with whatever status
	Dropped  map[Reason]uint64
	Failed   map[Reason]uint64
}

// Pending is how many copies are neither answered nor given up yet.
func (c Counts) Pending() uint64 {
	n := c.Offered - c.Answered
	for _, v := range c.Dropped {
		n -= v
	}
	for _, v := range c.Failed {
		n -= v
	}
	return n
}

type counters struct {
	offered, answered atomic.Uint64
	by                [numReasons]atomic.Uint64
}

// read reads Offered last: nothing is ever counted as ended that was not offered.
func (c *counters) read() Counts {
	all := Counts{Dropped: make(map[Reason]uint64), Failed: make(map[Reason]uint64)}
	for r := range numReasons {
		n := c.by[r].Load()
		switch {
		case n == 0:
		case r < numDropped:
			all.Dropped[r] = n
		default:
			all.Failed[r] = n
		}
	}
	all.Answered = c.answered.Load()
	all.Offered = c.offered.Load()
	return all
}
