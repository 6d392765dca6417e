package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// errorInfo returns the ErrorInfo that the gateway puts into its own statuses.
func errorInfo(t *testing.T, err error) *errdetails.ErrorInfo {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	t.Errorf("no ErrorInfo in the details of %v", err)
	return nil
}

// checkRefusal checks a status that the gateway made, with its details.
func checkRefusal(t *testing.T, err error, code codes.Code, reason, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Fatalf("got %v, want %v with %q", err, code, text)
	}
	if info := errorInfo(t, err); info.GetReason() != reason || info.GetDomain() != "sluice" {
		t.Errorf("got ErrorInfo %v, want reason %s of domain sluice", info, reason)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	g := startGateway(t, fmt.Sprintf(`
routes:
  - model: penguins
    versions:
      - {name: v1, endpoints: [%q]}
      - {name: v2, endpoints: [%q]}
      - {name: v3, endpoints: [%q], allow_force: false}
    weights: {v1: 1}
`, v1.addr, v2.addr, v2.addr))
	cc := dial(t, g.addr)

	request := func(change func(*pb.ModelInferRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			req := sample.NewRequest(model, heldBack()[0].Measurements)
			if change != nil {
				change(req)
			}
			return infer(ctx, cc, req).err
		}
	}
	invoke := func(method string) func(context.Context) error {
		return func(ctx context.Context) error { return cc.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}) }
	}
	plain := request(nil)
	for _, c := range []struct {
		name     string
		metadata []string
		call     func(context.Context) error
		code     codes.Code
		reason   string
		text     string
	}{
		{"unknown model", nil, request(func(r *pb.ModelInferRequest) { r.ModelName = "fraud" }),
			codes.NotFound, "MODEL_NOT_FOUND", `"fraud"`},
		{"no model", nil, request(func(r *pb.ModelInferRequest) { r.ModelName = "" }),
			codes.InvalidArgument, "MODEL_MISSING", "sluice-model"},
		{"metadata contradicts the message", []string{"sluice-model", "fraud"}, plain,
			codes.InvalidArgument, "MODEL_CONFLICT", `"fraud"`},
		{"an alias contradicts the message", []string{"seldon-model", "fraud"}, plain,
			codes.InvalidArgument, "MODEL_CONFLICT", `"fraud"`},
		{"aliases contradict each other", []string{"sluice-model", model, "mm-model-id", "fraud"}, plain,
			codes.InvalidArgument, "MODEL_CONFLICT", "mm-model-id"},
		{"unknown version in metadata", []string{"sluice-version", "v9"}, plain,
			codes.NotFound, "VERSION_NOT_FOUND", `"v9"`},
		{"unknown version in the message", nil, request(func(r *pb.ModelInferRequest) { r.ModelVersion = "9" }),
			codes.NotFound, "VERSION_NOT_FOUND", `"9"`},
		{"two versions", []string{"sluice-version", "v2"}, request(func(r *pb.ModelInferRequest) { r.ModelVersion = "v1" }),
			codes.InvalidArgument, "VERSION_CONFLICT", `"v2"`},
		{"a version not open to force, in metadata", []string{"sluice-version", "v3"}, plain,
			codes.PermissionDenied, "FORCE_NOT_ALLOWED", "allow_force"},
		{"a version not open to force, in the message", nil, request(func(r *pb.ModelInferRequest) { r.ModelVersion = "v3" }),
			codes.PermissionDenied, "FORCE_NOT_ALLOWED", "allow_force"},
		{"loading a model", nil, func(ctx context.Context) error {
			_, err := pb.NewGRPCInferenceServiceClient(cc).RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: model})
			return err
		}, codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "allow_management"},
		{"unloading a model", nil, func(ctx context.Context) error {
			_, err := pb.NewGRPCInferenceServiceClient(cc).RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: model})
			return err
		}, codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "allow_management"},
		{"shared memory", []string{"sluice-model", model}, invoke("/inference.GRPCInferenceService/CudaSharedMemoryRegister"),
			codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "allow_management"},
		{"trace settings", []string{"sluice-model", model}, invoke("/inference.GRPCInferenceService/TraceSetting"),
			codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "allow_management"},
		{"a service without a route", nil, invoke("/shop.Checkout/Pay"),
			codes.Unimplemented, "SERVICE_NOT_ROUTED", "shop.Checkout"},
		{"a path that is no method", nil, invoke("/Pay"),
			codes.Unimplemented, "METHOD_UNKNOWN", "/Pay"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkRefusal(t, c.call(within(t, 5*time.Second, c.metadata...)), c.code, c.reason, c.text)
			if err := plain(within(t, 5*time.Second)); err != nil {
				t.Errorf("the call after it: %v", err)
			}
		})
	}
}

func TestRefusalsCarryTheGatewaysFields(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr)
	a := infer(within(t, 5*time.Second, "x-request-id", "order-17"), cc, sample.NewRequest("fraud"))
	if got := one(t, a.trailer, "x-request-id"); got != "order-17" {
		t.Errorf("x-request-id: got %q, want the caller's", got)
	}
	if got := one(t, a.trailer, "sluice-attempts"); got != "0" {
		t.Errorf("sluice-attempts: got %q, want 0", got)
	}
	if got := one(t, a.trailer, "sluice-revision"); got != "1" {
		t.Errorf("sluice-revision: got %q, want 1", got)
	}
	if got := errorInfo(t, a.err).GetMetadata()["x-request-id"]; got != "order-17" {
		t.Errorf("x-request-id in ErrorInfo: got %q, want the caller's", got)
	}
}

