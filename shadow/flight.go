package shadow

import (
	"sync"
	"time"

	"sluice/shadow/client"
)

// flight is a copy on its way: a call of the client's, and what it owes.
type flight struct {
	client.Call
	job
	settle func(Attempt)
	span   Span // nil without traces
	until  time.Time
	again  bool // it has been started a second time

	before, after *flight // in the order of their ends
}

// largeBuffer is the most that a flight keeps for the next one, in bytes of request or
// answer.
const largeBuffer = 1 << 20

var pool = sync.Pool{New: func() any { return new(flight) }}

// flightOf returns the flight whose call it is.
func flightOf(k *client.Call) *flight { return k.Owner.(*flight) }

// newFlight returns a flight with nothing in it but buffers.
func newFlight(j job) *flight {
	f := pool.Get().(*flight)
	f.job, f.Owner = j, f
	return f
}

// free gives the flight back. Nobody may refer to it any more.
func (f *flight) free() {
	clear(f.Fields)
	fields, body, answer := f.Fields[:0], f.Body[:0], f.Answer[:0]
	*f = flight{}
	f.Fields = fields
	if cap(body) <= largeBuffer {
		f.Body = body
	}
	if cap(answer) <= largeBuffer {
		f.Answer = answer
	}
	pool.Put(f)
}

// flights are those under way, in the order in which their time is over: all have the
// same, so that this is the order in which they began. The zero value is empty.
type flights struct{ first, last *flight }

func (l *flights) add(f *flight) {
	f.before, f.after = l.last, nil
	if l.last != nil {
		l.last.after = f
	} else {
		l.first = f
	}
	l.last = f
}

func (l *flights) remove(f *flight) {
	if f.before != nil {
		f.before.after = f.after
	} else {
		l.first = f.after
	}
	if f.after != nil {
		f.after.before = f.before
	} else {
		l.last = f.before
	}
	f.before, f.after = nil, nil
}
