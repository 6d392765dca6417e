package health

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
)

// wire encodes a message.
func wire(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

var (
	yes        = wire(&pb.ModelReadyResponse{Ready: true}) // ServerReadyResponse looks the same
	serving    = wire(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
	notServing = wire(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING})
)

// saying is TorchServe's word: field 1, a string.
func saying(word string) []byte { return append([]byte{1<<3 | 2, byte(len(word))}, word...) }

func TestEveryKindOfServerIsAskedInItsOwnWords(t *testing.T) {
	type answers = map[question]answer
	fraud7 := Model{"fraud", "7"}
	for _, c := range []struct {
		name    string
		kind    Kind
		answers answers
		asked   []question
		problem string // empty: well
	}{
		{"generic", Generic, answers{check: {body: serving}}, []question{check}, ""},
		{"generic, not serving", Generic, answers{check: {body: notServing}}, []question{check}, "not serving"},
		{"generic, status unknown", Generic, answers{check: {}}, []question{check}, ""},
		{"generic, no such service", Generic, nil, []question{check}, ""},
		{"open inference", OpenInference, answers{serverReady: {body: yes}, modelReady: {body: yes}},
			[]question{modelReady, serverReady}, ""},
		{"another model is not ready", OpenInference, answers{serverReady: {}, modelReady: {body: yes}},
			[]question{modelReady, serverReady}, ""},
		{"the model is not ready", OpenInference, answers{serverReady: {body: yes}, modelReady: {}},
			[]question{modelReady, serverReady}, `model "fraud" version "7" is not ready`},
		{"the model is not there", OpenInference, answers{serverReady: {body: yes}, modelReady: {code: codes.NotFound}},
			[]question{modelReady, serverReady}, `has no model "fraud" version "7"`},
		{"no ModelReady, not ready", OpenInference, answers{serverReady: {}},
			[]question{modelReady, serverReady}, "the server says that it is not ready"},
		{"no ModelReady, ready", OpenInference, answers{serverReady: {body: yes}}, []question{modelReady, serverReady}, ""},
		{"neither", OpenInference, nil, []question{modelReady, serverReady}, ""},
		{"tfserving with health", TFServing, answers{check: {body: serving}}, []question{check}, ""},
		{"tfserving with health, not serving", TFServing, answers{check: {body: notServing}}, []question{check}, "not serving"},
		{"tfserving", TFServing, answers{modelMetadata: {}}, []question{check, modelMetadata}, ""},
		{"tfserving without the model", TFServing, answers{modelMetadata: {code: codes.NotFound}},
			[]question{check, modelMetadata}, `has no model "fraud"`},
		{"torchserve", TorchServe, answers{ping: {body: saying("Healthy")}}, []question{ping}, ""},
		{"torchserve, some workers", TorchServe, answers{ping: {body: saying(`{"status": "Partial Healthy"}`)}}, []question{ping}, ""},
		{"torchserve, no workers", TorchServe, answers{ping: {body: saying(`{"status": "Unhealthy"}`)}}, []question{ping}, "none of its workers"},
		{"torchserve without Ping", TorchServe, nil, []question{ping}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, c.answers)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := Ask(ctx, Target{Server{s.addr, nil, c.kind}, fraud7})
			if (err == nil) != (c.problem == "") || (err != nil && !strings.Contains(err.Error(), c.problem)) {
				t.Errorf("got %v, want %q", err, c.problem)
			}
			if got := s.kinds(); !slices.Equal(got, c.asked) {
				t.Errorf("it was asked %q, want %q", got, c.asked)
			}
		})
	}
}

// Whatever a server says is a sign of life, but for the two codes by which nothing is
// said.
func TestAnyAnswerIsASignOfLife(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, map[question]answer{check: {code: code}})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := Ask(ctx, Target{Server: Server{Addr: s.addr}})
			if dead := code == codes.Unavailable || code == codes.DeadlineExceeded; (err != nil) != dead {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An answer that cannot be read, or is far too long, is an answer.
func TestGarbageIsASignOfLife(t *testing.T) {
	for name, body := range map[string][]byte{"cut off": {0x0a}, "long": make([]byte, 2*maxAnswer)} {
		s := startServer(t, map[question]answer{check: {body: body}, serverReady: {body: body}, modelReady: {body: body}, ping: {body: body}})
		for _, kind := range []Kind{Generic, OpenInference, TFServing, TorchServe} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := Ask(ctx, Target{Server: Server{Addr: s.addr, Kind: kind}}); err != nil {
				t.Errorf("%s, kind %d: %v", name, kind, err)
			}
			cancel()
		}
	}
}

// The bytes are those of tensorflow.serving.GetModelMetadataRequest, written by hand.
func TestModelMetadataIsAskedForByTheServersNames(t *testing.T) {
	for m, want := range map[Model]string{
		{"fraud", ""}:       "\x0a\x07\x0a\x05fraud\x12\x0dsignature_def",
		{"fraud", "300"}:    "\x0a\x0c\x0a\x05fraud\x12\x03\x08\xac\x02\x12\x0dsignature_def",
		{"fraud", "stable"}: "\x0a\x07\x0a\x05fraud\x12\x0dsignature_def",
	} {
		if got := string(wire(metadataRequest(m))); got != want {
			t.Errorf("%s: got %q, want %q", m, got, want)
		}
	}
}

func TestModelReadyIsAskedForByTheServersNames(t *testing.T) {
	s := startServer(t, map[question]answer{serverReady: {body: yes}, modelReady: {body: yes}})
	if err := Ask(t.Context(), Target{Server{Addr: s.addr, Kind: OpenInference}, Model{"fraud_xgb", "7"}}); err != nil {
		t.Fatal(err)
	}
	want := asked{modelReady, string(wire(&pb.ModelReadyRequest{Name: "fraud_xgb", Version: "7"}))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.asked, want) {
		t.Errorf("got %q, want %q among them", s.asked, want)
	}
}

func TestKindsByTheNamesInRoutes(t *testing.T) {
	for name, want := range map[string]Kind{
		"generic": Generic, "triton": OpenInference, "mlserver": OpenInference, "kserve": OpenInference,
		"openvino": OpenInference, "tfserving": TFServing, "torchserve": TorchServe,
	} {
		if got := KindOf(name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

func FuzzFirstString(f *testing.F) {
	f.Add(saying("Healthy"))
	f.Add([]byte("\x10\x01\x0a\x02ok"))
	f.Add([]byte{0x0b, 0x0b, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := firstString(b); len(got) > len(b) || !strings.Contains(string(b), got) {
			t.Errorf("%q: got %q", b, got)
		}
	})
}

func ExampleModel_String() {
	fmt.Println(Model{"fraud", ""}, Model{"fraud", "7"})
	// Output: "fraud" "fraud" version "7"
}
