package routing

import (
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

// newObjectives reads a validated document.
func newObjectives(doc *routingv1.SLO) Objectives {
	o := Objectives{Availability: doc.GetAvailability() / 100}
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
