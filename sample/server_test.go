package sample

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluice/proto/inference"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server on a loopback port and a connection to it.
type rig struct {
	server *Server
	knobs  *Knobs
	conn   *grpc.ClientConn
	client inference.GRPCInferenceServiceClient
}

// start serves a shipped version until the test ends.
func start(t testing.TB, version string) rig {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	knobs := new(Knobs)
	server := NewServer(load(t, version), knobs)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Shutdown(t.Context()) // has ended by now: calls a test leaves behind get no grace
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v, want nil after Shutdown", err)
		}
	})
	return rig{server, knobs, conn, inference.NewGRPCInferenceServiceClient(conn)}
}

func (r rig) set(t testing.TB, b Behaviour) {
	t.Helper()
	if err := r.knobs.Set(b); err != nil {
		t.Fatal(err)
	}
}

func TestServerAnswersAsTheModelPredicts(t *testing.T) {
	_, held := Split()
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			r := start(t, version)
			model := load(t, version)
			var rows []Measurements
			for _, row := range held {
				rows = append(rows, row.Measurements)
			}
			req := NewRequest(ModelName, rows...)
			req.Id = "batch-1"
			resp, err := r.client.ModelInfer(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.ModelName != ModelName || resp.ModelVersion != version || resp.Id != "batch-1" {
				t.Errorf("answer from %q %q to %q, want %q %q to batch-1", resp.ModelName, resp.ModelVersion, resp.Id, ModelName, version)
			}
			species, err := ReadSpecies(resp)
			if err != nil {
				t.Fatal(err)
			}
			if len(species) != len(rows) {
				t.Fatalf("got %d species for %d rows", len(species), len(rows))
			}
			for i, row := range rows {
				if want := model.Classify(row); species[i] != want {
					t.Errorf("row %d: got %s, want %s", i, species[i], want)
				}
			}
		})
	}
}

// TestAnswerHasTheFormOfTheRequest: raw or typed, single or double precision,
// the numbers are the same.
func TestAnswerHasTheFormOfTheRequest(t *testing.T) {
	r := start(t, "v2")
	row := Measurements{46.5, 17.9, 192, 3500}
	want := load(t, "v2").Predict(row)

	typed32 := NewRequest(ModelName, row)
	typed32.RawInputContents = nil
	typed32.Inputs[0].Contents = &inference.InferTensorContents{Fp32Contents: []float32{46.5, 17.9, 192, 3500}}
	typed64 := NewRequest(ModelName, row)
	typed64.RawInputContents = nil
	typed64.Inputs[0].Datatype = "FP64"
	typed64.Inputs[0].Contents = &inference.InferTensorContents{Fp64Contents: row[:]}
	raw64 := NewRequest(ModelName, row)
	raw64.Inputs[0].Datatype = "FP64"
	raw64.RawInputContents[0] = nil
	for _, v := range row {
		raw64.RawInputContents[0] = appendFloat64(raw64.RawInputContents[0], v)
	}

	for _, test := range []struct {
		name string
		req  *inference.ModelInferRequest
		raw  bool
	}{
		{"raw FP32", NewRequest(ModelName, row), true},
		{"raw FP64", raw64, true},
		{"typed FP32", typed32, false},
		{"typed FP64", typed64, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			resp, err := r.client.ModelInfer(t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			if species, err := ReadSpecies(resp); err != nil || !slices.Equal(species, []string{"Chinstrap"}) {
				t.Errorf("species = %q, %v, want Chinstrap", species, err)
			}
			var got []float64
			output := resp.Outputs[1]
			if test.raw {
				if resp.Outputs[0].Contents != nil || output.Contents != nil {
					t.Error("a raw request got typed contents")
				}
				got = decodeRaw(resp.RawOutputContents[1], 4)
			} else {
				if len(resp.RawOutputContents) != 0 {
					t.Error("a typed request got raw contents")
				}
				for _, v := range output.Contents.Fp32Contents {
					got = append(got, float64(v))
				}
			}
			if output.Name != OutputProbability || output.Datatype != "FP32" || !slices.Equal(output.Shape, []int64{1, 3}) {
				t.Errorf("second output is %s %s %d, want probabilities FP32 [1 3]", output.Name, output.Datatype, output.Shape)
			}
			if !slices.EqualFunc(got, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-5 }) {
				t.Errorf("probabilities = %v, want %v", got, want)
			}
		})
	}
}

