package relay

import (
	"cmp"
	"slices"
)

// evict wakes the sweeper because a limit on buffered bytes is exceeded.
func (r *Relay) evict() {
	select {
	case r.evictions <- struct{}{}:
	default: // it is already awake
	}
}

// victim is a call with buffered bytes.
type victim struct {
	call  *Call
	since int64 // of its last progress, see Relay.since
	bytes int64
}

// evictSome ends the calls longest without progress until every limit holds.
func (r *Relay) evictSome(w *worker) {
	var all []victim
	for _, c := range r.snapshot() {
		c.mu.Lock()
		over := c.buffered - r.cfg.BufferedPerConn
		if over <= 0 && !r.buffers.over() {
			c.mu.Unlock()
			continue
		}
		var here []victim
		for _, s := range c.streams {
			if s.queue.charged > 0 {
				here = append(here, victim{s.call, s.call.progressAt.Load(), int64(s.queue.charged)})
			}
		}
		c.mu.Unlock()
		if over > 0 {
			here = evictBytes(w, here, over)
		}
		all = append(all, here...)
	}
	if over := r.buffers.used.Load() - r.buffers.limit; over > 0 {
		evictBytes(w, all, over)
	}
}

// evictBytes ends calls, oldest progress first, until n bytes are free. It
// returns those that may stay.
func evictBytes(w *worker, v []victim, n int64) []victim {
	slices.SortFunc(v, func(a, b victim) int { return cmp.Compare(a.since, b.since) })
	for len(v) > 0 && n > 0 {
		v[0].call.evicted(w)
		n -= v[0].bytes
		v = v[1:]
	}
	return v
}
