package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	pb "sluice/proto/inference"
	"sluice/sample"
)

// answer is everything a client gets to see of a unary call.
type answer struct {
	*pb.ModelInferResponse
	header, trailer metadata.MD
	err             error
}

func infer(ctx context.Context, cc grpc.ClientConnInterface, req *pb.ModelInferRequest, options ...grpc.CallOption) (a answer) {
	options = append(options, grpc.Header(&a.header), grpc.Trailer(&a.trailer))
	a.ModelInferResponse, a.err = pb.NewGRPCInferenceServiceClient(cc).ModelInfer(ctx, req, options...)
	return a
}

// checkAnswerFields checks what the gateway adds to an answer of a version.
func checkAnswerFields(t *testing.T, md metadata.MD, version string) {
	t.Helper()
	for key, want := range map[string]string{
		"sluice-model": model, "sluice-version": version, "sluice-attempts": "1", "sluice-revision": "1",
	} {
		if got := one(t, md, key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if id := one(t, md, "x-request-id"); id == "" || len(id) > 128 {
		t.Errorf("x-request-id: got %q, want 1 to 128 characters", id)
	}
}

// checkNoAnswerFields checks that the gateway's fields stand in one place only.
func checkNoAnswerFields(t *testing.T, md metadata.MD) {
	t.Helper()
	for _, key := range []string{"sluice-model", "sluice-version", "sluice-attempts", "sluice-revision", "x-request-id"} {
		if v := md.Get(key); v != nil {
			t.Errorf("%s: got %q a second time", key, v)
		}
	}
}

func TestUnaryPredictionsComeFromTheVersionTheyName(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	cc := dial(t, startGateway(t, split(v1, v2, 50, 50)).addr)
	served := map[string]int{}
	for _, penguin := range heldBack() {
		a := infer(within(t, 10*time.Second), cc, sample.NewRequest(model, penguin.Measurements))
		if a.err != nil {
			t.Fatal(a.err)
		}
		version := one(t, a.header, "sluice-version")
		served[version]++
		checkAnswerFields(t, a.header, version)
		checkNoAnswerFields(t, a.trailer)
		if a.GetModelVersion() != version {
			t.Errorf("sluice-version is %q, but the model says %q", version, a.GetModelVersion())
		}
		by := map[string]*backend{"v1": v1, "v2": v2}[version]
		species, err := sample.ReadSpecies(a.ModelInferResponse)
		if err != nil {
			t.Fatal(err)
		}
		if want := by.model.Classify(penguin.Measurements); !slices.Equal(species, []string{want}) {
			t.Errorf("%v: got %q, want %q", penguin.Measurements, species, want)
		}
	}
	if served["v1"] == 0 || served["v2"] == 0 {
		t.Errorf("at 50/50 got %v, want calls for both versions", served)
	}
}

func TestStreamsOfPredictionsStayWithTheirVersion(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	cc := dial(t, startGateway(t, split(v1, v2, 50, 50)).addr)
	for range 10 {
		stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		version := ""
		for i, penguin := range heldBack()[:20] {
			req := sample.NewRequest(model, penguin.Measurements)
			req.Id = strconv.Itoa(i)
			if i > 0 && i%2 == 0 {
				req.ModelName = "" // the first one counts
			}
			if version != "" && i%2 == 0 {
				continue // the sample server insists on its name
			}
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			got, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if version == "" {
				version = got.GetInferResponse().GetModelVersion()
			}
			if r := got.GetInferResponse(); got.GetErrorMessage() != "" || r.GetId() != req.Id || r.GetModelVersion() != version {
				t.Errorf("message %d: got %v, want an answer with id %d from %s", i, got, i, version)
			}
		}
		header, err := stream.Header()
		if err != nil {
			t.Fatal(err)
		}
		checkAnswerFields(t, header, version)
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end of the stream: got %v, want EOF", err)
		}
	}
}

// A server's own statuses pass through unchanged; where the fields of the gateway
// stand depends on the form of the answer.
func TestStatusesOfTheServerPassUnchanged(t *testing.T) {
	v1 := startBackend(t, "v1")
	g := startGateway(t, routeTo(v1.addr))
	direct, cc := dial(t, v1.addr), dial(t, g.addr)

	t.Run("trailers only", func(t *testing.T) {
		bad := sample.NewRequest(model) // no rows
		want := infer(within(t, 5*time.Second), direct, bad)
		got := infer(within(t, 5*time.Second), cc, bad)
		if status.Code(want.err) != codes.InvalidArgument || got.err == nil || got.err.Error() != want.err.Error() {
			t.Errorf("got %v, want %v", got.err, want.err)
		}
		checkAnswerFields(t, got.trailer, "v1")
		checkNoAnswerFields(t, got.header)
	})
	t.Run("after messages", func(t *testing.T) {
		stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(within(t, 5*time.Second, "triton_grpc_error", "true"))
		if err != nil {
			t.Fatal(err)
		}
		for _, req := range []*pb.ModelInferRequest{sample.NewRequest(model, sample.Measurements{40, 18, 190, 4000}), sample.NewRequest(model)} {
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("second message: got %v, want INVALID_ARGUMENT", err)
		}
		header, err := stream.Header()
		if err != nil {
			t.Fatal(err)
		}
		checkAnswerFields(t, header, "v1")
		checkNoAnswerFields(t, stream.Trailer())
	})
}

func TestRequestIDIsKeptOrMade(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr)
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	if a := infer(within(t, 5*time.Second, "x-request-id", "order-17"), cc, req); one(t, a.header, "x-request-id") != "order-17" {
		t.Errorf("x-request-id: got %q, want the caller's", a.header.Get("x-request-id"))
	}
	a := infer(within(t, 5*time.Second), cc, req)
	b := infer(within(t, 5*time.Second, "x-request-id", string(make([]byte, 200))+"x"), cc, req)
	if x, y := a.header.Get("x-request-id"), b.header.Get("x-request-id"); slices.Equal(x, y) {
		t.Errorf("x-request-id of two calls: got %q twice", x)
	}
}

