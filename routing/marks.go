package routing

import (
	"context"
	"time"
)

// A Marker is a store in which gateways mark, for all to see, what one of them has seen. A store that only one gateway
// uses is none.
type Marker interface {
	// Mark sets bits in the set of a name and reports, for each item, whether any of its bits was not set before. Of
	// gateways that mark one item at the same time, one is told so. The set is forgotten once nobody has marked
	// anything in it for as long as keep. It takes as much memory as its highest bit needs.
	//
	// It fails as stores do, within 2 s; then some of the items may have been marked.
	Mark(ctx context.Context, set string, keep time.Duration, items [][]uint32) (fresh []bool, err error)
}
