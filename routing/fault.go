package routing

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/types/known/timestamppb"

	routingv1 "sluice/proto/sluice/routing/v1"
)

// MaxFault is the longest time that a fault may act.
const MaxFault = time.Hour

// Fault makes a share of the attempts at a version fail on purpose. One of Delay,
// Code and Reset is set.
type Fault struct {
	// Share is the part of the calls that are struck, above 0 and at most 1.
	Share float64
	// Delay holds an attempt back before it is sent.
	Delay time.Duration
	// Code is the gRPC status code that an attempt ends with.
	Code uint32
	// Reset ends an attempt as a stream that the server has reset.
	Reset bool
	// From and Until are the wall-clock times between which the fault acts.
	From, Until time.Time
}

// ActiveAt reports whether the fault acts at a time, by the wall clock.
func (f *Fault) ActiveAt(now time.Time) bool { return !now.Before(f.From) && now.Before(f.Until) }

// FaultOf returns the fault that a valid document describes. Equal descriptions have
// equal faults, by ==.
func FaultOf(d *routingv1.Fault) Fault {
	return Fault{
		Share: d.GetPercent() / 100,
		Delay: d.GetDelay().AsDuration(), Code: uint32(code.Code_value[d.GetStatus()]), Reset: d.GetResetStream(),
		From: d.GetFrom().AsTime(), Until: d.GetUntil().AsTime(),
	}
}

// setFaults gives the versions the faults that concern them. The document has been
// validated.
func (r *Route) setFaults(doc *routingv1.Route) {
	for _, d := range doc.GetFaults() {
		f := FaultOf(d)
		for _, v := range r.Versions {
			if d.GetVersion() == "" || d.GetVersion() == v.Name {
				v.Faults = append(v.Faults, f)
			}
		}
	}
}

// WithoutEndedFaults returns the faults that have not ended at a time, in their
// order.
func WithoutEndedFaults(faults []*routingv1.Fault, now time.Time) []*routingv1.Fault {
	var left []*routingv1.Fault
	for _, f := range faults {
		if now.Before(f.GetUntil().AsTime()) {
			left = append(left, f)
		}
	}
	return left
}

// faults wants known versions, one kind each, and bounded times. Whether a fault
// has ended does not matter: what a gateway accepts, one that starts a day later
// has to accept.
func (r *rules) faults(at path, route *routingv1.Route) {
	names := versionNames(route)
	for i, f := range route.GetFaults() {
		at := at.index(i)
		if v := f.GetVersion(); v != "" && !slices.Contains(names, v) {
			r.report(at.field("version"), quote(v), "one of the route's versions (%s)", list(names))
		}
		if kinds := faultKinds(f); len(kinds) != 1 {
			r.report(at, cmp.Or(strings.Join(kinds, " and "), "none"), "one of delay, status and reset_stream")
		}
		r.faultTimes(at, f.GetFrom(), f.GetUntil())
	}
}

// faultKinds names the kinds of a fault that are set.
func faultKinds(f *routingv1.Fault) []string {
	var kinds []string
	if f.GetDelay() != nil {
		kinds = append(kinds, "delay")
	}
	if f.GetStatus() != "" {
		kinds = append(kinds, "status")
	}
	if f.GetResetStream() {
		kinds = append(kinds, "reset_stream")
	}
	return kinds
}

func (r *rules) faultTimes(at path, from, until *timestamppb.Timestamp) {
	switch {
	case !from.IsValid():
		r.report(at.field("from"), showTime(from), "the time when the fault begins")
	case !until.IsValid():
		r.report(at.field("until"), showTime(until), "the time when the fault ends")
	case !until.AsTime().After(from.AsTime()):
		r.report(at.field("until"), showTime(until), "a time after from (%s)", showTime(from))
	case until.AsTime().Sub(from.AsTime()) > MaxFault:
		r.report(at.field("until"), showTime(until), "at most %s after from (%s)", MaxFault, showTime(from))
	}
}

func showTime(t *timestamppb.Timestamp) string {
	if t == nil {
		return "nothing"
	}
	return t.AsTime().Format(time.RFC3339Nano)
}
