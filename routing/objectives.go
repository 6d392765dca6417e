package routing

import (
	"strconv"
	"time"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// Objectives are how good the answers of a route are meant to be, over 30 days.
type Objectives struct {
	// Availability is the share of calls that are to be answered, above 0 and below 1; 0
	// means that the route says nothing about it.
	Availability float64
	// Fast is the share of the good answers that are to come within Latency; 0 means that
	// the route says nothing about it.
	Fast    float64
	Latency time.Duration
}

// fraction is a percentage as a share: 99.9 % is 0.999, where dividing by 100 has 0.9990000000000001.
func fraction(percent float64) float64 {
	share, err := strconv.ParseFloat(strconv.FormatFloat(percent, 'f', -1, 64)+"e-2", 64)
	if err != nil {
		return percent / 100
	}
	return share
}

// newObjectives reads a validated document.
func newObjectives(doc *routingv1.SLO) Objectives {
	o := Objectives{Availability: fraction(doc.GetAvailability())}
	l := doc.GetLatency()
	switch {
	case l.GetP50() != nil:
		o.Fast, o.Latency = .5, l.GetP50().AsDuration()
	case l.GetP90() != nil:
		o.Fast, o.Latency = .9, l.GetP90().AsDuration()
	case l.GetP95() != nil:
		o.Fast, o.Latency = .95, l.GetP95().AsDuration()
	case l.GetP99() != nil:
		o.Fast, o.Latency = .99, l.GetP99().AsDuration()
	case l.GetP999() != nil:
		o.Fast, o.Latency = .999, l.GetP999().AsDuration()
	}
	return o
}
