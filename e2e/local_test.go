package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "sluice/proto/inference"
)

const inferenceService = "inference.GRPCInferenceService"

func TestGatewayAnswersForItself(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	g := startGateway(t, split(v1, v2, 1, 0))
	client := pb.NewGRPCInferenceServiceClient(dial(t, g.addr))
	ctx := within(t, 10*time.Second)

	if got, err := client.ServerLive(ctx, &pb.ServerLiveRequest{}); err != nil || !got.GetLive() {
		t.Errorf("ServerLive: got %v, %v", got, err)
	}
	if got, err := client.ServerReady(ctx, &pb.ServerReadyRequest{}); err != nil || !got.GetReady() {
		t.Errorf("ServerReady: got %v, %v", got, err)
	}
	if got, err := client.ServerMetadata(ctx, &pb.ServerMetadataRequest{}); err != nil || got.GetName() != "sluice" || got.GetVersion() != "e2e" {
		t.Errorf("ServerMetadata: got %v, %v", got, err)
	}
	if got, err := client.ModelReady(ctx, &pb.ModelReadyRequest{Name: model}); err != nil || !got.GetReady() {
		t.Errorf("ModelReady: got %v, %v", got, err)
	}
	if got, err := client.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: model}); err != nil || got.GetName() != model {
		t.Errorf("ModelMetadata: got %v, %v", got, err)
	}
	for _, c := range []struct {
		ready bool
		want  []string
	}{{false, []string{"penguins v1 READY", "penguins v2 UNAVAILABLE"}}, {true, []string{"penguins v1 READY"}}} {
		got, err := client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: c.ready})
		if err != nil {
			t.Fatal(err)
		}
		var index []string
		for _, m := range got.GetModels() {
			index = append(index, fmt.Sprintf("%s %s %s", m.GetName(), m.GetVersion(), m.GetState()))
		}
		if !slices.Equal(index, c.want) {
			t.Errorf("RepositoryIndex, ready=%v: got %q, want %q", c.ready, index, c.want)
		}
	}
	if c := v1.Counters(); c.Begun != 0 {
		t.Errorf("the model server got %d inferences, want none", c.Begun)
	}
}

func TestHealth(t *testing.T) {
	v1 := startBackend(t, "v1")
	client := healthpb.NewHealthClient(dial(t, startGateway(t, routeTo(v1.addr)).addr))
	ctx := within(t, 10*time.Second)
	for _, service := range []string{"", inferenceService} {
		if got, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: service}); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("Check(%q): got %v, %v", service, got, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Watch: got %v, %v", got, err)
	}
}

func TestReflection(t *testing.T) {
	v1 := startBackend(t, "v1")
	client := reflectionpb.NewServerReflectionClient(dial(t, startGateway(t, routeTo(v1.addr)).addr))
	stream, err := client.ServerReflectionInfo(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var services []string
	for _, s := range list.GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	for _, want := range []string{inferenceService, "grpc.health.v1.Health"} {
		if !slices.Contains(services, want) {
			t.Errorf("services: got %q, want %s among them", services, want)
		}
	}
	described := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: inferenceService + ".ModelInfer"}})
	files := described.GetFileDescriptorResponse().GetFileDescriptorProto()
	if len(files) != 1 {
		t.Fatalf("description of ModelInfer: got %v, want one file", described)
	}
	var file descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(files[0], &file); err != nil || file.GetPackage() != "inference" {
		t.Errorf("description of ModelInfer: got package %q, %v", file.GetPackage(), err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end of the stream: got %v, want EOF", err)
	}
}
