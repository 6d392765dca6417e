package routing

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// checkShare fails unless count of n draws of probability p lies within four
// standard deviations: chance breaks that once in 16,000 times, and the draws
// of these tests are always the same.
func checkShare(t *testing.T, what string, count, n int, p float64) {
	t.Helper()
	mean, sigma := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	if math.Abs(float64(count)-mean) > 4*sigma {
		t.Errorf("%s: %d of %d, want %.0f +- %.0f", what, count, n, mean, 4*sigma)
	}
}

func TestWeightedPicksFollowTheWeights(t *testing.T) {
	for _, weights := range [][]weight{
		{{"v1", 95}, {"v2", 5}},
		{{"v1", 1}, {"dark", 0}, {"v2", 999}},
		{{"a", 1}, {"b", 2}, {"c", 3}, {"d", 4}, {"e", 5}, {"f", 6}, {"g", 7}, {"h", 8}},
		{{"v1", math.MaxUint32 - 1}, {"v2", 1}},
	} {
		r := buildRoute(t, document(weights...))
		random := rand.New(rand.NewPCG(1, 2))
		const n = 20_000
		counts := map[string]int{}
		for range n {
			counts[choose(t, r, "", random.Uint64())]++
		}
		for _, w := range weights {
			checkShare(t, fmt.Sprintf("%v: %s", weights, w.version), counts[w.version], n, float64(w.weight)/float64(r.total))
		}
	}
}

// drawWeights draws the weights of 1 to 8 versions, at least one above 0.
func drawWeights(t *rapid.T) []weight {
	values := rapid.SliceOfN(rapid.Uint32Range(0, 1000), 1, 8).
		Filter(func(ws []uint32) bool {
			for _, w := range ws {
				if w > 0 {
					return true
				}
			}
			return false
		}).Draw(t, "weights")
	var weights []weight
	for i, w := range values {
		weights = append(weights, weight{fmt.Sprintf("v%d", i), w})
	}
	return weights
}

// TestWeightedPickMatchesSlices compares the pick with cutting [0, 2^64) into
// slices by exact arithmetic.
func TestWeightedPickMatchesSlices(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := drawWeights(rt)
		u := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, math.MaxUint64, 1 << 63})).Draw(rt, "u")
		r := buildRoute(t, document(weights...))
		at := new(big.Int).SetUint64(u)
		at.Mul(at, new(big.Int).SetUint64(r.total)).Rsh(at, 64)
		want := ""
		for left, i := at.Int64(), 0; want == ""; i++ {
			if left -= int64(weights[i].weight); left < 0 {
				want = weights[i].version
			}
		}
		if got := choose(t, r, "", u); got != want {
			rt.Errorf("Choose(u=%d) = %s, want %s", u, got, want)
		}
	})
}

// TestNoWeightNoCall is the promise that rolling back beats stickiness.
func TestNoWeightNoCall(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := buildRoute(t, document(drawWeights(rt)...))
		key, u := rapid.String().Draw(rt, "key"), rapid.Uint64().Draw(rt, "u")
		c, err := r.Choose("", key, u)
		if err != nil || c.Version.Dark() {
			rt.Errorf("Choose(%q, %d) = %+v, %v, want a version with weight", key, u, c.Version, err)
		}
		if want := map[bool]Reason{true: Sticky, false: Weighted}[key != ""]; c.Reason != want {
			rt.Errorf("Choose(%q) for the reason %v, want %v", key, c.Reason, want)
		}
	})
}

func TestForce(t *testing.T) {
	no, yes := false, true
	doc := document(weight{"v1", 95}, weight{"dark", 0}, weight{"closed", 5}, weight{"open", 0})
	doc.Versions[2].AllowForce = &no
	doc.Versions[3].AllowForce = &yes
	r := buildRoute(t, doc)
	for _, test := range []struct {
		force string
		want  error
	}{
		{"v1", nil},
		{"dark", nil},
		{"open", nil},
		{"closed", ErrForceNotAllowed},
		{"V1", ErrUnknownVersion},
		{"v1 ", ErrUnknownVersion},
	} {
		c, err := r.Choose(test.force, "key", 0)
		if test.want != nil {
			var ve *VersionError
			if !errors.Is(err, test.want) || !errors.As(err, &ve) || ve.Model != "m" || ve.Version != test.force {
				t.Errorf("Choose(%q) fails with %v, want %v", test.force, err, test.want)
			}
			continue
		}
		if err != nil || c.Version.Name != test.force || c.Reason != Forced {
			t.Errorf("Choose(%q) = %+v, %v, want it forced", test.force, c, err)
		}
	}
}

func TestForcedByModelVersion(t *testing.T) {
	doc := document(weight{"v7", 95}, weight{"v8", 5}, weight{"v9", 0}, weight{"4", 0})
	for i, server := range []string{"7", "1", "1", "v7"} {
		doc.Versions[i].Rename = &routingv1.Rename{Version: server}
	}
	strict := buildRoute(t, doc)
	doc.IgnoreModelVersion = true
	lax := buildRoute(t, doc)
	for _, test := range []struct {
		value, want string
		err         error // unless the route ignores it
	}{
		{"", "", nil},
		{"v8", "v8", nil},
		{"7", "v7", nil},
		{"4", "4", nil},
		{"v7", "v7", nil}, // also what version 4 is called on its server
		{"1", "", ErrSharedVersion},
		{"2", "", ErrUnknownVersion},
		{"07", "", ErrUnknownVersion},
	} {
		if got, err := strict.ForcedByModelVersion(test.value); got != test.want || !errors.Is(err, test.err) {
			t.Errorf("ForcedByModelVersion(%q) = %q, %v, want %q, %v", test.value, got, err, test.want, test.err)
		}
		if got, err := lax.ForcedByModelVersion(test.value); got != test.want || err != nil {
			t.Errorf("ignoring unknown ones: ForcedByModelVersion(%q) = %q, %v, want %q", test.value, got, err, test.want)
		}
	}
}

func TestVersionErrorIsShort(t *testing.T) {
	r := buildRoute(t, document(weight{"v1", 1}))
	_, err := r.Choose(strings.Repeat("x", 1<<20), "", 0)
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("Choose = an error of %d bytes, want a short one", len(err.Error()))
	}
	_, err = r.Choose("v2", "", 0)
	if want := `model "m": version "v2": unknown version`; err == nil || err.Error() != want {
		t.Errorf("Choose = %v, want %s", err, want)
	}
}

func TestReasonNames(t *testing.T) {
	for r, want := range map[Reason]string{Weighted: "weighted", Sticky: "sticky", Forced: "forced"} {
		if got := r.String(); got != want {
			t.Errorf("Reason(%d) = %s, want %s", r, got, want)
		}
	}
}
