package gateway

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"sluice/breaker"
	"sluice/gateway/identify"
	"sluice/routing"
	"sluice/shadow/tape"
	"sluice/telemetry"
)

// call is what the director keeps of one call.
type call struct {
	snap    *snapshot // one for the call's whole life, from the moment it is routed
	method  identify.Method
	meta    identify.Metadata
	scanner identify.Scanner

	id           uint64 // random; decides what is sampled, nobody outside sees it
	requestID    string
	modelVersion string // as the caller's messages say it
	route        *routing.Route
	priority     breaker.Priority
	forced       bool    // the caller asked for the version by name
	primary      *target // chosen by the route
	target       *target // asked now: the primary, or a fallback
	step         int     // of the route's fallbacks: the next one to ask
	last         *endpoint
	begun        bool // the budget knows of the call
	repeated     bool // once for free, after an attempt that was not looked at
	retried      bool // on another endpoint of the target
	unreached    int  // endpoints of the target that were out of reach

	endedAt time.Time // when the request was complete, if it was sent before that
	held    int       // this call's part of director.held

	fallbackReason string // why the primary does not answer
	fault          string // the one that has struck the call last
	struck         bool   // the attempt under way, or the one before, is ended by it

	shadows []*shadowed    // of the route that was read first
	copyTo  uint8          // a bit for each of shadows that waits for a copy
	sampled bool           // its data is watched, and a copy was asked for
	tape    *tape.Recorder // that waits for a copy, to keep it in a file

	prediction *prediction // of the attempt under way, if labels are taken for it

	record telemetry.Call
	asked  *target // by the latest attempt

	attempt          // the latest that has none beside it
	inBand  *inBand  // reads its answer, where errors may stand in it
	hedge   *attempt // the one sent beside it, if there was one
}

// calls holds the state of calls that are over: it is worth more than a kilobyte,
// most of it room for names.
var calls = sync.Pool{New: func() any { return new(call) }}

func newCall() *call {
	s := calls.Get().(*call)
	s.id = rand.Uint64()
	return s
}

// free gives s back. Nothing may refer to it any more: the relay is done with a
// call's dispatch when the call is over.
func (s *call) free() {
	s.prediction.free()
	*s = call{} // and keep nothing of the caller's alive
	calls.Put(s)
}

// readMetadata reads what the fields say about the call. What is wrong is returned
// once all have been seen, so that the refusal carries the caller's request id.
func (s *call) readMetadata(fields []hpack.HeaderField) (problem error) {
	for _, f := range fields {
		if err := s.meta.Add(f.Name, f.Value); err != nil && problem == nil {
			problem = err
		}
	}
	if s.requestID = s.meta.RequestID; s.requestID == "" {
		s.requestID = newRequestID()
	}
	return problem
}

// prioritize finds out which class the call belongs to. What its metadata says is the
// caller's word: where it says nothing that is known, the route's default holds.
func (s *call) prioritize(fields []hpack.HeaderField) {
	p := &s.route.Priority
	s.priority, _ = breaker.ParsePriority(p.Default) // the schema accepts no other names
	if p.Metadata == "" {
		return
	}
	if name, ok := identify.Value(fields, p.Metadata); ok && name != "" {
		if class, err := breaker.ParsePriority(name); err == nil {
			s.priority = class
		}
	}
}

// maxHeld bounds the compressed messages that are held back until they are
// complete, over all calls, in bytes. One message may be as long as any.
const maxHeld = 4 * identify.DefaultMaxMessage

// hold accounts for n bytes that the call's scanner holds now; it reports whether
// all calls together stay within their limit.
func (d *director) hold(s *call, n int) bool {
	if n == s.held {
		return true
	}
	total := d.held.Add(int64(n - s.held))
	grown := n > s.held
	s.held = n
	return !grown || total <= maxHeld
}
