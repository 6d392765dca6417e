package shadow

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/shadow/compare"
)

// The intervals of Newcombe's tables (Statistics in Medicine 17, 1998, table I) and of
// the exact bound's closed forms: 1-0.025^(1/n) for none.
func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		x, n      uint64
		low, high float64
	}{
		{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718},
	} {
		if i := Wilson(c.x, c.n); math.Abs(i.Low-c.low) > 5e-5 || math.Abs(i.High-c.high) > 5e-5 {
			t.Errorf("Wilson(%d, %d) = %.4f to %.4f, want %.4f to %.4f", c.x, c.n, i.Low, i.High, c.low, c.high)
		}
	}
	for _, c := range []struct {
		x, n  uint64
		upper float64
	}{
		{81, 263, 0.3676}, {15, 148, 0.1617}, {0, 20, 0.1684}, {1, 29, 0.1776}, {0, 3000, 0.00123},
		{0, 0, 1}, {5, 5, 1}, {0, 1, 0.975},
	} {
		if u := ClopperPearsonUpper(c.x, c.n); math.Abs(u-c.upper) > 5e-5 {
			t.Errorf("ClopperPearsonUpper(%d, %d) = %.5f, want %.5f", c.x, c.n, u, c.upper)
		}
	}
	if i := Wilson(0, 0); i != (Interval{0, 1}) {
		t.Errorf("nothing seen: %v", i)
	}
}

// A sequence's bound against its closed form for none and all, where the ratio is a
// product: of (a+i)/(a+b+i), or (b+i)/(a+b+i), over the calls.
func TestSequenceByHand(t *testing.T) {
	for _, n := range []uint64{1, 10, 300, 3000} {
		none, all := 0.0, 0.0
		for i := range n {
			none += math.Log((mixtureB + float64(i)) / (mixtureA + mixtureB + float64(i)))
			all += math.Log((mixtureA + float64(i)) / (mixtureA + mixtureB + float64(i)))
		}
		want := 1 - math.Exp((none+math.Log(0.05))/float64(n))
		if i := AtAnyTime(0, n); i.Low != 0 || math.Abs(i.High-want) > 1e-9 {
			t.Errorf("none of %d: %v, want 0 to %g", n, i, want)
		}
		want = math.Exp((all + math.Log(0.05)) / float64(n))
		if i := AtAnyTime(n, n); i.High != 1 || math.Abs(i.Low-want) > 1e-9 {
			t.Errorf("all of %d: %v, want %g to 1", n, i, want)
		}
	}
	if i := AtAnyTime(0, 0); i != (Interval{0, 1}) {
		t.Errorf("nothing seen: %v", i)
	}
}

// A rate that is looked at again and again is in its sequence all the time in at least
// 95 % of all cases; of an interval for one look that does not hold.
func TestSequenceHoldsAtEveryLook(t *testing.T) {
	const runs, calls = 400, 4000
	random := rand.New(rand.NewPCG(1, 2))
	for _, p := range []float64{0.003, 0.02, 0.3} {
		out, outOnce := 0, 0
		for range runs {
			x, left, leftOnce := uint64(0), false, false
			look := uint64(10)
			for n := uint64(1); n <= calls; n++ {
				if random.Float64() < p {
					x++
				}
				if n < look && n < calls {
					continue
				}
				look += 1 + look/30
				in := func(i Interval) bool { return i.Low <= p && p <= i.High }
				left, leftOnce = left || !in(AtAnyTime(x, n)), leftOnce || !in(Wilson(x, n))
			}
			if left {
				out++
			}
			if leftOnce {
				outOnce++
			}
		}
		t.Logf("rate %g: left in %d of %d, by the interval for one look in %d", p, out, runs, outOnce)
		// 5 % of 400 is 20, and 3 standard deviations more are 33.
		if out > 33 || outOnce < 40 {
			t.Errorf("rate %g: left in %d of %d, by the interval for one look in %d; want at most 33, and at least 40", p, out, runs, outOnce)
		}
	}
}

// A quantile is one of the durations, to within a bucket.
func TestSpreadIsCloseToTheDurations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		var s spread
		var all []time.Duration
		for range n {
			d := time.Duration(rapid.Int64Range(-int64(10*time.Second), int64(10*time.Second)).Draw(t, "d"))
			if rapid.Bool().Draw(t, "small") {
				d /= 100_000
			}
			s.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		got := s.read()
		if got.N != uint64(n) || got.Min != all[0] || got.Max != all[n-1] {
			t.Fatalf("%+v of %v", got, all)
		}
		for q, v := range map[float64]time.Duration{0.05: got.P5, 0.5: got.P50, 0.95: got.P95, 0.99: got.P99} {
			want := all[int(math.Ceil(q*float64(n)))-1]
			if d := (v - want).Abs(); d > max(time.Microsecond, want.Abs()/22) {
				t.Fatalf("quantile %v is %v, want %v", q, v, want)
			}
		}
	})
}

func TestEmptySpread(t *testing.T) {
	if s := new(spread).read(); s != (Spread{}) {
		t.Errorf("nothing has the distribution %+v", s)
	}
}

