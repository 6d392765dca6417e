package routing

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// TestStickyPlacementIsPinned guards what callers rely on across restarts,
// replicas and releases: the same key on the same version.
func TestStickyPlacementIsPinned(t *testing.T) {
	r := buildRoute(t, document(weight{"v1", 50}, weight{"v2", 30}, weight{"v3", 20}))
	for key, want := range map[string]string{
		"alice": "v1", "bob": "v2", "carol": "v1", "dave": "v1", "erin": "v3", "frank": "v1", "1": "v3", "2": "v1", "3": "v1",
	} {
		if got := choose(t, r, key, 0); got != want {
			t.Errorf("%s lands on %s, want %s", key, got, want)
		}
	}
}

func TestStickySharesFollowTheWeights(t *testing.T) {
	for _, weights := range [][]weight{
		{{"v1", 95}, {"v2", 5}},
		{{"v1", 1}, {"dark", 0}, {"v2", 1}},
		{{"a", 1}, {"b", 2}, {"c", 3}, {"d", 4}, {"e", 5}, {"f", 6}, {"g", 7}, {"h", 8}},
		{{"v1", 4_000_000_000}, {"v2", 200_000_000}},
	} {
		r := buildRoute(t, document(weights...))
		for _, form := range []string{"%d", "user-%d@example.com", "%032x", "\x00%d"} {
			const n = 20_000
			counts := map[string]int{}
			for i := range n {
				counts[choose(t, r, fmt.Sprintf(form, i), 0)]++
			}
			for _, w := range weights {
				checkShare(t, fmt.Sprintf("%v, keys %q: %s", weights, form, w.version),
					counts[w.version], n, float64(w.weight)/float64(r.total))
			}
		}
	}
}

// TestRaisedWeightMovesKeysToItOnly holds for any weights and any number of
// versions; read backwards, a lowered weight moves only that version's keys.
func TestRaisedWeightMovesKeysToItOnly(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := drawWeights(rt)
		before := buildRoute(t, document(weights...))
		raised := rapid.IntRange(0, len(weights)-1).Draw(rt, "raised")
		weights[raised].weight += rapid.Uint32Range(1, 1000).Draw(rt, "by")
		after := buildRoute(t, document(weights...))
		for i := range 200 {
			key := fmt.Sprint(i)
			from, to := choose(t, before, key, 0), choose(t, after, key, 0)
			if from != to && to != weights[raised].version {
				rt.Fatalf("key %s moves from %s to %s, want it to stay or to go to %s", key, from, to, weights[raised].version)
			}
		}
	})
}

// TestShareThatMustMoveMoves measures that no more moves than that.
func TestShareThatMustMoveMoves(t *testing.T) {
	before := buildRoute(t, document(weight{"v7", 95}, weight{"v8", 5}))
	after := buildRoute(t, document(weight{"v7", 90}, weight{"v8", 10}))
	const n = 20_000
	moved := 0
	for i := range n {
		key := fmt.Sprint("user-", i)
		from, to := choose(t, before, key, 0), choose(t, after, key, 0)
		if from == to {
			continue
		}
		moved++
		if to != "v8" {
			t.Fatalf("key %s moves from %s to %s, want moves to v8 only", key, from, to)
		}
	}
	checkShare(t, "moved", moved, n, 0.05)
}

// TestStickyIgnoresScaleAndOrder: neither the unit of the weights nor the order
// of the versions matters, nor the random draw.
func TestStickyIgnoresScaleAndOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := drawWeights(rt)
		before := buildRoute(t, document(weights...))
		shuffled := rapid.Permutation(weights).Draw(rt, "order")
		for i := range shuffled {
			shuffled[i].weight *= 1024 // a power of two, so that no float is rounded
		}
		after := buildRoute(t, document(shuffled...))
		key := rapid.StringN(1, -1, -1).Draw(rt, "key")
		if a, b := choose(t, before, key, 0), choose(t, after, key, math.MaxUint64); a != b {
			rt.Errorf("key %q lands on %s and on %s, want the same", key, a, b)
		}
	})
}

// TestSaltsDrawAnew: with another salt, keys land independently; with the same,
// the model does not matter.
func TestSaltsDrawAnew(t *testing.T) {
	salted := func(model, salt string) *Route {
		doc := document(weight{"v1", 50}, weight{"v2", 50})
		doc.Model = model
		if salt != "" {
			doc.Sticky = &routingv1.Sticky{Salt: salt}
		}
		return buildRoute(t, doc)
	}
	const n = 20_000
	same := func(a, b *Route) (count int) {
		for i := range n {
			key := fmt.Sprint(i)
			if choose(t, a, key, 0) == choose(t, b, key, 0) {
				count++
			}
		}
		return count
	}
	checkShare(t, "same version under two models", same(salted("a", ""), salted("b", "")), n, 0.5)
	checkShare(t, "same version under two salts", same(salted("a", "spring"), salted("a", "autumn")), n, 0.5)
	if got := same(salted("a", "spring"), salted("b", "spring")); got != n {
		t.Errorf("under one salt %d of %d keys land alike, want all", got, n)
	}
}

// TestUnitStaysInside: the ends would make a logarithm infinite or nothing.
func TestUnitStaysInside(t *testing.T) {
	for _, x := range []uint64{0, 1, 1 << 11, 1 << 12, 1 << 63, math.MaxUint64 - 1<<12, math.MaxUint64} {
		if u := unit(x); u <= 0 || u >= 1 {
			t.Errorf("unit(%d) = %v, want it between 0 and 1", x, u)
		}
	}
	if steps := []float64{unit(0), unit(1 << 12), unit(math.MaxUint64)}; !slices.IsSorted(steps) {
		t.Errorf("unit = %v, want it to rise", steps)
	}
}
