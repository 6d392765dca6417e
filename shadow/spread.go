package shadow

import (
	"math"
	"sort"
	"time"
)

// spread is a distribution of durations, negative ones too, in buckets that grow by a
// factor of 2^(1/8) from 1 us: a quantile is off by at most 4.5 % of itself, or 1 us.
// The zero value is empty.
type spread struct {
	n        uint64
	below    [buckets]uint64 // negative durations, by their size
	above    [buckets]uint64
	sum      time.Duration
	min, max time.Duration
}

const (
	buckets      = 256 // up to more than an hour
	perDoubling  = 8
	bucketOrigin = time.Microsecond
)

// bucket is where a duration of that size is counted: 0 for less than 1 us.
func bucket(size time.Duration) int {
	if size < bucketOrigin {
		return 0
	}
	return min(buckets-1, 1+int(perDoubling*math.Log2(float64(size)/float64(bucketOrigin))))
}

// middle is the duration that stands for those of a bucket.
func middle(b int) time.Duration {
	if b == 0 {
		return 0
	}
	return time.Duration(float64(bucketOrigin) * math.Exp2((float64(b)-0.5)/perDoubling))
}

func (s *spread) add(d time.Duration) {
	if s.n == 0 || d < s.min {
		s.min = d
	}
	if s.n == 0 || d > s.max {
		s.max = d
	}
	s.n++
	s.sum += d
	if d < 0 {
		s.below[bucket(-d)]++
	} else {
		s.above[bucket(d)]++
	}
}

// Spread tells of a distribution of durations.
type Spread struct {
	N                 uint64
	Mean, Min, Max    time.Duration
	P5, P50, P95, P99 time.Duration
}

func (s *spread) read() Spread {
	if s.n == 0 {
		return Spread{}
	}
	all := Spread{N: s.n, Mean: s.sum / time.Duration(s.n), Min: s.min, Max: s.max}
	// All counts from the smallest duration to the largest, added up.
	var upTo [2 * buckets]uint64
	total := uint64(0)
	for i := range upTo {
		if i < buckets {
			total += s.below[buckets-1-i]
		} else {
			total += s.above[i-buckets]
		}
		upTo[i] = total
	}
	quantile := func(q float64) time.Duration {
		rank := uint64(math.Ceil(q * float64(s.n)))
		i := sort.Search(len(upTo), func(i int) bool { return upTo[i] >= rank })
		d := middle(i - buckets)
		if i < buckets {
			d = -middle(buckets - 1 - i)
		}
		return max(s.min, min(s.max, d))
	}
	all.P5, all.P50, all.P95, all.P99 = quantile(0.05), quantile(0.5), quantile(0.95), quantile(0.99)
	return all
}
