package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// Apply sets and deletes whole routes.
func (s *Service) Apply(ctx context.Context, req *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
	outcome, err := s.change(ctx, req, func(_ context.Context, at *routing.State) (*routing.Update, error) {
		u := &routing.Update{Set: req.GetDocument().GetRoutes(), Delete: slices.Clone(req.GetDelete())}
		if req.GetPrune() {
			for _, model := range routing.UpdateTo(req.GetDocument(), at).Delete {
				if !slices.Contains(u.Delete, model) {
					u.Delete = append(u.Delete, model)
				}
			}
		}
		for _, model := range req.GetDelete() {
			if at.Routes[model].GetRoute() == nil {
				return nil, s.noRoute(model)
			}
		}
		u.Reason = reasonOr(req.GetIntent(), applyNote(u))
		return u, nil
	})
	if err != nil {
		return nil, failure(err, func(field string) string { return strings.Replace(field, "routes[", "document.routes[", 1) })
	}
	return &adminv1.ApplyResponse{Outcome: outcome}, nil
}

// SetWeights replaces the split of one model.
func (s *Service) SetWeights(ctx context.Context, req *adminv1.SetWeightsRequest) (*adminv1.SetWeightsResponse, error) {
	outcome, err := s.change(ctx, req, func(_ context.Context, at *routing.State) (*routing.Update, error) {
		route, err := s.routeOf(at, req.GetModel())
		if err != nil {
			return nil, err
		}
		route.Weights = withoutZeros(req.GetWeights(), route)
		return updateOf(req.GetIntent(), route, weightsNote(req.GetWeights())), nil
	})
	if err != nil {
		return nil, failure(err, ofRoute)
	}
	return &adminv1.SetWeightsResponse{Outcome: outcome}, nil
}

// withoutZeros leaves out what a document need not say, so that equal splits are
// equal documents. A name that the route does not know stays, to be refused.
func withoutZeros(weights map[string]uint32, route *routingv1.Route) map[string]uint32 {
	kept := maps.Clone(weights)
	for _, v := range route.GetVersions() {
		if kept[v.GetName()] == 0 {
			delete(kept, v.GetName())
		}
	}
	return kept
}

// fallbackCodes are what a promoted version falls back on if its route does not
// say: what a version that is broken answers, and a version that is asked wrongly
// does not.
var fallbackCodes = []string{"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"}

// Promote sends all calls to one version and makes the one before it the
// fallback.
func (s *Service) Promote(ctx context.Context, req *adminv1.PromoteRequest) (*adminv1.PromoteResponse, error) {
	outcome, err := s.change(ctx, req, func(_ context.Context, at *routing.State) (*routing.Update, error) {
		route, err := s.routeOf(at, req.GetModel())
		if err != nil {
			return nil, err
		}
		previous, err := promote(route, req.GetVersion())
		if err != nil {
			return nil, err
		}
		u := updateOf(req.GetIntent(), route, "promote "+req.GetVersion())
		if previous != "" {
			u.Reason = promotionReason(req.GetIntent().GetReason(), req.GetVersion(), previous)
		}
		return u, nil
	})
	if err != nil {
		return nil, failure(err, ofRoute)
	}
	return &adminv1.PromoteResponse{Outcome: outcome, Previous: previousOf(outcome.GetChange(), req.GetVersion())}, nil
}

// previousOf returns what a promotion has replaced. The change says so: it may be that of an
// earlier request with the same key, when the route was another one.
func previousOf(c *routingv1.Change, version string) string {
	for _, r := range c.GetRoutes() {
		if r.GetBefore() != nil {
			previous, _ := promote(proto.CloneOf(r.GetBefore()), version) // without the version, nothing
			return previous
		}
	}
	return ""
}

// promote gives a version all weight and returns the one that had most of it
// before, if that is another: it answers from now on when the promoted one fails.
func promote(route *routingv1.Route, version string) (previous string, err error) {
	if err := checkVersion(route, version); err != nil {
		return "", err
	}
	for _, v := range route.GetVersions() {
		name := v.GetName()
		if name != version && route.GetWeights()[name] > route.GetWeights()[previous] {
			previous = name
		}
	}
	if previous != "" || route.GetWeights()[version] == 0 {
		route.Weights = map[string]uint32{version: 100}
	}
	if previous != "" {
		if route.Fallback == nil {
			route.Fallback = &routingv1.Fallback{On: slices.Clone(fallbackCodes)}
		}
		route.Fallback.To = []string{previous} // all else of it stays
	}
	return previous, nil
}

// checkVersion refuses a name that none of a route's versions has.
func checkVersion(route *routingv1.Route, version string) error {
	var names []string
	for _, v := range route.GetVersions() {
		names = append(names, v.GetName())
	}
	if slices.Contains(names, version) {
		return nil
	}
	got := fmt.Sprintf("%q", version)
	if version == "" {
		got = "nothing"
	}
	return &routing.FieldError{Field: "version", Got: got,
		Want: "one of the route's versions (" + strings.Join(names, ", ") + ")"}
}

// promotionReason is the reason of a promotion: its actor's, and where there is room,
// what it did.
func promotionReason(reason, version, previous string) string {
	note := fmt.Sprintf("promote %s over %s", version, previous)
	if isBlank(reason) {
		return note
	}
	if note = " (" + note + ")"; len(reason)+len(note) > routing.MaxReason {
		return reason
	}
	return reason + note
}

// ofRoute turns the place of a problem in an update of one route into that in a
// request about it.
func ofRoute(field string) string { return strings.TrimPrefix(field, "routes[0].") }