func TestOutputsAreThoseAskedFor(t *testing.T) {
	r := start(t, "v1")
	req := NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750})
	req.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: OutputProbability}, {Name: OutputSpecies}}
	resp, err := r.client.ModelInfer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Outputs) != 2 || resp.Outputs[0].Name != OutputProbability || resp.Outputs[1].Name != OutputSpecies {
		t.Errorf("outputs = %v, want both in the order asked for", resp.Outputs)
	}
	if species, err := ReadSpecies(resp); err != nil || !slices.Equal(species, []string{"Adelie"}) {
		t.Errorf("species = %q, %v, want Adelie", species, err)
	}
	req.Outputs = req.Outputs[:1]
	if resp, err = r.client.ModelInfer(t.Context(), req); err != nil || len(resp.Outputs) != 1 || len(resp.RawOutputContents) != 1 {
		t.Errorf("answer = %v, %v, want the probabilities alone", resp, err)
	}
}

func TestBadRequestsAreRefusedClearly(t *testing.T) {
	r := start(t, "v2")
	row := Measurements{39.1, 18.7, 181, 3750}
	for _, test := range []struct {
		name   string
		spoil  func(*inference.ModelInferRequest)
		code   codes.Code
		reason string
	}{
		{"model", func(q *inference.ModelInferRequest) { q.ModelName = "whales" }, codes.NotFound, `model name: got "whales", want "penguins"`},
		{"version", func(q *inference.ModelInferRequest) { q.ModelVersion = "v7" }, codes.NotFound, `model version: got "v7", want "v2" or none`},
		{"no input", func(q *inference.ModelInferRequest) { q.Inputs = nil }, codes.InvalidArgument, `inputs: got 0 tensors, want one named "measurements"`},
		{"two inputs", func(q *inference.ModelInferRequest) { q.Inputs = append(q.Inputs, q.Inputs[0]) }, codes.InvalidArgument, "inputs: got 2 tensors"},
		{"input name", func(q *inference.ModelInferRequest) { q.Inputs[0].Name = "x" }, codes.InvalidArgument, `inputs[0].name: got "x", want "measurements"`},
		{"datatype", func(q *inference.ModelInferRequest) { q.Inputs[0].Datatype = "INT8" }, codes.InvalidArgument, `inputs[0].datatype: got "INT8", want FP32 or FP64`},
		{"no shape", func(q *inference.ModelInferRequest) { q.Inputs[0].Shape = nil }, codes.InvalidArgument, "inputs[0].shape: got [], want [rows 4]"},
		{"no rows", func(q *inference.ModelInferRequest) { q.Inputs[0].Shape = []int64{0, 4} }, codes.InvalidArgument, "inputs[0].shape: got [0 4]"},
		{"negative rows", func(q *inference.ModelInferRequest) { q.Inputs[0].Shape = []int64{-1, 4} }, codes.InvalidArgument, "inputs[0].shape: got [-1 4]"},
		{"huge", func(q *inference.ModelInferRequest) { q.Inputs[0].Shape = []int64{math.MaxInt64, 4} }, codes.InvalidArgument, "with 1 to 65536 rows"},
		{"columns", func(q *inference.ModelInferRequest) { q.Inputs[0].Shape = []int64{1, 3} }, codes.InvalidArgument, "inputs[0].shape: got [1 3]"},
		{"short", func(q *inference.ModelInferRequest) { q.Inputs[0].Shape = []int64{2, 4} }, codes.InvalidArgument, "raw_input_contents[0]: got 16 bytes, want 32 for shape [2 4] of FP32"},
		{"two raws", func(q *inference.ModelInferRequest) { q.RawInputContents = append(q.RawInputContents, nil) }, codes.InvalidArgument, "raw_input_contents: got 2 entries"},
		{"both", func(q *inference.ModelInferRequest) { q.Inputs[0].Contents = new(inference.InferTensorContents) }, codes.InvalidArgument, "inputs[0].contents: got contents beside raw_input_contents"},
		{"nothing", func(q *inference.ModelInferRequest) { q.RawInputContents = nil }, codes.InvalidArgument, "inputs[0].contents.fp32_contents: got 0 values, want 4"},
		{"wrong field", func(q *inference.ModelInferRequest) {
			q.RawInputContents = nil
			q.Inputs[0].Contents = &inference.InferTensorContents{Fp64Contents: row[:]}
		}, codes.InvalidArgument, "inputs[0].contents: got 4 values outside fp32_contents"},
		{"NaN", func(q *inference.ModelInferRequest) {
			q.RawInputContents = NewRequest(ModelName, Measurements{39.1, math.NaN(), 181, 3750}).RawInputContents
		}, codes.InvalidArgument, "inputs[0]: row 0, bill_depth_mm: got NaN, want a finite number"},
		{"infinite", func(q *inference.ModelInferRequest) {
			two := NewRequest(ModelName, row, Measurements{39.1, 18.7, 181, math.Inf(-1)})
			q.Inputs, q.RawInputContents = two.Inputs, two.RawInputContents
		}, codes.InvalidArgument, "inputs[0]: row 1, body_mass_g: got -Inf"},
		{"output", func(q *inference.ModelInferRequest) {
			q.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "sex"}}
		}, codes.InvalidArgument, `outputs[0].name: got "sex", want one of`},
		{"output twice", func(q *inference.ModelInferRequest) {
			q.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "species"}, {Name: "species"}}
		}, codes.InvalidArgument, `outputs[1].name: got "species" a second time`},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := NewRequest(ModelName, row)
			test.spoil(req)
			_, err := r.client.ModelInfer(t.Context(), req)
			if s := status.Convert(err); s.Code() != test.code || !strings.Contains(s.Message(), test.reason) {
				t.Errorf("status = %v %q, want %v %q", s.Code(), s.Message(), test.code, test.reason)
			}
		})
	}
	if c := r.server.Counters(); c.Failed != c.Begun || c.InFlight() != 0 {
		t.Errorf("counters = %+v, want every call failed", c)
	}
}

