package admin

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/breaker"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
)

// breakerRoom is how many events one watcher of breakers may leave unread.
const breakerRoom = 256

// ListBreakers returns how the breakers stand now.
func (s *Service) ListBreakers(_ context.Context, req *adminv1.ListBreakersRequest) (*adminv1.ListBreakersResponse, error) {
	return s.breakers(req.GetModel())
}

func (s *Service) breakers(model string) (*adminv1.ListBreakersResponse, error) {
	table := s.cfg.Router.Current()
	if _, ok := table.Route(model); model != "" && !ok {
		return nil, failure(s.noRoute(model), ofRoute)
	}
	resp, now := new(adminv1.ListBreakersResponse), time.Now()
	for r := range table.Routes() {
		if model != "" && r.Model != model {
			continue
		}
		for _, v := range r.Versions {
			if guard := s.cfg.Gateway.Guard(v); guard != nil {
				resp.Versions = append(resp.Versions, versionBreakers(v, guard.Status(now)))
			}
		}
		if b := s.cfg.Gateway.Budget(r.Versions[0]); b != nil {
			at := b.Status(now)
			resp.Budgets = append(resp.Budgets, &adminv1.Budget{Model: r.Model, Left: at.Left, Taken: at.Taken, Refused: at.Short})
		}
	}
	return resp, nil
}

func versionBreakers(v *routing.Version, at breaker.VersionStatus) *adminv1.VersionBreakers {
	vb := &adminv1.VersionBreakers{
		Model: v.Model, Version: v.Name, Breaker: breakerStatus(at.Status),
		InFlight: uint32(at.InFlight), Limit: uint32(at.Limit), Full: at.Full, Shed: at.Shed,
	}
	vb.Breaker.Ordered = v.CutOff.Version
	if at.P95 > 0 {
		vb.P95 = durationpb.New(at.P95)
	}
	for _, e := range at.Endpoints {
		eb := &adminv1.EndpointBreaker{Address: e.Name.Endpoint, Breaker: breakerStatus(e)}
		for _, addr := range v.CutOff.Endpoints {
			eb.Breaker.Ordered = eb.Breaker.Ordered || addr == e.Name.Endpoint
		}
		vb.Endpoints = append(vb.Endpoints, eb)
	}
	return vb
}

func breakerStatus(at breaker.Status) *adminv1.Breaker {
	return &adminv1.Breaker{
		State: at.State.String(), Forced: at.Forced, DryRun: at.DryRun, Cause: at.Cause.String(),
		Since: timeOrNil(at.Since), OpenUntil: timeOrNil(at.OpenUntil), Openings: uint32(at.Openings),
		Counts: breakerCounts(at.Counts), SampleRequestId: at.Sample, Refused: at.Refused,
	}
}

func breakerCounts(c breaker.Counts) *adminv1.BreakerCounts {
	return &adminv1.BreakerCounts{
		Calls: c.Calls, Failures: c.Failures, Overloaded: c.Overloaded, Slow: c.Slow, Consecutive: c.Consecutive,
	}
}

// WatchBreakers tells how the breakers stand, then every change. Nobody waits for
// a caller who does not read: what it has no room for is dropped, and it is told so.
func (s *Service) WatchBreakers(
	ctx context.Context, req *adminv1.WatchBreakersRequest, stream *connect.ServerStream[adminv1.WatchBreakersResponse],
) error {
	events := s.cfg.Gateway.SubscribeBreakers(breakerRoom) // first, so that nothing falls in between
	defer events.Close()
	standing, err := s.breakers(req.GetModel())
	if err != nil {
		return err
	}
	resp := &adminv1.WatchBreakersResponse{Standing: standing}
	look := time.NewTicker(watchLook)
	defer look.Stop()
	told := time.Time{}
	for {
		if resp != nil {
			resp.Dropped = events.Dropped()
			if err := stream.Send(resp); err != nil {
				return err
			}
			resp, told = nil, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case e := <-events.C():
			resp = eventsOf(req.GetModel(), e, events.C())
		case <-look.C:
			if err := s.stillWelcome(ctx); err != nil {
				return err
			}
			if time.Since(told) >= watchBeat {
				resp = new(adminv1.WatchBreakersResponse)
			}
		}
	}
}

// eventsOf returns an event and those that wait behind it, of one model or, with an
// empty one, of all; nil if there are none.
func eventsOf(model string, first breaker.Event, more <-chan breaker.Event) *adminv1.WatchBreakersResponse {
	resp := new(adminv1.WatchBreakersResponse)
	for e := first; ; e = <-more {
		if of, version, _ := strings.Cut(e.Name.Version, " "); model == "" || of == model {
			resp.Events = append(resp.Events, &adminv1.BreakerEvent{
				Model: of, Version: version, Endpoint: e.Name.Endpoint, Time: timestamppb.New(e.At),
				From: e.From.String(), To: e.To.String(), Cause: e.Cause.String(), Counts: breakerCounts(e.Counts),
				OpenUntil: timeOrNil(e.OpenUntil), RequestId: e.RequestID, DryRun: e.DryRun,
			})
		}
		if len(more) == 0 || len(resp.Events) == breakerRoom {
			break
		}
	}
	if len(resp.Events) == 0 {
		return nil
	}
	return resp
}
