package breaker

import "time"

// Settings of a breaker. A zero field takes its default.
type Settings struct {
	// FailureRatio is the share of failures, of all calls in the window, that opens the breaker: 0.5.
	FailureRatio float64
	// MinCalls is the number of calls in the window below which no ratio is looked at: 20.
	MinCalls uint32
	// Consecutive is the number of failures in a row that opens the breaker: 5.
	Consecutive uint32
	// OpenFor is the time before the first probe: 5 s.
	OpenFor time.Duration
	// MaxOpenFor is what OpenFor grows to, doubling, while probes fail: 60 s. It is never below OpenFor.
	MaxOpenFor time.Duration
	// SlowCall is the latency above which a good answer is slow. 0 means that slowness opens nothing.
	SlowCall time.Duration
	// SlowRatio is the share of slow answers, of all calls in the window, that opens the breaker: 0.5.
	SlowRatio float64
	// DryRun makes the breaker report what it would do, without refusing anything.
	DryRun bool
}

func (s Settings) withDefaults() Settings {
	fill(&s.FailureRatio, 0.5)
	fill(&s.MinCalls, 20)
	fill(&s.Consecutive, 5)
	fill(&s.OpenFor, 5*time.Second)
	fill(&s.MaxOpenFor, 60*time.Second)
	fill(&s.SlowRatio, 0.5)
	s.MaxOpenFor = max(s.MaxOpenFor, s.OpenFor)
	return s
}

func fill[T float64 | uint32 | int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
