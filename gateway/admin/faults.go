package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// shortestFault is long enough for a fault to reach the gateways before it ends.
const shortestFault = time.Second

// InjectFault adds a fault to a route, from now on and for a time.
func (s *Service) InjectFault(ctx context.Context, req *adminv1.InjectFaultRequest) (*adminv1.InjectFaultResponse, error) {
	lasts := req.GetDuration()
	switch {
	case req.GetFault() == nil:
		return nil, failure(&routing.FieldError{Field: "fault", Got: "nothing", Want: "what is to happen to which calls"}, ofRoute)
	case req.GetFault().GetFrom() != nil || req.GetFault().GetUntil() != nil:
		return nil, failure(&routing.FieldError{Field: "fault", Got: "from or until", Want: "neither: it begins now and acts for duration"}, ofRoute)
	case !lasts.IsValid() || lasts.AsDuration() < shortestFault || lasts.AsDuration() > routing.MaxFault:
		return nil, failure(&routing.FieldError{Field: "duration", Got: lasts.AsDuration().String(),
			Want: fmt.Sprintf("a duration from %s to %s", shortestFault, routing.MaxFault)}, ofRoute)
	}
	at := 0 // among the route's faults
	outcome, err := s.change(ctx, req, func(_ context.Context, now *routing.State) (*routing.Update, error) {
		route, err := s.routeOf(now, req.GetModel())
		if err != nil {
			return nil, err
		}
		begin := time.Now().Truncate(time.Millisecond)
		fault := proto.CloneOf(req.GetFault())
		fault.From, fault.Until = timestamppb.New(begin), timestamppb.New(begin.Add(lasts.AsDuration()))
		route.Faults = append(routing.WithoutEndedFaults(route.Faults, begin), fault)
		at = len(route.Faults) - 1
		return updateOf(req.GetIntent(), route, strings.TrimSpace(fmt.Sprintf("fault for %v %s", lasts.AsDuration(), fault.GetVersion()))), nil
	})
	if err != nil {
		return nil, failure(err, func(field string) string {
			return strings.Replace(ofRoute(field), fmt.Sprintf("faults[%d]", at), "fault", 1)
		})
	}
	return &adminv1.InjectFaultResponse{Outcome: outcome}, nil
}

// ListFaults returns the faults of routes, with those that have ended and are still
// in the documents.
func (s *Service) ListFaults(_ context.Context, req *adminv1.ListFaultsRequest) (*adminv1.ListFaultsResponse, error) {
	at, now := s.cfg.Watcher.State(), time.Now()
	if model := req.GetModel(); model != "" && at.Routes[model].GetRoute() == nil {
		return nil, failure(s.noRoute(model), ofRoute)
	}
	resp := &adminv1.ListFaultsResponse{Time: timestamppb.New(now)}
	for _, entry := range entries(at) {
		if req.GetModel() != "" && entry.GetModel() != req.GetModel() {
			continue
		}
		for _, f := range entry.GetRoute().GetFaults() {
			state := "active"
			switch {
			case now.Before(f.GetFrom().AsTime()):
				state = "pending"
			case !now.Before(f.GetUntil().AsTime()):
				state = "ended"
			}
			resp.Faults = append(resp.Faults, &adminv1.RouteFault{
				Model: entry.GetModel(), Fault: f, State: state, Struck: s.struck(entry.GetModel(), f),
			})
		}
	}
	return resp, nil
}

// struck sums up what a fault of a route has done at the versions it concerns.
func (s *Service) struck(model string, f *routingv1.Fault) (n uint64) {
	route, ok := s.cfg.Router.Current().Route(model)
	if !ok {
		return 0
	}
	for _, v := range route.Versions {
		n += s.cfg.Gateway.Struck(v, routing.FaultOf(f))
	}
	return n
}

// ClearFaults takes faults out of a route.
func (s *Service) ClearFaults(ctx context.Context, req *adminv1.ClearFaultsRequest) (*adminv1.ClearFaultsResponse, error) {
	outcome, err := s.change(ctx, req, func(_ context.Context, at *routing.State) (*routing.Update, error) {
		route, err := s.routeOf(at, req.GetModel())
		if err != nil {
			return nil, err
		}
		if err := checkVersion(route, req.GetVersion()); req.GetVersion() != "" && err != nil {
			return nil, err
		}
		route.Faults = slices.DeleteFunc(route.Faults, func(f *routingv1.Fault) bool {
			return req.GetVersion() == "" || f.GetVersion() == req.GetVersion()
		})
		return updateOf(req.GetIntent(), route, strings.TrimSpace("clear faults "+req.GetVersion())), nil
	})
	if err != nil {
		return nil, failure(err, ofRoute)
	}
	return &adminv1.ClearFaultsResponse{Outcome: outcome}, nil
}

// leaveOutEndedFaults takes faults that have ended out of routes that change
// anyway. That alone is no change: a route that stays as it is keeps them.
func leaveOutEndedFaults(u *routing.Update, at *routing.State, now time.Time) {
	for i, route := range u.Set {
		if proto.Equal(route, at.Routes[route.GetModel()].GetRoute()) {
			continue
		}
		u.Set[i] = withoutEndedFaults(route, now)
	}
}

// withoutEndedFaults returns a route as it acts, which is the route itself if none of its
// faults has ended.
func withoutEndedFaults(route *routingv1.Route, now time.Time) *routingv1.Route {
	left := routing.WithoutEndedFaults(route.GetFaults(), now)
	if len(left) == len(route.GetFaults()) {
		return route
	}
	route = proto.CloneOf(route) // it may be somebody else's
	route.Faults = left
	return route
}
