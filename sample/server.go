package sample

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluice/proto/inference"
)

// maxMessage is the largest request taken, in bytes: the gateway's own default.
const maxMessage = 64 << 20

// Server serves one model over the Open Inference Protocol, with
// grpc.health.v1 beside it. Its methods may be called from any goroutine.
type Server struct {
	grpc   *grpc.Server
	counts counts
}

// NewServer makes a server for the model. Turning knobs changes what it does
// at once; nil knobs are a server that behaves. The options, for instance
// credentials, are passed on to gRPC.
func NewServer(model *Model, knobs *Knobs, options ...grpc.ServerOption) *Server {
	if knobs == nil {
		knobs = new(Knobs)
	}
	// Waiting for handlers makes Shutdown a promise that no goroutine is left.
	options = append([]grpc.ServerOption{grpc.MaxRecvMsgSize(maxMessage), grpc.WaitForHandlers(true)}, options...)
	s := &Server{grpc: grpc.NewServer(options...)}
	inference.RegisterGRPCInferenceServiceServer(s.grpc, &service{model: model, knobs: knobs, counts: &s.counts})
	healthpb.RegisterHealthServer(s.grpc, &health{knobs: knobs})
	return s
}

// Serve accepts connections on lis and blocks until the server is shut down,
// before or after, which gives nil, or lis fails. It closes lis.
func (s *Server) Serve(lis net.Listener) error {
	if err := s.grpc.Serve(lis); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shutdown stops accepting, lets calls finish until ctx ends and then cancels
// those left. Afterwards nothing of the server runs any more; it cannot serve again.
func (s *Server) Shutdown(ctx context.Context) {
	defer context.AfterFunc(ctx, s.grpc.Stop)()
	s.grpc.GracefulStop()
}

// Counters returns what has happened to the inference calls so far.
func (s *Server) Counters() Counters { return s.counts.snapshot() }
