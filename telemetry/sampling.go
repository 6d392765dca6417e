package telemetry

import (
	"fmt"
	"math"
	"strconv"
)

// Sampling says which calls' spans are kept whatever becomes of them.
type Sampling struct {
	parentBased bool    // the caller decides, where its traceparent says something
	ratio       float64 // the share of the others
	below       uint64  // ids that are sampled
}

// DefaultRatio is the share of calls that are sampled if nothing else is said. OpenTelemetry's own default
// is all of them, which suits a service that answers by itself better than one that every call of many
// services passes through; whatever is worth looking at is kept anyway.
const DefaultRatio = 0.01

// NewSampling returns what keeps a share of the calls, from 0 to 1, unless with parentBased their callers decide.
func NewSampling(parentBased bool, ratio float64) *Sampling {
	s := &Sampling{parentBased: parentBased, ratio: ratio}
	switch {
	case ratio >= 1:
		s.below = math.MaxUint64
	case ratio > 0:
		s.below = uint64(ratio * (1 << 64))
	}
	return s
}

// parseSampling reads the values of OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.
func parseSampling(name, arg string) (*Sampling, error) {
	switch name {
	case "":
		if arg != "" {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: got %q without OTEL_TRACES_SAMPLER, want both or neither", arg)
		}
		return NewSampling(true, DefaultRatio), nil
	case "always_on":
		return NewSampling(false, 1), nil
	case "always_off":
		return NewSampling(false, 0), nil
	case "parentbased_always_on":
		return NewSampling(true, 1), nil
	case "parentbased_always_off":
		return NewSampling(true, 0), nil
	case "traceidratio", "parentbased_traceidratio":
		ratio := 1.0
		if arg != "" {
			var err error
			if ratio, err = strconv.ParseFloat(arg, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
				return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: got %q, want a number from 0 to 1", arg)
			}
		}
		return NewSampling(name != "traceidratio", ratio), nil
	}
	return nil, fmt.Errorf("OTEL_TRACES_SAMPLER: got %q, want always_on, always_off, traceidratio, "+
		"or one of them with parentbased_ before it", name)
}

// String says in words what is sampled.
func (s *Sampling) String() string {
	share := strconv.FormatFloat(100*s.ratio, 'g', 4, 64) + " %"
	if s.parentBased {
		return share + ", or as the caller says"
	}
	return share
}
