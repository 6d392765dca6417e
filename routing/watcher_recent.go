package routing

import (
	"slices"

	"google.golang.org/protobuf/proto"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Bounds of the changes a [Watcher] remembers, to say what a store has lost: far
// more than a failover loses.
const (
	maxRecent      = 100
	maxRecentBytes = 4 << 20
)

// ring holds the changes published last.
type ring struct {
	changes []*routingv1.Change // oldest first
	bytes   int                 // encoded
}

func (r *ring) add(c *routingv1.Change) {
	r.changes = append(r.changes, c)
	r.bytes += proto.Size(c)
	for len(r.changes) > maxRecent || r.bytes > maxRecentBytes && len(r.changes) > 1 {
		r.bytes -= proto.Size(r.changes[0])
		r.changes[0] = nil
		r.changes = r.changes[1:]
	}
}

// all returns the changes, the oldest first, in a slice of the caller's own.
func (r *ring) all() []*routingv1.Change { return slices.Clone(r.changes) }
