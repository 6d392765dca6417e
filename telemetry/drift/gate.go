package drift

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// gate picks calls by their id, up to a rate. It is on the path of every call: a counter, a comparison, and for
// those that pass another counter.
type gate struct {
	seen      atomic.Uint64 // calls, since the last adjustment
	threshold atomic.Uint64 // hashes up to it pass
	room      atomic.Int64  // calls that may still pass before the next adjustment
}

// wants reports whether to sample a call. Of two gates, the one with the smaller share picks among what the
// other picks, so that versions that get the same calls have the same samples.
func (g *gate) wants(id uint64) bool {
	g.seen.Add(1)
	return mix(id) <= g.threshold.Load() && g.room.Add(-1) >= 0
}

// mix keeps what is sampled here apart from what else is sampled by id.
func mix(id uint64) uint64 {
	hi, lo := bits.Mul64(id^0x9e3779b97f4a7c15, 0xd1342543de82ef95)
	return hi ^ lo
}

// adjust sets the share by which calls pass from the calls since it was last called, seconds ago: what would have
// given the rate. The hard limit of one interval keeps a sudden rush from passing.
func (g *gate) adjust(perSecond, seconds float64) {
	most := perSecond * seconds
	share := most / max(1, float64(g.seen.Swap(0)))
	if share >= 1 {
		g.threshold.Store(math.MaxUint64)
	} else {
		g.threshold.Store(uint64(share * math.MaxUint64))
	}
	g.room.Store(int64(math.Ceil(most)))
}
