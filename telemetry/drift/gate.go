package drift

import (
	"math"
	"sync/atomic"
)

// gate picks calls by their id, which is drawn at random: the lowest first, as shadows, kept calls and traces do, so
// that whoever looks closely at few calls looks at the same. Up to a rate. It is on the path of every call: a counter, a comparison, and for
// those that pass another counter.
type gate struct {
	seen      atomic.Uint64 // calls, since the last adjustment
	threshold atomic.Uint64 // ids up to it pass
	room      atomic.Int64  // calls that may still pass before the next adjustment
}

// wants reports whether to sample a call. Of two gates, the one with the smaller share picks among what the
// other picks, so that versions that get the same calls have the same samples.
func (g *gate) wants(id uint64) bool {
	g.seen.Add(1)
	return id <= g.threshold.Load() && g.room.Add(-1) >= 0
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