func TestRenamedModelsAreAskedByTheirNamesOnTheServer(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	g := startGateway(t, fmt.Sprintf(`
routes:
  - model: birds
    versions:
      - {name: blue, endpoints: [%q], rename: {model: penguins, version: v1}}
      - {name: green, endpoints: [%q], rename: {model: penguins}}
    weights: {blue: 1}
`, v1.addr, v2.addr))
	cc := dial(t, g.addr)
	for _, c := range []struct {
		asked  string // model_version
		forced string // sluice-version
		by     string // sluice-version of the answer
		server string
	}{
		{"", "", "blue", "v1"},
		{"blue", "", "blue", "v1"},
		{"v1", "", "blue", "v1"}, // what blue is called on its server
		{"green", "", "green", "v2"},
		{"", "green", "green", "v2"},
		{"green", "green", "green", "v2"},
	} {
		t.Run(fmt.Sprintf("model_version=%s,sluice-version=%s", c.asked, c.forced), func(t *testing.T) {
			req := sample.NewRequest("birds", heldBack()[0].Measurements)
			req.ModelVersion = c.asked
			var pairs []string
			if c.forced != "" {
				pairs = []string{"sluice-version", c.forced}
			}
			for _, compress := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
				a := infer(within(t, 5*time.Second, pairs...), cc, req, compress...)
				if a.err != nil {
					t.Fatal(a.err)
				}
				if got := one(t, a.header, "sluice-version"); got != c.by || a.GetModelVersion() != c.server {
					t.Errorf("got version %q from server %q, want %q from %q", got, a.GetModelVersion(), c.by, c.server)
				}
			}
		})
	}
	t.Run("in a stream", func(t *testing.T) {
		stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(within(t, 5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			req := sample.NewRequest("birds", heldBack()[i].Measurements)
			if i > 0 {
				req.ModelName = ""
			}
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			if got, err := stream.Recv(); err != nil || got.GetErrorMessage() != "" || got.GetInferResponse().GetModelVersion() != "v1" {
				t.Fatalf("message %d: got %v, %v; want an answer of v1", i, got, err)
			}
		}
	})
}

