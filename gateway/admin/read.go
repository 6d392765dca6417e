package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/gateway"
	"sluice/gateway/health"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

const (
	// maxHistory bounds the changes in one answer, maxHistoryBytes about their size: a
	// change of 10,000 routes has some megabytes, before and after.
	maxHistory      = 1000
	maxHistoryBytes = 16 << 20
	// historiesAtOnce bounds how many requests read the history at the same time.
	historiesAtOnce = 4
)

// Get returns routes as they are served.
func (s *Service) Get(_ context.Context, req *adminv1.GetRequest) (*adminv1.GetResponse, error) {
	if model := req.GetModel(); model != "" {
		entry, revision, ok := s.cfg.Watcher.Entry(model)
		if !ok {
			return nil, failure(s.noRoute(model), ofRoute)
		}
		return &adminv1.GetResponse{Revision: revision, Routes: []*routingv1.StoredRoute{entry}}, nil
	}
	if status := s.cfg.Watcher.Status(); !status.Ready() && status.Err != nil {
		return nil, failure(&noStateError{status.Err}, ofRoute)
	}
	at := s.cfg.Watcher.State()
	return &adminv1.GetResponse{Revision: at.Revision, Routes: entries(at)}, nil
}

// entries returns the routes of a state in the order of their models' names.
func entries(at *routing.State) []*routingv1.StoredRoute {
	var all []*routingv1.StoredRoute
	for _, model := range slices.Sorted(maps.Keys(at.Routes)) {
		if entry := at.Routes[model]; entry.GetRoute() != nil {
			all = append(all, entry)
		}
	}
	return all
}

// History returns changes, the newest first.
func (s *Service) History(ctx context.Context, req *adminv1.HistoryRequest) (*adminv1.HistoryResponse, error) {
	if req.GetLimit() > maxHistory {
		return nil, failure(&routing.FieldError{
			Field: "limit", Got: fmt.Sprint(req.GetLimit()), Want: fmt.Sprintf("at most %d", maxHistory),
		}, ofRoute)
	}
	q := routing.HistoryQuery{
		Model: req.GetModel(), Limit: int(req.GetLimit()), Bytes: maxHistoryBytes, Documents: int(req.GetDocuments()),
	}
	switch before := req.GetBefore(); before {
	case 0:
	case 1:
		return &adminv1.HistoryResponse{}, nil // revision 1 is the first
	default:
		q.To = before - 1
	}
	changes, err := s.history(ctx, q)
	if err != nil {
		return nil, failure(err, ofRoute)
	}
	resp := &adminv1.HistoryResponse{Changes: changes}
	if n := len(changes); n > 0 && n < q.Max() && changes[n-1].GetRevision() > 1 && isFull(q, changes) {
		resp.Next = changes[n-1].GetRevision()
	}
	return resp, nil
}

// isFull reports whether an answer ends where it does for its size.
func isFull(q routing.HistoryQuery, changes []*routingv1.Change) bool {
	bytes := 0
	for _, c := range changes {
		bytes += proto.Size(c)
	}
	return bytes >= q.Bytes
}

