package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/breaker"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

// OpenBreaker cuts off a version or an endpoint: on all gateways, by the routing
// state, or here alone.
func (s *Service) OpenBreaker(ctx context.Context, req *adminv1.OpenBreakerRequest) (*adminv1.OpenBreakerResponse, error) {
	if req.GetLocal() {
		guard, err := s.guardOf(req)
		if err == nil {
			err = checkLocal(req.GetIntent())
		}
		if err != nil {
			return nil, failure(err, ofRoute)
		}
		s.follow("open", req, guard.open)
		return &adminv1.OpenBreakerResponse{}, nil
	}
	var warning string
	outcome, err := s.change(ctx, req, func(_ context.Context, at *routing.State) (*routing.Update, error) {
		if _, err := s.guardOf(req); err != nil {
			return nil, err
		}
		route, err := s.routeOf(at, req.GetModel())
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(route.GetCutOff(), func(c *routingv1.CutOff) bool {
			return c.GetVersion() == req.GetVersion() && c.GetEndpoint() == req.GetEndpoint()
		}) {
			route.CutOff = append(route.CutOff, &routingv1.CutOff{Version: req.GetVersion(), Endpoint: req.GetEndpoint()})
		}
		if req.GetEndpoint() == "" {
			warning = nobodyElse(route, req.GetVersion())
		}
		return updateOf(req.GetIntent(), route, orderNote("open", req.GetVersion(), req.GetEndpoint())), nil
	})
	if err != nil {
		return nil, failure(err, ofRoute)
	}
	if warning != "" && outcome.GetChange() != nil {
		outcome.Warnings = append(outcome.Warnings, warning)
	}
	return &adminv1.OpenBreakerResponse{Outcome: outcome}, nil
}

// nobodyElse says so if a version that is cut off has a share of the calls and
// nobody answers in its stead.
func nobodyElse(route *routingv1.Route, version string) string {
	if route.GetWeights()[version] == 0 {
		return ""
	}
	for _, to := range route.GetFallback().GetTo() {
		if to != version && !slices.ContainsFunc(route.GetCutOff(), func(c *routingv1.CutOff) bool {
			return c.GetVersion() == to && c.GetEndpoint() == ""
		}) {
			return ""
		}
	}
	return fmt.Sprintf("no version answers for %q: its calls, %d of %d, will be refused (give the route a fallback, or its weight to others)",
		version, route.GetWeights()[version], sum(route))
}

// ResetBreaker takes orders back and forgets what this gateway's breakers have
// counted.
func (s *Service) ResetBreaker(ctx context.Context, req *adminv1.ResetBreakerRequest) (*adminv1.ResetBreakerResponse, error) {
	var guard ordered
	find := func() (err error) {
		guard, err = s.guardOf(req)
		return err
	}
	resp := new(adminv1.ResetBreakerResponse)
	var err error
	if req.GetLocal() {
		if err = find(); err == nil {
			err = checkLocal(req.GetIntent())
		}
	} else {
		resp.Outcome, err = s.change(ctx, req, func(_ context.Context, at *routing.State) (*routing.Update, error) {
			if err := find(); err != nil {
				return nil, err
			}
			route, err := s.routeOf(at, req.GetModel())
			if err != nil {
				return nil, err
			}
			route.CutOff = slices.DeleteFunc(route.CutOff, func(c *routingv1.CutOff) bool {
				return c.GetVersion() == req.GetVersion() && (req.GetEndpoint() == "" || c.GetEndpoint() == req.GetEndpoint())
			})
			return updateOf(req.GetIntent(), route, orderNote("reset", req.GetVersion(), req.GetEndpoint())), nil
		})
	}
	if err != nil {
		return nil, failure(err, ofRoute)
	}
	if guard.version != nil { // else it was made by an earlier request, and its version is gone by now
		s.follow("reset", req, guard.reset)
	}
	return resp, nil
}

// order is a request about a version or one of its endpoints.
type order interface {
	request
	GetModel() string
	GetVersion() string
	GetEndpoint() string
}

// checkLocal looks at the words of an order that becomes no change.
func checkLocal(in *adminv1.Intent) error {
	if err := checkActor(in.GetActor()); err != nil {
		return err
	}
	return (&routing.Update{Actor: in.GetActor(), Reason: in.GetReason()}).Validate()
}

// follow does here what an order says that the routing state does not, and writes it into
// the log: the history does not have it.
func (s *Service) follow(what string, o order, follow func(time.Time)) {
	in := o.GetIntent()
	if in.GetDryRun() {
		return
	}
	follow(time.Now())
	s.cfg.Logger.Warn("breaker "+what+" by an operator, on this gateway", "model", o.GetModel(), "version", o.GetVersion(),
		"endpoint", o.GetEndpoint(), "actor", in.GetActor(), "reason", in.GetReason())
}

// ordered is what orders are given to: a version, or one of its endpoints.
type ordered struct {
	version  *breaker.Version // nil if it has not been found
	endpoint *breaker.Breaker // nil for all of the version
	standing bool             // the routing state cuts the endpoint off
}

func (o ordered) open(now time.Time) {
	if o.endpoint != nil {
		o.endpoint.ForceOpen(now)
		return
	}
	o.version.Breaker().ForceOpen(now)
}

func (o ordered) reset(now time.Time) {
	switch {
	case o.endpoint == nil:
		o.version.Reset(now)
	case !o.standing:
		o.endpoint.Reset(now)
	}
}

// guardOf finds what an order is given to.
func (s *Service) guardOf(o order) (ordered, error) {
	model, version, endpoint := o.GetModel(), o.GetVersion(), o.GetEndpoint()
	route, ok := s.cfg.Router.Current().Route(model)
	if !ok {
		return ordered{}, s.noRoute(model)
	}
	v, ok := route.Version(version)
	if !ok {
		entry, _, _ := s.cfg.Watcher.Entry(model)
		return ordered{}, cmp.Or(checkVersion(entry.GetRoute(), version), s.noRoute(model))
	}
	guard := s.cfg.Gateway.Guard(v)
	if guard == nil {
		return ordered{}, s.noRoute(model) // it has just been deleted
	}
	if endpoint == "" {
		return ordered{version: guard}, nil
	}
	b, ok := guard.Known(endpoint)
	if !ok {
		var addrs []string
		for _, e := range guard.Status(time.Now()).Endpoints {
			addrs = append(addrs, e.Name.Endpoint)
		}
		return ordered{}, &routing.FieldError{Field: "endpoint", Got: fmt.Sprintf("%q", endpoint),
			Want: "one of the version's addresses (" + strings.Join(addrs, ", ") + ")"}
	}
	return ordered{guard, b, slices.Contains(v.CutOff.Endpoints, endpoint)}, nil
}
