package load

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Arrivals says how the calls of the open loop are spread over time.
type Arrivals string

const (
	// Poisson draws independent, exponential gaps, as calls of many independent users
	// have. It is the zero value's meaning.
	Poisson Arrivals = "poisson"
	// Constant leaves the same gap between any two calls.
	Constant Arrivals = "constant"
)

// String implements pflag.Value.
func (a *Arrivals) String() string { return string(*a) }

// Type implements pflag.Value.
func (a *Arrivals) Type() string { return "arrivals" }

// Set implements pflag.Value.
func (a *Arrivals) Set(text string) error {
	if got := Arrivals(text); got == Poisson || got == Constant {
		*a = got
		return nil
	}
	return fmt.Errorf("want %s or %s", Poisson, Constant)
}

// schedule tells when each call of the open loop is due. It keeps no list: what is due
// and could not be started yet simply waits in it.
type schedule struct {
	gap    float64 // mean, in nanoseconds
	spread Arrivals
	random *rand.Rand
	at     float64 // when the next call is due, in nanoseconds since the start
}

func newSchedule(rate float64, spread Arrivals, random *rand.Rand) *schedule {
	s := &schedule{gap: float64(time.Second) / rate, spread: spread, random: random}
	if spread != Constant {
		s.advance() // also the first call comes by chance
	}
	return s
}

// due returns when the next call is due.
func (s *schedule) due() time.Duration { return time.Duration(s.at) }

// advance moves on to the call after the next. Times are summed up as floats, whose error
// over the longest run stays far below a microsecond.
func (s *schedule) advance() {
	if s.spread == Constant {
		s.at += s.gap
		return
	}
	s.at += s.gap * s.random.ExpFloat64()
}
