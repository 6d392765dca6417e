package telemetry

import (
	"math/rand/v2"
	"strings"
	"testing"
)

const (
	parentTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	parentSpan  = "00f067aa0ba902b7"
)

func TestTraceparentsThatNameATrace(t *testing.T) {
	for _, c := range []struct {
		value string
		ok    bool
	}{
		{"00-" + parentTrace + "-" + parentSpan + "-01", true},
		{"00-" + parentTrace + "-" + parentSpan + "-00", true},
		{"01-" + parentTrace + "-" + parentSpan + "-01", true},       // a later version
		{"01-" + parentTrace + "-" + parentSpan + "-01-what", true},  // and what it adds
		{"00-" + parentTrace + "-" + parentSpan + "-01-what", false}, // which version 00 does not
		{"01-" + parentTrace + "-" + parentSpan + "-01what", false},
		{"ff-" + parentTrace + "-" + parentSpan + "-01", false},
		{"00-" + strings.Repeat("0", 32) + "-" + parentSpan + "-01", false},
		{"00-" + parentTrace + "-" + strings.Repeat("0", 16) + "-01", false},
		{"00-" + strings.ToUpper(parentTrace) + "-" + parentSpan + "-01", false},
		{"00-" + parentTrace + "-" + parentSpan + "-0g", false},
		{"00_" + parentTrace + "-" + parentSpan + "-01", false},
		{"00-" + parentTrace + "-" + parentSpan, false},
		{"", false},
	} {
		var got Trace
		if ok := got.parse(c.value); ok != c.ok {
			t.Errorf("%q: got %v, want %v", c.value, ok, c.ok)
		} else if ok && (got.ID.String() != parentTrace || got.Parent.String() != parentSpan) {
			t.Errorf("%q: got %v %v", c.value, got.ID, got.Parent)
		} else if !ok && got != (Trace{}) {
			t.Errorf("%q: got %+v of nothing", c.value, got)
		}
	}
}

// What is passed on is read again as what it was made of.
func FuzzTraceparent(f *testing.F) {
	f.Add("00-" + parentTrace + "-" + parentSpan + "-03")
	f.Add("cc-" + parentTrace + "-" + parentSpan + "-ff-more")
	f.Fuzz(func(t *testing.T, s string) {
		var got, again Trace
		if !got.parse(s) {
			return
		}
		var p Traceparent
		if text := p.Write(&got, got.Parent); !again.parse(text) || again != got {
			t.Errorf("%q: %+v became %q, and that %+v", s, got, text, again)
		}
	})
}

// Flags without a meaning are not passed on; that the trace's id is random is.
func TestUnknownFlagsAreNotPassedOn(t *testing.T) {
	var tr Trace
	var p Traceparent
	if !tr.parse("00-" + parentTrace + "-" + parentSpan + "-ff") {
		t.Fatal("it names no trace")
	}
	if got, want := p.Write(&tr, tr.Parent), "00-"+parentTrace+"-"+parentSpan+"-03"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A caller's word counts only where the sampling says so; otherwise the share of calls is as asked.
func TestSamplingFollowsParentOrRatio(t *testing.T) {
	const sampled, unsampled = "00-" + parentTrace + "-" + parentSpan + "-01", "00-" + parentTrace + "-" + parentSpan + "-00"
	random := rand.New(rand.NewPCG(1, 2))
	share := func(s *Sampling, parent string) float64 {
		n := 0
		for range 20_000 {
			tr := s.begin(random.Uint64(), parent)
			if tr.Sampled() {
				n++
			}
			if !tr.ID.IsValid() || !tr.Span.IsValid() || tr.Parent.IsValid() != (parent != "") {
				t.Fatalf("%v: got %+v", s, tr)
			}
		}
		return float64(n) / 20_000
	}
	for _, c := range []struct {
		name, arg           string
		none, yes, no, slop float64
	}{
		{"", "", 0.01, 1, 0, 0.003},
		{"always_on", "", 1, 1, 1, 0},
		{"always_off", "", 0, 0, 0, 0},
		{"parentbased_always_on", "", 1, 1, 0, 0},
		{"parentbased_always_off", "", 0, 1, 0, 0},
		{"traceidratio", "0.25", 0.25, 0.25, 0.25, 0.02},
		{"parentbased_traceidratio", "0.25", 0.25, 1, 0, 0.02},
		{"parentbased_traceidratio", "", 1, 1, 0, 0},
	} {
		s, err := parseSampling(c.name, c.arg)
		if err != nil {
			t.Fatal(err)
		}
		for parent, want := range map[string]float64{"": c.none, sampled: c.yes, unsampled: c.no} {
			if got := share(s, parent); got < want-c.slop || got > want+c.slop {
				t.Errorf("%s %s, parent %q: got a share of %v, want %v", c.name, c.arg, parent, got, want)
			}
		}
	}
	for name, arg := range map[string]string{"": "0.1", "jaeger_remote": "", "traceidratio": "1.5", "parentbased_traceidratio": "NaN"} {
		if _, err := parseSampling(name, arg); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s %s: got %v, want an error that says what is accepted", name, arg, err)
		}
	}
}
