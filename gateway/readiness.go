package gateway

import (
	"context"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/gateway/relay"
	pb "sluice/proto/inference"
	"sluice/routing"
)

// readyModel is the metadata in which the director tells the gateway's own services
// which model a call has been found to mean.
const readyModel = "sluice-model"

// asksReadiness reports whether the call asks if its model is ready, whatever version
// serves it. Whoever names a version asks that version's servers.
func (s *call) asksReadiness(path string) bool {
	return path == pb.GRPCInferenceService_ModelReady_FullMethodName && s.modelVersion == "" && s.meta.ForceVersion == ""
}

// toReadiness has the gateway answer whether the call's model is ready.
func (d *director) toReadiness(c *relay.Call) relay.Verdict {
	s := c.Data.(*call)
	setDeadline(c, s.method.Kind, s.route)
	c.Inspect = false // its names are known
	s.dispatch = relay.Dispatch{
		Upstream: d.local, Unary: true, Replay: true, BodyChanges: s.scanner.MayChange(),
		Request: append(s.requestFields(), hpack.HeaderField{Name: readyModel, Value: s.route.Model}),
		Answer:  d.answerFields(s, 1),
	}
	return relay.To(&s.dispatch)
}

// ModelReady says whether any version of a model that has weight has an endpoint that
// is well. Breakers do not count: a client that stopped calling for an open one would
// keep it from its probe.
func (l *local) ModelReady(ctx context.Context, _ *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	model := ""
	if v := metadata.ValueFromIncomingContext(ctx, readyModel); len(v) == 1 {
		model = v[0]
	}
	s := l.snapshot()
	r, ok := s.table.Route(model)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no route for model %q", model)
	}
	for _, v := range r.Versions {
		if !v.Dark() && s.well(v) {
			return &pb.ModelReadyResponse{Ready: true}, nil
		}
	}
	return &pb.ModelReadyResponse{}, nil
}

// well reports whether an endpoint of a version can be reached and is not known to be
// unhealthy.
func (s *snapshot) well(v *routing.Version) bool {
	for _, e := range *s.targets.get(v).group.list.Load() {
		if usable(e, nil) && !e.unhealthy.Load() {
			return true
		}
	}
	return false
}
