package breaker

import "time"

const (
	// windowBuckets and bucketLength make a window of 10 s: long enough to collect MinCalls at two
	// calls a second, short enough that yesterday's failures are not held against a version.
	windowBuckets = 10
	bucketLength  = time.Second
)

// Counts are the results of the last 10 s.
type Counts struct {
	// Calls are all results that count: successes, slow answers, overloads and failures.
	Calls uint32
	// Failures, Overloaded and Slow are those of each kind.
	Failures, Overloaded, Slow uint32
	// Consecutive is the number of failures in a row, however old.
	Consecutive uint32
}

// bad is the number of results that were not good.
func (t *tally) bad() uint32 { return t.failures + t.overloaded + t.slow }

// window counts results at completion, in buckets that are forgotten one by one. gobreaker's own
// Interval will not do: it drops the results of calls that began in an earlier bucket, which are
// the slow ones.
type window struct {
	buckets [windowBuckets]tally
	total   tally
	head    time.Duration // start of the newest bucket, a multiple of bucketLength
}

type tally struct{ calls, failures, overloaded, slow uint32 }

func (t *tally) add(o Outcome) {
	t.calls++
	switch o {
	case Failure:
		t.failures++
	case Overloaded:
		t.overloaded++
	case Slow:
		t.slow++
	case Success, Excluded:
	}
}

// add counts a result at a time since the breaker's start. A result that comes after a newer one is
// counted in the newest bucket.
func (w *window) add(at time.Duration, o Outcome) {
	w.advance(at)
	w.bucket().add(o)
	w.total.add(o)
}

// advance forgets what is older than the window.
func (w *window) advance(at time.Duration) {
	if at >= w.head+windowBuckets*bucketLength {
		*w = window{head: at.Truncate(bucketLength)}
		return
	}
	for at >= w.head+bucketLength {
		w.head += bucketLength
		b := w.bucket()
		w.total.calls -= b.calls
		w.total.failures -= b.failures
		w.total.overloaded -= b.overloaded
		w.total.slow -= b.slow
		*b = tally{}
	}
}

func (w *window) bucket() *tally { return &w.buckets[w.head/bucketLength%windowBuckets] }
