package sample

import (
	"context"
	"errors"
	"sync/atomic"
)

// Counters account for the inference calls of a [Server]; a stream is one call.
type Counters struct {
	Begun     uint64 // calls that have reached the server
	Answered  uint64 // ended with OK
	Failed    uint64 // ended with another status of the server's own
	Cancelled uint64 // ended by their deadline, their cancellation or a lost connection
}

// InFlight is the number of calls that have begun and not ended.
func (c Counters) InFlight() uint64 {
	return c.Begun - c.Answered - c.Failed - c.Cancelled
}

// counts is what [Counters] are read from.
type counts struct{ begun, answered, failed, cancelled atomic.Uint64 }

// errGone is why an answer could not be sent: the call was cancelled or its connection is lost. Who sends can
// learn of that before the call's context is done.
var errGone = errors.New("the caller is gone")

// end counts the end of a call with err, once for every count of begun.
func (c *counts) end(ctx context.Context, err error) {
	switch {
	case err == nil:
		c.answered.Add(1)
	case ctx.Err() != nil || errors.Is(err, errGone):
		c.cancelled.Add(1)
	default:
		c.failed.Add(1)
	}
}

// snapshot reads the beginnings last, so that no end is seen without its beginning.
func (c *counts) snapshot() Counters {
	s := Counters{Answered: c.answered.Load(), Failed: c.failed.Load(), Cancelled: c.cancelled.Load()}
	s.Begun = c.begun.Load()
	return s
}