func TestUpstreamThatIsNotThere(t *testing.T) {
	addr := freeAddr(t)
	cc := dial(t, startGateway(t, routeTo(addr)).addr)
	started := time.Now()
	a := infer(within(t, 10*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements))
	checkRefusal(t, a.err, codes.Unavailable, "UPSTREAM_UNREACHABLE", addr)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %v to say so", took)
	}
	retry := false
	for _, d := range status.Convert(a.err).Details() {
		_, ok := d.(*errdetails.RetryInfo)
		retry = retry || ok
	}
	if !retry {
		t.Errorf("no RetryInfo in the details of %v", a.err)
	}
}

// A model named in a later message may not slip past the route of the first.
func TestStreamThatChangesItsModelIsRefused(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr)
	stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(within(t, 5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(sample.NewRequest(model, heldBack()[0].Measurements)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(sample.NewRequest("fraud", heldBack()[0].Measurements)); err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `"fraud"`) {
		t.Errorf("got %v, %v; want INVALID_ARGUMENT naming the model", got, err)
	}
	eventually(t, 5*time.Second, "the server's call is cancelled", func() error {
		if c := v1.Counters(); c.Cancelled != 1 {
			return fmt.Errorf("got %+v", c)
		}
		return nil
	})
}

func TestManagementWhereTheRouteAllowsIt(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)+"    allow_management: true\n").addr)
	_, err := pb.NewGRPCInferenceServiceClient(cc).RepositoryModelLoad(within(t, 5*time.Second), &pb.RepositoryModelLoadRequest{ModelName: model})
	if status.Code(err) != codes.Unimplemented || len(status.Convert(err).Details()) > 0 {
		t.Errorf("got %v, want the server's own UNIMPLEMENTED", err)
	}
}

func TestDeadlines(t *testing.T) {
	remaining := make(chan time.Duration, 1)
	v1 := startBackend(t, "v1", grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if info.FullMethod != pb.GRPCInferenceService_ModelInfer_FullMethodName {
			return next(ctx, req) // the gateway asks, too, how the server is
		}
		end, ok := ctx.Deadline()
		if !ok {
			end = time.Now().Add(-time.Hour)
		}
		remaining <- time.Until(end)
		return next(ctx, req)
	}))
	const limited = "    timeout: {default: 2s, max: 4s}\n"
	for _, c := range []struct {
		name  string
		route string
		caller,
		want time.Duration // 0: the caller sets none
	}{
		{"default of unary calls", "", 0, 15 * time.Second},
		{"the caller's own", "", 7 * time.Second, 7 * time.Second},
		{"maximum of unary calls", "", 20 * time.Hour, 300 * time.Second},
		{"the route's default", limited, 0, 2 * time.Second},
		{"the route's maximum", limited, time.Minute, 4 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			cc := dial(t, startGateway(t, routeTo(v1.addr)+c.route).addr)
			ctx := t.Context()
			if c.caller > 0 {
				ctx = within(t, c.caller)
			}
			if a := infer(ctx, cc, sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
				t.Fatal(a.err)
			}
			if got := <-remaining; got > c.want || got < c.want-time.Second {
				t.Errorf("the server has %v left, want %v", got, c.want)
			}
		})
	}
}

// The server counts the same deadline down and gives up at the same moment: who
// is first must not matter to the client.
func TestDeadlineOfHungServer(t *testing.T) {
	v1 := startBackend(t, "v1")
	v1.turn(t, sample.Behaviour{Hang: true})
	cc := dial(t, startGateway(t, routeTo(v1.addr)+"    timeout: {default: 300ms}\n    breaker: {dry_run: true}\n").addr)
	for range 5 {
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				started := time.Now()
				a := infer(t.Context(), cc, sample.NewRequest(model, heldBack()[0].Measurements))
				if took := time.Since(started); took < 300*time.Millisecond || took > 3*time.Second {
					t.Errorf("took %v, want 300 ms", took)
				}
				if status.Code(a.err) != codes.DeadlineExceeded {
					t.Errorf("got %v, want DEADLINE_EXCEEDED", a.err)
				}
				checkAnswerFields(t, a.trailer, "v1") // who kept it waiting
			})
		}
		calls.Wait()
	}
	eventually(t, 5*time.Second, "the server's calls have ended", func() error {
		if n := v1.Counters().InFlight(); n != 0 {
			return fmt.Errorf("%d in flight", n)
		}
		return nil
	})
}

// A server that accepts connections and then says nothing at all.
func TestDeadlineOfSilentServer(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	cc := dial(t, startGateway(t, routeTo(lis.Addr().String())+"    timeout: {default: 300ms}\n").addr)
	started := time.Now()
	a := infer(t.Context(), cc, sample.NewRequest(model, heldBack()[0].Measurements))
	checkRefusal(t, a.err, codes.DeadlineExceeded, "DEADLINE", "deadline exceeded")
	if took := time.Since(started); took < 300*time.Millisecond || took > 2*time.Second {
		t.Errorf("took %v, want 300 ms", took)
	}
	if got := one(t, a.trailer, "sluice-version"); got != "v1" {
		t.Errorf("sluice-version: got %q, want v1, which kept the call waiting", got)
	}
}
