package routing

import (
	"sync"
	"sync/atomic"
)

// Router holds the current [Table]. Any number of goroutines may read it; one
// writer publishes. The zero value is not usable, see [NewRouter].
type Router struct {
	current atomic.Pointer[Table]

	mu        sync.Mutex // serialises Publish and Follow
	followers map[*func(*Table)]struct{}
}

// NewRouter returns a Router with an empty table of revision 0, so that readers
// need no special case for the time before the first [Router.Publish].
func NewRouter() *Router {
	r := &Router{followers: make(map[*func(*Table)]struct{})}
	r.current.Store(newTable(nil, 0))
	return r
}

// Current returns the snapshot for one call. Load it once and pass it on: two
// loads may straddle a change and disagree about the weights.
func (r *Router) Current() *Table { return r.current.Load() }

// Follow calls f with the current table now, and with every table published
// later before Publish returns; one call at a time, in order, until the returned
// function is called. f must not call Publish or Follow.
func (r *Router) Follow(f func(*Table)) (unfollow func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := &f
	r.followers[key] = struct{}{}
	f(r.current.Load())
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.followers, key)
	}
}

// Publish makes t the table of all calls that start from now on. Calls that
// loaded the table before keep theirs.
func (r *Router) Publish(t *Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.Store(t)
	for f := range r.followers {
		(*f)(t)
	}
}
