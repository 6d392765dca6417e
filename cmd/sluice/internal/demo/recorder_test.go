package demo

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFrameShowsTheCurrentSplitAlone(t *testing.T) {
	r := newRecorder()
	half := stages[1]
	for range 3 {
		r.record(outcome{version: before, split: stages[0], latency: time.Millisecond, right: true})
		r.record(outcome{version: before, split: half, latency: time.Millisecond, right: true})
	}
	r.record(outcome{version: after, split: half, latency: 2 * time.Millisecond})

	f := r.frame(progress{elapsed: 2 * time.Second, split: half, revision: 2})
	if len(f.lines) != 2 {
		t.Fatalf("frame has %d lines, want one per version", len(f.lines))
	}
	v1, v2 := f.lines[0], f.lines[1]
	if v1.calls != 3 || v1.share != 0.75 || v1.right != 1 || v1.rate != 3 { // six calls in 2 s, of either split
		t.Errorf("v1 = %+v, want 3 calls, share 0.75, all right, 3 calls/s", v1)
	}
	if v2.calls != 1 || v2.share != 0.25 || v2.right != 0 || v2.rate != 0.5 {
		t.Errorf("v2 = %+v, want 1 call, share 0.25, none right, 0.5 calls/s", v2)
	}

	// Straight after a change nothing is known, and that is what is shown.
	f = r.frame(progress{elapsed: 2 * time.Second, split: stages[2], revision: 3})
	if len(f.lines) != 2 || f.lines[1].calls != 0 || f.lines[1].share != 0 || !math.IsNaN(f.lines[1].right) {
		t.Errorf("a split without calls = %+v, want a line for each version", f.lines)
	}

	f = r.frame(progress{elapsed: 3 * time.Second, split: half, revision: 2})
	if rate := f.lines[0].rate; rate != 0 {
		t.Errorf("a second later without calls the rate is %v, want 0", rate)
	}
}

// TestAccountLosesNothing records random calls and compares with plain counting.
func TestAccountLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRecorder()
		type count struct{ calls, failed, right uint64 }
		want := make(map[cell]count)
		perSplit := make(map[split]uint64)
		splits := append([]split{{}}, stages...)
		for range rapid.IntRange(1, 200).Draw(t, "calls") {
			o := outcome{
				version: rapid.SampledFrom([]string{"", before, after}).Draw(t, "version"),
				split:   rapid.SampledFrom(splits).Draw(t, "split"),
				latency: time.Duration(rapid.Int64Range(0, int64(callTimeout)).Draw(t, "latency")),
			}
			at := cell{o.split, o.version}
			c := want[at]
			c.calls++
			if rapid.Bool().Draw(t, "fails") {
				o.err = errors.New("failed")
				c.failed++
			} else if o.right = rapid.Bool().Draw(t, "right"); o.right {
				c.right++
			}
			want[at] = c
			perSplit[o.split]++
			r.record(o)
		}

		var calls, failed uint64
		shares := make(map[split]float64)
		res := r.result(time.Second, stages[0])
		for _, l := range res.lines {
			c := want[l.cell]
			if l.calls != c.calls || l.failed != c.failed {
				t.Fatalf("%v: got %d calls, %d failed, want %+v", l.cell, l.calls, l.failed, c)
			}
			answered := c.calls - c.failed
			if answered > 0 && l.right != float64(c.right)/float64(answered) {
				t.Fatalf("%v: accuracy %v, want %d of %d", l.cell, l.right, c.right, answered)
			}
			if l.p50 > l.p99 || l.p99 > callTimeout+callTimeout/50 { // two digits of precision
				t.Fatalf("%v: p50 %v, p99 %v", l.cell, l.p50, l.p99)
			}
			calls += l.calls
			failed += l.failed
			shares[l.split] += l.share
			delete(want, l.cell)
		}
		if len(want) > 0 || calls != res.calls || failed != res.failed {
			t.Fatalf("not shown: %v; %d of %d calls, %d of %d failures", want, calls, res.calls, failed, res.failed)
		}
		for s, n := range perSplit {
			if math.Abs(shares[s]-1) > 1e-9 {
				t.Fatalf("shares of the %d calls of split %v add up to %v", n, s, shares[s])
			}
		}
	})
}

func TestVerdict(t *testing.T) {
	good := outcome{version: before, split: stages[0], latency: time.Millisecond}
	for _, test := range []struct {
		name  string
		calls []outcome
		want  string // "" for none
	}{
		{"all is well", []outcome{good}, ""},
		{"no calls", nil, "ended before the first call"},
		{"a failure", []outcome{good, {version: after, split: stages[0], err: errors.New("broken")}}, "1 of 2 calls failed, the first with: broken"},
		{"no version", []outcome{{split: stages[0]}}, "did not say which version"},
		{"no revision", []outcome{{version: before}}, "did not say which version"},
		{"no weight", []outcome{{version: before, split: stages[2]}}, "split v1=0 v2=100: 1 calls were answered by v1"},
		{"another version", []outcome{{version: "v9", split: stages[0]}}, "answered by v9, which has no weight"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRecorder()
			for _, o := range test.calls {
				r.record(o)
			}
			err := r.result(time.Second, stages[0]).verdict()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("verdict() = %v, want %q", err, test.want)
			}
		})
	}
}
