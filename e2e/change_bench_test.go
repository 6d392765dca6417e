package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/sample"
)

// BenchmarkCallsWhileRoutesChange compares, round by round in one run, the latency
// of calls while nothing changes with that while one of the routes changes ten times per
// second, and every second. With ten routes it shows what an operator's request costs
// callers on this machine, with 10,000 what their number adds. Use -benchtime=1x: an
// iteration is all the rounds.
func BenchmarkCallsWhileRoutesChange(b *testing.B) {
	for _, every := range []time.Duration{100 * time.Millisecond, time.Second} {
		for _, routes := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("every=%v/routes=%d", every, routes), func(b *testing.B) {
				callsWhileRoutesChange(b, routes, max(700*time.Millisecond, 3*every), every)
			})
		}
	}
}

// callsWhileRoutesChange compares halves of rounds, without and with a change every so often.
func callsWhileRoutesChange(b *testing.B, routes int, half, every time.Duration) {
	v1, v2 := startBackend(b, "v1"), startBackend(b, "v2")
	var doc strings.Builder
	doc.WriteString(split(v1, v2, 1, 1000))
	for i := range routes - 1 {
		fmt.Fprintf(&doc, "\n  - {model: m%d, versions: [{name: a, endpoints: [%q]}], weights: {a: 1}}", i, v1.addr)
	}
	g := startShared(b, "memory", doc.String())
	cc := dial(b, g.data)
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	weight := uint32(1)
	compareHalves(b, "changing", func(change bool) (took []time.Duration) {
		var changes sync.WaitGroup
		next := time.Now()
		for end := next.Add(half); time.Now().Before(end); {
			if change && !time.Now().Before(next) {
				next = next.Add(every)
				weight++
				w := weight
				changes.Go(func() {
					if _, err := g.setV1(w); err != nil {
						b.Error(err)
					}
				})
			}
			begun := time.Now()
			if a := infer(b.Context(), cc, req); a.err != nil {
				b.Fatal(a.err)
			}
			took = append(took, time.Since(begun))
		}
		changes.Wait()
		return took
	})
	if weight < halfRounds {
		b.Errorf("only %d changes", weight-1)
	}
}
