package admin

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"sluice/gateway"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/routing"
	"sluice/shadow"
)

// maxReplayRate bounds what a replay asks of a version, in calls per second.
const maxReplayRate = 100_000

// Replay makes calls again that the gateway has kept.
func (s *Service) Replay(ctx context.Context, req *adminv1.ReplayRequest, stream *connect.ServerStream[adminv1.ReplayResponse]) error {
	route, ok := s.cfg.Router.Current().Route(req.GetModel())
	if !ok {
		return failure(s.noRoute(req.GetModel()), ofRoute)
	}
	version, ok := route.Version(req.GetVersion())
	if !ok {
		var names []string
		for _, v := range route.Versions {
			names = append(names, v.Name)
		}
		return failure(&routing.FieldError{Field: "version", Got: strconv.Quote(req.GetVersion()),
			Want: "one of the route's versions (" + strings.Join(names, ", ") + ")"}, ofRoute)
	}
	if rate := req.GetRate(); !(rate > 0 && rate <= maxReplayRate) {
		return failure(&routing.FieldError{Field: "rate", Got: strconv.FormatFloat(rate, 'g', -1, 64), Want: "a number above 0 and at most 100000"}, ofRoute)
	}
	r := gateway.Replay{Version: version, From: req.GetFrom(), Rate: req.GetRate(), Limit: req.GetLimit(), Sequences: req.GetSequences()}
	made := uint64(0)
	err := s.cfg.Gateway.Replay(ctx, r, func(read uint64, at shadow.Status) error {
		if made == 0 && read > 0 {
			s.cfg.Logger.Info("calls that were kept are made again", "model", version.Model, "version", version.Name, "rate", req.GetRate())
		}
		made = read
		return stream.Send(&adminv1.ReplayResponse{Read: read, Report: shadowReport(version, &at)})
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, gateway.ErrNoCaptures), errors.Is(err, gateway.ErrReplaying):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case ctx.Err() != nil:
		return connect.NewError(connect.CodeCanceled, err)
	}
	return connect.NewError(connect.CodeUnknown, err)
}
