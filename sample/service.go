package sample

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/proto/inference"
)

// service implements the Open Inference Protocol for one model.
type service struct {
	inference.UnimplementedGRPCInferenceServiceServer
	model  *Model
	knobs  *Knobs
	counts *counts
}

func (s *service) ServerLive(ctx context.Context, _ *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	if _, err := s.knobs.probe(ctx); err != nil {
		return nil, err
	}
	return &inference.ServerLiveResponse{Live: true}, nil
}

func (s *service) ServerReady(ctx context.Context, _ *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	ready, err := s.knobs.probe(ctx)
	if err != nil {
		return nil, err
	}
	return &inference.ServerReadyResponse{Ready: ready}, nil
}

func (s *service) ServerMetadata(ctx context.Context, _ *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	if _, err := s.knobs.probe(ctx); err != nil {
		return nil, err
	}
	return &inference.ServerMetadataResponse{Name: "sluice-sample", Version: "1"}, nil
}

func (s *service) ModelReady(ctx context.Context, req *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	ready, err := s.knobs.probe(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.checkModel(req.GetName(), req.GetVersion()); err != nil {
		return nil, err
	}
	return &inference.ModelReadyResponse{Ready: ready}, nil
}

func (s *service) ModelMetadata(ctx context.Context, req *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	if _, err := s.knobs.probe(ctx); err != nil {
		return nil, err
	}
	if err := s.checkModel(req.GetName(), req.GetVersion()); err != nil {
		return nil, err
	}
	return describe(s.model), nil
}

func (s *service) ModelInfer(ctx context.Context, req *inference.ModelInferRequest) (_ *inference.ModelInferResponse, err error) {
	s.counts.begun.Add(1)
	defer func() { s.counts.end(ctx, err) }()
	return s.infer(ctx, req)
}

// ModelStreamInfer answers request by request. As in Triton, a failed
// inference is told inside its answer and the stream goes on, unless the
// caller has asked for real statuses.
func (s *service) ModelStreamInfer(stream grpc.BidiStreamingServer[inference.ModelInferRequest, inference.ModelStreamInferResponse]) (err error) {
	ctx := stream.Context()
	s.counts.begun.Add(1)
	defer func() { s.counts.end(ctx, err) }()

	md, _ := metadata.FromIncomingContext(ctx)
	wantStatus := slices.Equal(md.Get("triton_grpc_error"), []string{"true"})
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := new(inference.ModelStreamInferResponse)
		answer.InferResponse, err = s.infer(ctx, req)
		if err != nil {
			if wantStatus || ctx.Err() != nil {
				return err
			}
			answer.ErrorMessage = status.Convert(err).Message()
			answer.InferResponse = &inference.ModelInferResponse{Id: req.GetId()}
		}
		if err := stream.Send(answer); err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
	}
}

// infer is one inference; its errors are statuses.
func (s *service) infer(ctx context.Context, req *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	if err := s.knobs.inference(ctx); err != nil {
		return nil, err
	}
	if err := s.checkModel(req.GetModelName(), req.GetModelVersion()); err != nil {
		return nil, err
	}
	resp, err := infer(s.model, req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return resp, nil
}

// checkModel refuses other models; an empty version leaves the choice to the server.
func (s *service) checkModel(name, version string) error {
	if name != s.model.Name {
		return status.Errorf(codes.NotFound, "model name: got %q, want %q", name, s.model.Name)
	}
	if version != "" && version != s.model.Version {
		return status.Errorf(codes.NotFound, "model version: got %q, want %q or none", version, s.model.Version)
	}
	return nil
}