// The worst of each output stay, and of what is of no output, whatever the order in which
// they come.
func TestTheWorstCallsAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type made struct {
			c Copy
			r compare.Result
		}
		var all []made
		for i := range 30 {
			r := compare.Result{Difference: compare.Values, Outputs: []compare.Output{
				{Name: "a", Difference: compare.Values, Excess: float64(100 - i)}, {Name: "b", Difference: compare.Values, Excess: float64(2 + i)}, {Name: "c"}}}
			all = append(all, made{Copy{RequestID: fmt.Sprint(i)}, r})
		}
		all[3].r = compare.Result{Difference: compare.Codes}
		all[7].r.Outputs[0].Difference = compare.Shapes // worse than any value
		all[7].r.Difference = compare.Shapes
		for i := range 5 { // an output that is the same, and a stream that is longer
			all = append(all, made{Copy{RequestID: fmt.Sprint("stream", i)}, compare.Result{Difference: compare.Messages, Outputs: []compare.Output{{Name: "a"}}}})
		}
		var w worst
		for _, m := range rapid.Permutation(all).Draw(t, "order") {
			w.add(&m.c, Attempt{}, &m.r, nothing)
		}
		var got []string
		for _, e := range w.read() {
			if e.Difference == compare.Messages {
				e.RequestID = "stream" // any of them: they are alike
			}
			got = append(got, e.RequestID+e.Output)
		}
		if want := []string{"3", "stream", "stream", "stream", "7a", "0a", "1a", "29b", "28b", "27b"}; !slices.Equal(got, want) {
			t.Fatalf("kept %v, want %v", got, want)
		}
		if e := w.read()[7]; e.Output != "b" || e.Excess != 31 {
			t.Fatalf("example %+v", e)
		}
	})
}

// Names of outputs come from servers: no more of them are told apart than the limit says.
func TestExamplesAreBounded(t *testing.T) {
	var w worst
	for i := range 100 {
		w.add(&Copy{}, Attempt{}, &compare.Result{Difference: compare.Values, Outputs: []compare.Output{{Name: fmt.Sprint(i), Difference: compare.Values}}}, nothing)
	}
	if n := len(w.read()); n != maxKinds {
		t.Errorf("%d examples, want %d", n, maxKinds)
	}
}

// Names of outputs come from servers: a verdict takes no more of them than its limit.
func TestOutputsOfAVerdictAreBounded(t *testing.T) {
	v := newVerdict(time.Now())
	for i := range 10 * maxOutputs {
		v.add(&Copy{}, Attempt{}, &compare.Result{Outputs: []compare.Output{{Name: fmt.Sprint("output ", i), Cosine: math.NaN(), TopK: math.NaN()}}}, nothing)
	}
	s := v.read()
	if len(s.Outputs) != maxOutputs+1 {
		t.Fatalf("%d outputs are told apart", len(s.Outputs))
	}
	n := uint64(0)
	for _, o := range s.Outputs {
		n += o.Compared
	}
	if n != 10*maxOutputs {
		t.Errorf("%d comparisons, want %d", n, 10*maxOutputs)
	}
}

func TestMeansOfAnOutput(t *testing.T) {
	v := newVerdict(time.Now())
	inf := math.Inf(1)
	for _, o := range []compare.Output{
		{Name: "y", RMSE: 1, Cosine: 1, TopK: 0.5, Rows: 2, Flips: 1},
		{Name: "y", RMSE: 3, Cosine: math.NaN(), TopK: math.NaN(), MaxULP: 7, Difference: compare.Values, Excess: 4},
		{Name: "x", RMSE: 1, Cosine: math.NaN(), TopK: math.NaN()}, {Name: "x", RMSE: inf}, {Name: "x", RMSE: 1},
	} {
		v.add(&Copy{}, Attempt{}, &compare.Result{Difference: o.Difference, Outputs: []compare.Output{o}}, nothing)
	}
	s := v.read()
	y := s.Outputs[1]
	if y.MeanRMSE != 2 || y.MeanCosine != 1 || y.Cosines != 1 || y.MeanTopK != 0.5 || y.Rows != 2 || y.Flips != 1 || y.MaxULP != 7 ||
		y.Compared != 2 || y.Mismatched != 1 || y.Excess != 4 {
		t.Errorf("y: %+v", y)
	}
	if x := s.Outputs[0]; x.MeanRMSE != inf {
		t.Errorf("x: %+v", x)
	}
	if s.Compared != 5 || s.Mismatched != 1 {
		t.Errorf("%d of %d", s.Mismatched, s.Compared)
	}
}

// nothing may be shown of a call.
func nothing() *Remembered { return nil }

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range numReasons {
		if name := r.String(); name == "" || seen[name] {
			t.Errorf("reason %d is %q", r, name)
		} else {
			seen[name] = true
		}
	}
}

func TestRateLimitIsASecondsWorth(t *testing.T) {
	var l rateLimit
	now := time.Now()
	taken := 0
	for range 100 {
		if l.take(now, 10) {
			taken++
		}
	}
	if taken != 10 {
		t.Errorf("%d at once, want 10", taken)
	}
	for i := range 1000 { // ten seconds
		if l.take(now.Add(time.Duration(i)*10*time.Millisecond), 10) {
			taken++
		}
	}
	if taken < 109 || taken > 110 {
		t.Errorf("%d in ten seconds more, want 100", taken-10)
	}
	slow := rateLimit{}
	if !slow.take(now, 0.5) || slow.take(now.Add(time.Second), 0.5) || !slow.take(now.Add(2*time.Second), 0.5) {
		t.Error("one in two seconds is another number")
	}
}
