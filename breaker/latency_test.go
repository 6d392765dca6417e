package breaker

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestP95UnknownForFewSamples(t *testing.T) {
	now := time.Now()
	v := newTestVersion(VersionSettings{})
	for range minSamples - 1 {
		v.latency.observe(now, time.Second)
	}
	if d, ok := v.P95(); ok {
		t.Errorf("P95 of %d samples is %v, want unknown", minSamples-1, d)
	}
	v.latency.observe(now, time.Second)
	if d, ok := v.P95(); !ok || d < time.Second {
		t.Errorf("P95 of %d samples is %v, %v", minSamples, d, ok)
	}
}

// Against the exact quantile: never below it, and at most one bucket above.
func TestP95IsCloseToExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(math.Exp2(rapid.Float64Range(10, 43).Draw(t, "log2 ns")))
		}), minSamples, 300).Draw(t, "samples")
		var l p95
		now := time.Now()
		for _, d := range samples {
			l.observe(now, d)
			now = now.Add(refresh / 1000)
		}
		l.refreshed = time.Time{}
		last := samples[len(samples)/2]
		l.observe(now, last)
		samples = append(samples, last)
		slices.Sort(samples)
		rank := len(samples)*oneSample - len(samples)*oneSample/20
		exact := samples[(rank+oneSample-1)/oneSample-1]
		got := l.value()
		low := min(exact, upperBound(octaves*subBuckets-1))
		high := max(time.Duration(float64(exact)*math.Exp2(1./subBuckets))+1, upperBound(0))
		if got < low || got > high {
			t.Fatalf("p95 is %v, exactly %v; want from %v to %v", got, exact, low, high)
		}
	})
}

func TestBucketsHoldWhatTheyBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64().Draw(t, "d"))
		i := bucketOf(d)
		if i < 0 || i >= octaves*subBuckets {
			t.Fatalf("bucket %d", i)
		}
		if i < octaves*subBuckets-1 && d > upperBound(i)+1 {
			t.Fatalf("%d ns in bucket %d, which ends at %d", d, i, upperBound(i))
		}
		if i > 0 && d < upperBound(i-1) {
			t.Fatalf("%d ns in bucket %d, which begins at %d", d, i, upperBound(i-1))
		}
	})
}

func TestP95Forgets(t *testing.T) {
	now := time.Now()
	var l p95
	feed := func(d time.Duration, span time.Duration) {
		for end := now.Add(span); now.Before(end); now = now.Add(10 * time.Millisecond) {
			l.observe(now, d)
		}
	}
	feed(2*time.Second, time.Minute)
	if got := l.value(); got < 2*time.Second {
		t.Fatalf("p95 is %v, want 2 s", got)
	}
	feed(time.Millisecond, 10*time.Second)
	if got := l.value(); got < 2*time.Second {
		t.Errorf("p95 is %v after 10 s, want the last minute to matter still", got)
	}
	feed(time.Millisecond, 50*time.Second)
	if got := l.value(); got > 2*time.Millisecond {
		t.Errorf("p95 is %v after a minute of fast answers, want 1 ms", got)
	}
}

// A version that is rarely called keeps its last samples, however old.
func TestP95OfARarelyCalledVersion(t *testing.T) {
	now := time.Now()
	var l p95
	for range 100 {
		now = now.Add(10 * time.Minute)
		l.observe(now, 5*time.Second)
	}
	if got := l.value(); got < 5*time.Second {
		t.Errorf("p95 is %v, want 5 s", got)
	}
	if most := uint64(3 * minSamples * oneSample); l.total > most {
		t.Errorf("weight of %d samples is kept, want at most %d", l.total/oneSample, most/oneSample)
	}
}

func TestPatience(t *testing.T) {
	passed := func(v *Version, had time.Duration) Outcome { return v.Classify(Attempt{Kind: Deadline, Had: had}) }
	learn := func(v *Version) {
		for range 100 {
			p, err := v.Allow(time.Now(), Normal)
			if err != nil {
				t.Fatal(err)
			}
			p.Done(Result{Outcome: Success, At: time.Now(), Latency: 3 * time.Second})
		}
	}
	for _, c := range []struct {
		name     string
		slowCall time.Duration
		learn    bool
		patience time.Duration // about
	}{
		{"unknown", 0, false, unknownPatience},
		{"its own p95", 0, true, 3 * time.Second},
		{"slow_call", time.Second, true, time.Second},
	} {
		v := newTestVersion(VersionSettings{Settings: Settings{SlowCall: c.slowCall}})
		if c.learn {
			learn(v)
		}
		if short, long := passed(v, c.patience-1), passed(v, c.patience*5/4); short != Excluded || long != Failure {
			t.Errorf("%s: %v below %v, %v above; want excluded and failure", c.name, short, c.patience, long)
		}
	}
}

func TestOnlyGoodAnswersMakeTheP95(t *testing.T) {
	v := newTestVersion(VersionSettings{Settings: Settings{Consecutive: 1000, MinCalls: 1000}})
	for _, r := range []Result{
		{Outcome: Failure, Latency: time.Hour}, {Outcome: Overloaded, Latency: time.Hour},
		{Outcome: Excluded, Latency: time.Hour}, {Outcome: Success}, // a stream's
	} {
		for range 100 {
			p, err := v.Allow(time.Now(), Normal)
			if err != nil {
				t.Fatal(err)
			}
			r.At = time.Now()
			p.Done(r)
		}
	}
	if d, ok := v.P95(); ok {
		t.Errorf("P95 is %v, want unknown", d)
	}
}
