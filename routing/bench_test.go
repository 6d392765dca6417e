package routing

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// benchRoute has n versions of different weights.
func benchRoute(b testing.TB, n int) *Route {
	var weights []weight
	for i := range n {
		weights = append(weights, weight{fmt.Sprintf("v%d", i), uint32(1 + i)})
	}
	return buildRoute(b, document(weights...))
}

// TestChoosingDoesNotAllocate: nothing on the path of a call may.
func TestChoosingDoesNotAllocate(t *testing.T) {
	r := benchRoute(t, 8)
	table := build(t, 1, document(weight{"v1", 1}))
	name := []byte("m")
	for what, f := range map[string]func(){
		"weighted":      func() { _, _ = r.Choose("", "", 1<<63) },
		"sticky":        func() { _, _ = r.Choose("", "user-4711", 0) },
		"forced":        func() { _, _ = r.Choose("v3", "", 0) },
		"model version": func() { _, _ = r.ForcedByModelVersion("v3") },
		"lookup":        func() { table.RouteBytes(name) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", what, n)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{2, 8} {
		r := benchRoute(b, n)
		for _, how := range []struct{ name, force, key string }{
			{"weighted", "", ""}, {"sticky", "", "user-4711"}, {"forced", "v1", ""},
		} {
			b.Run(fmt.Sprintf("%s/versions=%d", how.name, n), func(b *testing.B) {
				random := rand.New(rand.NewPCG(1, 2))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Choose(how.force, how.key, random.Uint64()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// benchRoutes returns n routes of two versions each, and their models.
func benchRoutes(n int) (routes []*routingv1.Route, models [][]byte) {
	for i := range n {
		r := document(weight{"v1", 95}, weight{"v2", 5})
		r.Model = fmt.Sprintf("team/model-%d", i)
		routes, models = append(routes, r), append(models, []byte(r.Model))
	}
	return routes, models
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			routes, models := benchRoutes(n)
			router := NewRouter()
			router.Publish(build(b, 1, routes...))
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i = (i + 7919) % n // jumps about, as calls do
				if _, ok := router.Current().RouteBytes(models[i]); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			routes, _ := benchRoutes(n)
			doc := &routingv1.Document{Routes: routes}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Build(doc, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			var file bytes.Buffer
			file.WriteString("routes:\n")
			for i := range n {
				fmt.Fprintf(&file, "  - model: team/model-%d\n    versions:\n", i)
				fmt.Fprintf(&file, "      - {name: v1, endpoints: [\"10.0.0.1:8001\", \"10.0.0.2:8001\"]}\n")
				fmt.Fprintf(&file, "      - {name: v2, endpoints: [\"10.0.0.3:8001\"], server: triton}\n")
				fmt.Fprintf(&file, "    weights: {v1: 95, v2: 5}\n    timeout: {default: 15s}\n")
			}
			b.SetBytes(int64(file.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("routes.yaml", file.Bytes()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
