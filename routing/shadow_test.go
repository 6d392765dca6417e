package routing

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestShadowSettings(t *testing.T) {
	r, _ := mustParse(t, readTestFile(t, "testdata/rich.good.yaml")).Route("team/fraud@prod")
	v9, _ := r.Version("v9")
	want := []*Shadow{{
		Version: v9, Share: 7, MaxRate: 50, Methods: []string{"shop.Checkout/Price"}, Sequences: true, Metadata: []string{"authorization"},
		Outputs: map[string]OutputRule{"score": {OwnTolerance: true, Relative: 0.01}, "debug": {Ignore: true}, "": {NaNDiffers: true}},
		TopK:    3,
	}}
	if !reflect.DeepEqual(r.Shadows, want) {
		t.Errorf("shadows %+v, want %+v", r.Shadows[0], want[0])
	}
	r, _ = mustParse(t, readTestFile(t, "testdata/design.good.yaml")).Route("fraud")
	if len(r.Shadows) != 1 || r.Shadows[0].Version.Name != "v9" || r.Shadows[0].Share != 1000 {
		t.Errorf("shadows of the design's document: %+v", r.Shadows)
	}
}

func TestCaptureAndExamplesSettings(t *testing.T) {
	const doc = `routes:
- model: m
  versions: [{name: a, endpoints: ["h:1"]}, {name: b, endpoints: ["h:2"]}]
  weights: {a: 1}
  capture: {percent: 2.5%s}
  shadow: [{version: b, percent: 1, examples: {redact: [name, "x*"], keep: [x1]}}]
`
	r, _ := mustParse(t, fmt.Appendf(nil, doc, "")).Route("m")
	if want := (Capture{Share: 250, MaxBytes: 64 << 20, Retain: 24 * time.Hour}); *r.Capture != want {
		t.Errorf("%+v, want %+v", *r.Capture, want)
	}
	if want := (&Examples{[]string{"name", "x*"}, []string{"x1"}}); !reflect.DeepEqual(r.Shadows[0].Examples, want) {
		t.Errorf("%+v, want %+v", r.Shadows[0].Examples, want)
	}
	r, _ = mustParse(t, fmt.Appendf(nil, doc, ", max_mib: 7, retain: 5m")).Route("m")
	if want := (Capture{Share: 250, MaxBytes: 7 << 20, Retain: 5 * time.Minute}); *r.Capture != want {
		t.Errorf("%+v, want %+v", *r.Capture, want)
	}
}

// Every step of a percentage is a share of its own, though few of them are exact in
// binary.
func TestEveryHundredthOfAPercentIsAccepted(t *testing.T) {
	for share := uint32(1); share <= ShareSteps; share += 97 {
		doc := fmt.Appendf(nil, "routes: [{model: m, versions: [{name: a, endpoints: ['h:1']}], weights: {a: 1}, shadow: [{version: a, percent: %d.%02d}]}]", share/100, share%100)
		if r, _ := mustParse(t, doc).Route("m"); r.Shadows[0].Share != share {
			t.Errorf("%s: share %d, want %d", doc, r.Shadows[0].Share, share)
		}
	}
}

// A shadow without weight is reached by force only if its version says so.
func TestShadowsAreNotForcedUnlessTheyMayBe(t *testing.T) {
	const doc = `routes:
- model: m
  versions: [{name: a, endpoints: ["h:1"]}, {name: b, endpoints: ["h:2"], %s}]
  weights: {a: 1, b: %d}
  shadow: [{version: b, percent: 1}]
`
	for _, c := range []struct {
		says   string
		weight int
		want   bool
	}{
		{"", 0, false}, {"", 1, true}, {"allow_force: true", 0, true}, {"allow_force: false", 1, false},
	} {
		r, _ := mustParse(t, fmt.Appendf(nil, doc, c.says, c.weight)).Route("m")
		if v, _ := r.Version("b"); v.AllowForce != c.want {
			t.Errorf("%q with weight %d: %v, want %v", c.says, c.weight, v.AllowForce, c.want)
		}
	}
}
