package sample

import (
	"context"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"sluice/proto/inference"
)

// health answers Check and leaves Watch unimplemented, as Triton does.
type health struct {
	healthpb.UnimplementedHealthServer
	knobs *Knobs
}

func (h *health) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	ready, err := h.knobs.probe(ctx)
	if err != nil {
		return nil, err
	}
	if name := req.GetService(); name != "" && name != inference.GRPCInferenceService_ServiceDesc.ServiceName {
		return nil, status.Errorf(codes.NotFound, "service: got %q, want none or %q", name, inference.GRPCInferenceService_ServiceDesc.ServiceName)
	}
	if !ready {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}