func TestModelIsFoundByMetadataAliases(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr)
	for _, key := range []string{"sluice-model", "seldon-model", "mm-model-id", "mm-vmodel-id", "x-gateway-model-name"} {
		if a := infer(within(t, 5*time.Second, key, model), cc, sample.NewRequest(model, heldBack()[0].Measurements)); a.err != nil {
			t.Errorf("%s: %v", key, a.err)
		}
	}
}

func TestStickyKeysKeepTheirVersion(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	g := startGateway(t, split(v1, v2, 50, 50)+"    sticky: {metadata: x-user-id}\n")
	cc := dial(t, g.addr)
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	seen := map[string]bool{}
	for user := range 20 {
		first := ""
		for _, key := range []string{"x-user-id", "sluice-key", "x-user-id"} {
			a := infer(within(t, 5*time.Second, key, fmt.Sprintf("user-%d", user)), cc, req)
			if a.err != nil {
				t.Fatal(a.err)
			}
			if first == "" {
				first = a.GetModelVersion()
				seen[first] = true
			}
			if a.GetModelVersion() != first {
				t.Errorf("user %d by %s: got %s, before %s", user, key, a.GetModelVersion(), first)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("20 keys at 50/50: got versions %v, want both", seen)
	}
}

func TestCompressedRequests(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	var rows []sample.Measurements
	for len(rows) < 20000 { // 320 KB, more than a stream's window of it compressed and not
		for _, p := range heldBack() {
			rows = append(rows, p.Measurements)
		}
	}
	for _, n := range []int{1, len(rows)} {
		a := infer(within(t, 20*time.Second), cc, sample.NewRequest(model, rows[:n]...))
		if a.err != nil {
			t.Fatalf("%d rows: %v", n, a.err)
		}
		if species, err := sample.ReadSpecies(a.ModelInferResponse); err != nil || len(species) != n {
			t.Errorf("got %d species, %v; want %d", len(species), err, n)
		}
	}
	stream, err := pb.NewGRPCInferenceServiceClient(cc).ModelStreamInfer(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := stream.Send(sample.NewRequest(model, rows[i])); err != nil {
			t.Fatal(err)
		}
		if got, err := stream.Recv(); err != nil || got.GetErrorMessage() != "" {
			t.Fatalf("message %d: got %v, %v", i, got, err)
		}
	}
}

// encodings records the grpc-encoding of every request at a server.
type encodings struct {
	mu   sync.Mutex
	seen []string
}

func (e *encodings) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (e *encodings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (e *encodings) HandleConn(context.Context, stats.ConnStats)                       {}

func (e *encodings) HandleRPC(_ context.Context, s stats.RPCStats) {
	if h, ok := s.(*stats.InHeader); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.seen = append(e.seen, h.Compression)
	}
}

// Whoever reads compressed messages passes them on decompressed, and says so: the
// server need not know the codec.
func TestCompressionEndsAtTheGateway(t *testing.T) {
	var e encodings
	v1 := startBackend(t, "v1", grpc.StatsHandler(&e))
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr)
	req := sample.NewRequest(model, heldBack()[0].Measurements)
	if a := infer(within(t, 5*time.Second), cc, req, grpc.UseCompressor(gzip.Name)); a.err != nil {
		t.Fatal(a.err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.seen, []string{"identity"}) {
		t.Errorf("grpc-encoding at the server: got %q, want identity", e.seen)
	}
}

func TestLargeTensorsPass(t *testing.T) {
	v1 := startBackend(t, "v1")
	cc := dial(t, startGateway(t, routeTo(v1.addr)).addr)
	rows := make([]sample.Measurements, sample.MaxRows) // 1 MiB up, more down
	for i := range rows {
		rows[i] = heldBack()[0].Measurements
	}
	for range 3 {
		a := infer(within(t, 20*time.Second), cc, sample.NewRequest(model, rows...))
		if a.err != nil {
			t.Fatal(a.err)
		}
		if species, err := sample.ReadSpecies(a.ModelInferResponse); err != nil || len(species) != len(rows) {
			t.Errorf("got %d species, %v; want %d", len(species), err, len(rows))
		}
	}
}
