package routing

import (
	"hash/maphash"
	"iter"
	"maps"
)

// shards holds routes by model, in pieces of which none ever changes. Tables that follow
// one another share all pieces but those in which something is otherwise: a change of one
// route among thousands copies a few dozen entries, and comparing two tables compares
// hardly more. The zero value is empty.
type shards [shardCount]*map[string]*Route

// shardCount makes pieces of 40 routes where there are 10,000, and takes 2 KiB itself.
const shardCount = 256

var shardSeed = maphash.MakeSeed()

// get returns the route of a model, nil if there is none.
func (s *shards) get(model string) *Route {
	if m := s[maphash.String(shardSeed, model)%shardCount]; m != nil {
		return (*m)[model]
	}
	return nil
}

// getBytes is get for a name in a buffer; it does not allocate.
func (s *shards) getBytes(model []byte) *Route {
	if m := s[maphash.Bytes(shardSeed, model)%shardCount]; m != nil {
		return (*m)[string(model)]
	}
	return nil
}

// with returns shards in which some routes are others, or gone where nil.
func (s *shards) with(changed map[string]*Route) shards {
	next := *s
	for model, r := range changed {
		i := maphash.String(shardSeed, model) % shardCount
		if next[i] == s[i] {
			own := make(map[string]*Route)
			if s[i] != nil {
				own = maps.Clone(*s[i])
			}
			next[i] = &own
		}
		if r == nil {
			delete(*next[i], model)
		} else {
			(*next[i])[model] = r
		}
	}
	return next
}

// differing yields the models that two of them have other routes for, in no order.
func (s *shards) differing(from *shards) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, now := range s {
			was := from[i]
			if now == was {
				continue
			}
			if now == nil {
				now = new(map[string]*Route)
			}
			if was == nil {
				was = new(map[string]*Route)
			}
			for model, r := range *now {
				if (*was)[model] != r && !yield(model) {
					return
				}
			}
			for model := range *was {
				if (*now)[model] == nil && !yield(model) {
					return
				}
			}
		}
	}
}
