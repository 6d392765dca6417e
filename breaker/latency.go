package breaker

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// subBuckets divide each doubling of the latency: a quantile is at most 2^(1/8), 9 %, too high.
	subBuckets = 8
	// Latencies from 2^minExponent to 2^(minExponent+octaves) ns are told apart: 65 us to 18 min.
	minExponent = 16
	octaves     = 24
	// oneSample leaves room below one for halving.
	oneSample = 1 << 16
	// halfLife is the time in which a sample loses half its weight.
	halfLife = 10 * time.Second
	// minSamples are needed for a quantile that one call in twenty exceeds.
	minSamples = 20
	// refresh is how old a published quantile may be while there are new samples.
	refresh = 250 * time.Millisecond
)

// bounds are the upper bounds of the buckets within one doubling, as factors.
var bounds = func() (b [subBuckets]float64) {
	for i := range b {
		b[i] = math.Exp2(float64(i+1) / subBuckets)
	}
	return b
}()

// p95 follows the 95th percentile of latencies in an exponential histogram that forgets: good for
// deciding what is slow for this version, and when a second attempt is worth it.
type p95 struct {
	published atomic.Int64 // ns, 0 while unknown

	mu        sync.Mutex
	buckets   [octaves * subBuckets]uint64 // in units of oneSample
	total     uint64
	halved    time.Time
	refreshed time.Time
}

// observe adds a latency.
func (l *p95) observe(now time.Time, d time.Duration) {
	i := bucketOf(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total == 0 {
		l.halved = now
	}
	l.decay(now)
	l.buckets[i] += oneSample
	l.total += oneSample
	// The first quantile comes with the sample that makes it possible.
	if now.Sub(l.refreshed) >= refresh && l.total >= minSamples*oneSample {
		l.refreshed = now
		l.published.Store(int64(l.quantile()))
	}
}

// value returns the quantile, 0 while there are too few samples.
func (l *p95) value() time.Duration { return time.Duration(l.published.Load()) }

// decay halves all weights once per half-life, in one go after a pause, but keeps enough of them for a
// quantile: the last of a version that is rarely called may be old.
func (l *p95) decay(now time.Time) {
	age := now.Sub(l.halved)
	n := age / halfLife
	if n <= 0 {
		return
	}
	l.halved = l.halved.Add(age - age%halfLife)
	for ; n > 0 && l.total >= 2*minSamples*oneSample; n-- {
		l.total = 0
		for i := range l.buckets {
			l.buckets[i] /= 2
			l.total += l.buckets[i]
		}
	}
}

func (l *p95) quantile() time.Duration {
	rank := l.total - l.total/20
	for i, n := range l.buckets {
		if n >= rank {
			return upperBound(i)
		}
		rank -= n
	}
	return upperBound(len(l.buckets) - 1)
}

func bucketOf(d time.Duration) int {
	if d <= 1<<minExponent {
		return 0
	}
	fraction, exponent := math.Frexp(float64(d)) // in [0.5, 1)
	fraction *= 2
	octave := exponent - 1 - minExponent
	if octave >= octaves {
		return octaves*subBuckets - 1
	}
	sub := 0
	for fraction > bounds[sub] {
		sub++
	}
	return octave*subBuckets + sub
}

func upperBound(i int) time.Duration {
	return time.Duration(math.Ldexp(bounds[i%subBuckets], minExponent+i/subBuckets))
}