func TestMetadataDescribesTheTensors(t *testing.T) {
	r := start(t, "v3")
	resp, err := r.client.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: ModelName})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Name != ModelName || !slices.Equal(resp.Versions, []string{"v3"}) || len(resp.Inputs) != 1 || len(resp.Outputs) != 2 {
		t.Fatalf("metadata = %v", resp)
	}
	if in := resp.Inputs[0]; in.Name != InputName || in.Datatype != "FP32" || !slices.Equal(in.Shape, []int64{-1, 4}) {
		t.Errorf("input = %v, want measurements FP32 [-1 4]", in)
	}
	_, err = r.client.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: "whales"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("metadata of an unknown model: %v, want NOT_FOUND", err)
	}
	if m, err := r.client.ServerMetadata(t.Context(), &inference.ServerMetadataRequest{}); err != nil || m.Name != "sluice-sample" {
		t.Errorf("ServerMetadata() = %v, %v", m, err)
	}
}

func TestStreamAnswersEveryRequestInOrder(t *testing.T) {
	r := start(t, "v2")
	stream, err := r.client.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750})
	bad := NewRequest(ModelName, Measurements{math.NaN(), 18.7, 181, 3750})
	for i, id := range []string{"a", "b", "c"} {
		req := proto.Clone([]*inference.ModelInferRequest{good, bad, good}[i]).(*inference.ModelInferRequest)
		req.Id = id
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ id, failure string }{{"a", ""}, {"b", "bill_length_mm: got NaN"}, {"c", ""}} {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.GetInferResponse().GetId(); got != want.id {
			t.Errorf("answer %d has id %q, want %q", i, got, want.id)
		}
		if failed := answer.ErrorMessage != ""; failed != (want.failure != "") || !strings.Contains(answer.ErrorMessage, want.failure) {
			t.Errorf("answer %d: error message %q, want %q", i, answer.ErrorMessage, want.failure)
		}
		if outputs := len(answer.GetInferResponse().GetOutputs()); (want.failure == "") != (outputs == 2) {
			t.Errorf("answer %d has %d outputs", i, outputs)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v, want EOF", err)
	}
	if c := r.server.Counters(); c != (Counters{Begun: 1, Answered: 1}) {
		t.Errorf("counters = %+v, want one call answered", c)
	}
}

func TestStreamEndsWithAStatusWhereAsked(t *testing.T) {
	r := start(t, "v2")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "triton_grpc_error", "true")
	stream, err := r.client.ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(NewRequest("whales")); err != nil {
		t.Fatal(err)
	}
	if answer, err := stream.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("Recv() = %v, %v, want status NOT_FOUND", answer, err)
	}
}

