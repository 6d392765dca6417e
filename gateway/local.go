package gateway

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"sluice/gateway/relay"
	pb "sluice/proto/inference"
	feedbackv1 "sluice/proto/sluice/feedback/v1"
	"sluice/telemetry/labels"
)

// localBuffer is the buffer of an in-memory connection, in bytes.
const localBuffer = 64 << 10

// local is what the gateway answers by itself: health, reflection, and the
// methods of the Open Inference Protocol that concern a server rather than a
// model. It is an ordinary gRPC server behind an in-memory connection: to the
// relay one more upstream.
type local struct {
	pb.UnimplementedGRPCInferenceServiceServer

	snapshot func() *snapshot
	version  string // of the gateway
	server   *grpc.Server
	health   *health.Server
	ln       *bufconn.Listener
}

// newLocal returns the services; without a monitor, no labels are taken.
func newLocal(version string, snapshot func() *snapshot, monitor *labels.Monitor) *local {
	l := &local{
		snapshot: snapshot, version: version,
		server: grpc.NewServer(), health: health.NewServer(), ln: bufconn.Listen(localBuffer),
	}
	pb.RegisterGRPCInferenceServiceServer(l.server, l)
	healthpb.RegisterHealthServer(l.server, l.health)
	if monitor != nil {
		feedbackv1.RegisterFeedbackServiceServer(l.server, feedback{monitor: monitor})
	}
	reflection.Register(l.server)
	l.setReady(false)
	return l
}

// run serves until stop.
func (l *local) run() error { return l.server.Serve(l.ln) }

func (l *local) stop() { l.server.Stop() }

// upstream returns how the relay reaches it.
func (l *local) upstream() relay.UpstreamConfig {
	return relay.UpstreamConfig{Addr: "gateway", Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		return l.ln.DialContext(ctx)
	}}
}

// setReady says whether the gateway takes calls: over grpc.health.v1 for the
// whole ("") and for the inference service.
func (l *local) setReady(ready bool) {
	s := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		s = healthpb.HealthCheckResponse_SERVING
	}
	l.health.SetServingStatus("", s)
	l.health.SetServingStatus(pb.GRPCInferenceService_ServiceDesc.ServiceName, s)
}

// notReady says that the gateway takes no calls, whatever setReady says later.
func (l *local) notReady() { l.health.Shutdown() }

// ServerLive says that the process is there.
func (l *local) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

// ServerReady says whether there is a routing state and no drain.
func (l *local) ServerReady(ctx context.Context, _ *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	r, err := l.health.Check(ctx, &healthpb.HealthCheckRequest{})
	return &pb.ServerReadyResponse{Ready: err == nil && r.GetStatus() == healthpb.HealthCheckResponse_SERVING}, nil
}

// ServerMetadata names the gateway.
func (l *local) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: "sluice", Version: l.version}, nil
}

// RepositoryIndex lists the models and versions of the routing table. A version
// without weight is not ready: no call reaches it unless it is asked for. Nor is one
// none of whose endpoints is well.
func (l *local) RepositoryIndex(_ context.Context, req *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	resp := &pb.RepositoryIndexResponse{}
	s := l.snapshot()
	for r := range s.table.Routes() {
		for _, v := range r.Versions {
			m := &pb.RepositoryIndexResponse_ModelIndex{Name: r.Model, Version: v.Name, State: "READY"}
			switch {
			case v.Dark():
				m.State, m.Reason = "UNAVAILABLE", "weight 0"
			case !s.well(v):
				m.State, m.Reason = "UNAVAILABLE", "no endpoint is well"
			}
			if m.State == "READY" || !req.GetReady() {
				resp.Models = append(resp.Models, m)
			}
		}
	}
	return resp, nil
}