// history asks the store, when few others do: what it returns can be large.
func (s *Service) history(ctx context.Context, q routing.HistoryQuery) ([]*routingv1.Change, error) {
	select {
	case s.histories <- struct{}{}:
		defer func() { <-s.histories }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.cfg.Watcher.History(ctx, q)
}

// Status says how the gateway stands with its store and with its endpoints.
func (s *Service) Status(ctx context.Context, req *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	table := s.cfg.Router.Current()
	resp := &adminv1.StatusResponse{
		Version: s.cfg.Version,
		Started: timestamppb.New(s.started),
		Ready:   s.cfg.Gateway.IsReady(),
		Models:  uint32(table.Len()),
		Store:   storeStatus(s.cfg.Watcher.Status()),
	}
	if _, ok := table.Route(req.GetModel()); req.GetModel() != "" && !ok {
		return nil, failure(s.noRoute(req.GetModel()), ofRoute)
	}
	var versions []*routing.Version
	for r := range table.Routes() {
		if req.GetModel() == "" || r.Model == req.GetModel() {
			versions = append(versions, r.Versions...)
		}
	}
	if !req.GetProbe() {
		for _, v := range versions {
			resp.Versions = append(resp.Versions, versionStatus(v, s.endpoints(v)))
		}
		return resp, nil
	}
	if n := endpointsOf(versions); n > maxProbes {
		return nil, failure(&routing.FieldError{
			Field: "probe", Got: fmt.Sprintf("%d endpoints", n), Want: fmt.Sprintf("at most %d: name a model", maxProbes),
		}, ofRoute)
	}
	for i, results := range s.probe(ctx, versions, false) {
		resp.Versions = append(resp.Versions, versionStatus(versions[i], probedEndpoints(results)))
	}
	return resp, nil
}

func versionStatus(v *routing.Version, endpoints []*adminv1.Endpoint) *adminv1.VersionStatus {
	return &adminv1.VersionStatus{Model: v.Model, Version: v.Name, Weight: v.Weight, Endpoints: endpoints}
}

func endpointsOf(versions []*routing.Version) int {
	n := 0
	for _, v := range versions {
		n += len(v.Endpoints)
	}
	return n
}

// endpoints returns what calls and probes have found out.
func (s *Service) endpoints(v *routing.Version) []*adminv1.Endpoint {
	var all []*adminv1.Endpoint
	for _, e := range s.cfg.Gateway.Endpoints(v) {
		all = append(all, endpointStatus(e))
	}
	return all
}

func endpointStatus(e gateway.EndpointStatus) *adminv1.Endpoint {
	unhealthy := e.Health.State == health.Unhealthy
	status := &adminv1.Endpoint{
		Address: e.Addr, Healthy: !e.Failing && !unhealthy,
		InFlight: uint32(max(0, e.InFlight)), Connections: uint32(max(0, e.Conns)),
		Asked: timeOrNil(e.Health.Asked), Ejected: e.Ejected, Share: e.Share,
	}
	if e.Asked {
		status.Health = e.Health.State.String()
	}
	switch {
	case unhealthy:
		status.Problem, status.Since = e.Health.Why, timeOrNil(e.Health.Since)
	case e.Failing:
		status.Problem = "the last attempt to connect has failed"
	case e.Ejected:
		status.Problem = fmt.Sprintf("its breaker is %s: %s", e.Breaker.State, e.Breaker.Cause)
		status.Since = timeOrNil(e.Breaker.Since)
	case e.Health.Why != "":
		status.Problem = e.Health.Why // not for the number of times that counts
	}
	return status
}

// probedEndpoints returns what was found out just now.
func probedEndpoints(results []probed) []*adminv1.Endpoint {
	var all []*adminv1.Endpoint
	for _, r := range results {
		status := &adminv1.Endpoint{Address: r.endpoint, Healthy: r.err == nil}
		if r.err != nil {
			status.Problem = r.err.Error()
		}
		all = append(all, status)
	}
	return all
}

// storeStatus says how a gateway stands with its store.
func storeStatus(at routing.Status) *adminv1.StoreStatus {
	status := &adminv1.StoreStatus{
		Revision:  at.Revision,
		Id:        at.ID,
		Epoch:     at.Epoch,
		Name:      at.Store,
		Source:    at.Source.String(),
		Following: at.Following,
		Changed:   timeOrNil(at.ChangedAt),
		Confirmed: timeOrNil(at.ConfirmedAt),
		Age:       durationpb.New(at.Age().Round(time.Millisecond)),
		Problems:  problems(at.Err),
		Missing:   at.Missing,
		Differing: at.SeedDiffers,
		Cache:     at.CacheDir,
	}
	for _, r := range at.Refused {
		status.Refused = append(status.Refused, &adminv1.RefusedRoute{Model: r.Model, Revision: r.Revision, Problem: r.Err.Error()})
	}
	if at.CacheErr != nil {
		status.CacheProblem = at.CacheErr.Error()
	}
	return status
}

// problems takes joined errors apart.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error }) // only the outermost join is taken apart
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, e.Error())
	}
	return all
}

func timeOrNil(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
