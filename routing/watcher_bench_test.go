package routing

import (
	"fmt"
	"log/slog"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// BenchmarkApply is one change of one route, from its arrival to the table that
// calls see.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			w := NewWatcher(WatcherConfig{Router: NewRouter(), Logger: slog.New(slog.DiscardHandler)})
			routes, _ := benchRoutes(n)
			change := func(docs ...*routingv1.Route) *routingv1.Change {
				u := &Update{Expected: w.local.Revision, Set: docs, Actor: "bench"}
				c, err := u.Prepare(w.local, w.local.Time)
				if err != nil {
					b.Fatal(err)
				}
				return c
			}
			if err := w.apply(change(routes...)); err != nil {
				b.Fatal(err)
			}
			weight := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				weight++
				routes[n/2].Weights["v1"] = weight
				c := change(routes[n/2])
				b.StartTimer()
				if err := w.apply(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
