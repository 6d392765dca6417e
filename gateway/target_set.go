package gateway

import (
	"hash/maphash"
	"iter"
	"maps"

	"sluice/routing"
)

// targetSet is the targets of a snapshot by their versions. It never changes; the next
// one shares all but the shards in which something is otherwise, so that a change among
// thousands of routes copies a few dozen entries. The zero value is empty.
type targetSet struct {
	shards [targetShards]map[*routing.Version]*target
}

const targetShards = 256

var targetSeed = maphash.MakeSeed()

func shardOf(v *routing.Version) int {
	return int(maphash.Comparable(targetSeed, v) % targetShards)
}

// get returns the target of a version, nil if there is none.
func (s *targetSet) get(v *routing.Version) *target { return s.shards[shardOf(v)][v] }

// all yields the targets in no order.
func (s *targetSet) all() iter.Seq2[*routing.Version, *target] {
	return func(yield func(*routing.Version, *target) bool) {
		for _, shard := range s.shards {
			for v, t := range shard {
				if !yield(v, t) {
					return
				}
			}
		}
	}
}

// without returns a set that lacks the versions of some routes and has others.
func (s *targetSet) without(gone []*routing.Route, added map[*routing.Version]*target) *targetSet {
	next := *s
	var own [targetShards]bool
	shard := func(v *routing.Version) map[*routing.Version]*target {
		i := shardOf(v)
		if !own[i] {
			own[i] = true
			if next.shards[i] = maps.Clone(next.shards[i]); next.shards[i] == nil {
				next.shards[i] = make(map[*routing.Version]*target)
			}
		}
		return next.shards[i]
	}
	for _, r := range gone {
		for _, v := range r.Versions {
			delete(shard(v), v)
		}
	}
	for v, t := range added {
		shard(v)[v] = t
	}
	return &next
}
