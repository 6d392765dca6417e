package load

import (
	"net/url"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Outcomes that are no gRPC status.
const (
	outcomeTimedOut    = "timed out"
	outcomeLost        = "connection lost"
	outcomeNotBegun    = "no free stream until the end"
	outcomeInterrupted = "interrupted"
)

// Result is a run.
type Result struct {
	Elapsed  time.Duration // from the start until the last call ended
	OK       uint64
	Failures map[string]uint64 // by gRPC status or by what happened to the call
	Said     map[string]string // what the server said to the first failure of a kind, if it said something
	Messages uint64            // of answers
	Bytes    uint64            // of answers, with gRPC's framing

	// Latency has the calls that were answered with OK and those that were never
	// answered, these with the time until they were given up. In the open loop it counts
	// from when the call was due, in the closed loop from when it was sent.
	Latency *hdrhistogram.Histogram
	// TooLong is how many latencies were longer than [Longest] and are recorded as that.
	TooLong uint64

	// Lag has, for calls of the open loop that found a stream free when they were due, how
	// late the generator itself sent them: a part of their latency that is not the server's.
	Lag *hdrhistogram.Histogram
	// Waited is how many calls of the open loop found no stream free when they were due.
	Waited uint64

	Reconnects uint64        // connections that were lost and made again
	CPU        time.Duration // of this process, user and system
}

// Calls is how many calls there were, or should have been.
func (r *Result) Calls() uint64 { return r.OK + r.failed() }

func (r *Result) failed() (n uint64) {
	for _, k := range r.Failures {
		n += k
	}
	return n
}

// fail counts a failure; said is its grpc-message, which is percent-encoded.
func (r *Result) fail(outcome, said string) {
	if r.Failures[outcome]++; r.Failures[outcome] == 1 && said != "" {
		if text, err := url.PathUnescape(said); err == nil {
			said = text
		}
		r.Said[outcome] = said
	}
}

// PerSecond is the rate of calls with an answer of status OK.
func (r *Result) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.OK) / r.Elapsed.Seconds()
}

// CPUPerCall is what a call cost the generator itself.
func (r *Result) CPUPerCall() time.Duration {
	if n := r.Calls(); n > 0 {
		return r.CPU / time.Duration(n)
	}
	return 0
}

// Quantile returns a latency, q in percent.
func (r *Result) Quantile(q float64) time.Duration { return quantile(r.Latency, q) }

// Late returns a quantile of Lag, q in percent.
func (r *Result) Late(q float64) time.Duration { return quantile(r.Lag, q) }

// beyond is how many calls have to lie beyond a quantile for it to be known: with fewer it is the chance of a few.
const beyond = 10

// Stands reports whether calls are enough for a quantile in the tail, in percent: ten of them lie beyond it.
func Stands(q float64, calls uint64) bool {
	return float64(calls)*(100-q) >= 100*beyond*(1-1e-9) // 99.9 is no binary fraction
}

// Progress is what happened since the one before.
type Progress struct {
	At       time.Duration // since the start
	Interval time.Duration
	OK       uint64
	Failed   uint64
	Open     int // calls under way now

	P50, P99, Max time.Duration
}

func quantile(h *hdrhistogram.Histogram, q float64) time.Duration {
	return micros(h.ValueAtQuantile(q))
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