func TestProbesFollowTheKnobs(t *testing.T) {
	r := start(t, "v1")
	check := func(want bool) {
		t.Helper()
		server, err := r.client.ServerReady(t.Context(), &inference.ServerReadyRequest{})
		if err != nil || server.Ready != want {
			t.Errorf("ServerReady() = %v, %v, want %v", server, err, want)
		}
		model, err := r.client.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: ModelName, Version: "v1"})
		if err != nil || model.Ready != want {
			t.Errorf("ModelReady() = %v, %v, want %v", model, err, want)
		}
		live, err := r.client.ServerLive(t.Context(), &inference.ServerLiveRequest{})
		if err != nil || !live.Live {
			t.Errorf("ServerLive() = %v, %v, want true", live, err)
		}
		for _, service := range []string{"", "inference.GRPCInferenceService"} {
			health, err := healthpb.NewHealthClient(r.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || (health.Status == healthpb.HealthCheckResponse_SERVING) != want {
				t.Errorf("Check(%q) = %v, %v, want serving %v", service, health, err, want)
			}
		}
	}
	check(true)
	r.set(t, Behaviour{NotReady: true})
	check(false)
	r.set(t, Behaviour{Hang: true}) // probes do not notice
	check(true)

	if _, err := r.client.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: "whales"}); status.Code(err) != codes.NotFound {
		t.Errorf("readiness of an unknown model: %v, want NOT_FOUND", err)
	}
	if _, err := healthpb.NewHealthClient(r.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("health of an unknown service: %v, want NOT_FOUND", err)
	}

	r.set(t, Behaviour{HangProbes: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.client.ServerLive(ctx, &inference.ServerLiveRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("hung ServerLive: %v, want DEADLINE_EXCEEDED", err)
	}
	if _, err := r.client.ModelInfer(t.Context(), NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750})); err != nil {
		t.Errorf("inference while only probes hang: %v", err)
	}
}

// TestShutdownLetsCallsFinish and, when its context ends, cancels those that will not.
func TestShutdownLetsCallsFinish(t *testing.T) {
	r := start(t, "v1")
	r.set(t, Behaviour{Delay: 200 * time.Millisecond})
	answered := make(chan error, 1)
	go func() {
		_, err := r.client.ModelInfer(t.Context(), NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}))
		answered <- err
	}()
	waitFor(t, r.server, func(c Counters) bool { return c.InFlight() == 1 })
	r.server.Shutdown(t.Context())
	if err := <-answered; err != nil {
		t.Errorf("call during shutdown: %v, want an answer", err)
	}
	if c := r.server.Counters(); c != (Counters{Begun: 1, Answered: 1}) {
		t.Errorf("counters after Shutdown = %+v, want one call answered", c)
	}
}

func TestShutdownCancelsCallsThatHang(t *testing.T) {
	r := start(t, "v1")
	r.set(t, Behaviour{Hang: true})
	ended := make(chan error, 1)
	go func() {
		_, err := r.client.ModelInfer(t.Context(), NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}))
		ended <- err
	}()
	waitFor(t, r.server, func(c Counters) bool { return c.InFlight() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r.server.Shutdown(ctx)
	if err := <-ended; err == nil {
		t.Error("a hung call was answered")
	}
	if c := r.server.Counters(); c != (Counters{Begun: 1, Cancelled: 1}) {
		t.Errorf("counters after Shutdown = %+v, want one call cancelled", c)
	}
}

func TestServeAfterShutdownEndsAtOnce(t *testing.T) {
	server := NewServer(load(t, "v1"), nil)
	server.Shutdown(t.Context())
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(lis); err != nil {
		t.Errorf("Serve() = %v, want nil", err)
	}
	if conn, err := lis.Accept(); err == nil {
		conn.Close()
		t.Error("the listener is still open")
	}
}

// hungUp is a stream whose caller has gone, which its context does not tell yet.
type hungUp struct {
	grpc.BidiStreamingServer[inference.ModelInferRequest, inference.ModelStreamInferResponse]
}

func (hungUp) Context() context.Context { return context.Background() }

func (hungUp) Recv() (*inference.ModelInferRequest, error) {
	return NewRequest(ModelName, Measurements{39.1, 18.7, 181, 3750}), nil
}

func (hungUp) Send(*inference.ModelStreamInferResponse) error {
	return status.Error(codes.Unavailable, "transport is closing")
}

// TestStreamWhoseCallerIsGoneIsCancelled, though its answer fails before its context is done: it has not failed.
func TestStreamWhoseCallerIsGoneIsCancelled(t *testing.T) {
	counts := new(counts)
	s := &service{model: load(t, "v1"), knobs: new(Knobs), counts: counts}
	if err := s.ModelStreamInfer(hungUp{}); status.Code(err) != codes.Unavailable {
		t.Errorf("ModelStreamInfer() = %v, want the error of the stream", err)
	}
	if c := counts.snapshot(); c != (Counters{Begun: 1, Cancelled: 1}) {
		t.Errorf("counters = %+v, want one call cancelled", c)
	}
}

// waitFor polls the counters, which calls change from other goroutines.
func waitFor(t *testing.T, s *Server, done func(Counters) bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(s.Counters()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 5 s the counters are %+v", s.Counters())
		}
	}
}
