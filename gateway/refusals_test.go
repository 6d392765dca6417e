package gateway

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "sluice/proto/inference"
)

// fraudRoutes has a version for each thing that can be refused.
func fraudRoutes(addr string) string {
	return fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [%[1]q]}
      - {name: v8, endpoints: [%[1]q], rename: {version: "1"}}
      - {name: v9, endpoints: [%[1]q], rename: {version: "1"}}
      - {name: closed, endpoints: [%[1]q], allow_force: false}
      - {name: text, endpoints: [%[1]q], rename: {version: "first"}}
    weights: {v7: 1}
    services: [shop.Till]
`, addr)
}

func infer(model, version string) io.Reader {
	return message(&pb.ModelInferRequest{ModelName: model, ModelVersion: version, Id: "1"})
}

// Every call that the director refuses says why, to people and to programs, and
// what the gateway knew of it by then. No server gets to see it.
func TestRefusals(t *testing.T) {
	const (
		management = "/inference.GRPCInferenceService/RepositoryModelLoad"
		predict    = "/tensorflow.serving.PredictionService/Predict"
	)
	spec := func(version uint64, label string) io.Reader { return message(modelSpec("fraud", version, label)) }
	s := serve(t, nil)
	r := start(t, fraudRoutes(s.addr))
	for _, c := range []struct {
		name   string
		path   string
		body   io.Reader
		fields []string
		code   codes.Code
		reason string
		text   string // in the message
		model  string // sluice-model
	}{
		{"unknown model", modelInfer, infer("froud", ""), nil,
			codes.NotFound, "MODEL_NOT_FOUND", `"froud"`, ""},
		{"unknown model in metadata", "/shop.Scale/Weigh", message(), []string{"sluice-model", "froud"},
			codes.NotFound, "MODEL_NOT_FOUND", `"froud"`, ""},
		{"long name", modelInfer, infer(strings.Repeat("x", 1000), ""), nil,
			codes.NotFound, "MODEL_NOT_FOUND", `xxx..."`, ""},
		{"no name", modelInfer, infer("", ""), nil,
			codes.InvalidArgument, "MODEL_MISSING", "sluice-model", ""},
		{"no message", modelInfer, nil, nil,
			codes.InvalidArgument, "MODEL_MISSING", "sluice-model", ""},
		{"no metadata where messages name nothing", "/tensorflow.serving.PredictionService/MultiInference", message(), nil,
			codes.InvalidArgument, "MODEL_MISSING", "sluice-model", ""},
		{"service of no route", "/shop.Scale/Weigh", message(), nil,
			codes.Unimplemented, "SERVICE_NOT_ROUTED", `"shop.Scale"`, ""},
		{"path that names no method", "/Weigh", message(), nil,
			codes.Unimplemented, "METHOD_UNKNOWN", `"/Weigh"`, ""},
		{"long path", "/" + strings.Repeat("x", 1000), message(), nil,
			codes.Unimplemented, "METHOD_UNKNOWN", `xxx..."`, ""},
		{"names that differ", modelInfer, infer("fraud", ""), []string{"sluice-model", "froud"},
			codes.InvalidArgument, "MODEL_CONFLICT", `"froud"`, ""},
		{"aliases that differ", modelInfer, infer("fraud", ""), []string{"seldon-model", "fraud", "mm-model-id", "froud"},
			codes.InvalidArgument, "MODEL_CONFLICT", "mm-model-id", ""},
		{"values of a key that differ", modelInfer, infer("fraud", ""), []string{"sluice-key", "a", "sluice-key", "b"},
			codes.InvalidArgument, "MODEL_CONFLICT", "sluice-key", ""},
		{"unknown version by metadata", modelInfer, infer("fraud", ""), []string{"sluice-version", "v1"},
			codes.NotFound, "VERSION_NOT_FOUND", `"v1"`, "fraud"},
		{"unknown version by message", modelInfer, infer("fraud", "v1"), nil,
			codes.NotFound, "VERSION_NOT_FOUND", `"v1"`, "fraud"},
		{"version known to two servers", modelInfer, infer("fraud", "1"), nil,
			codes.InvalidArgument, "VERSION_CONFLICT", `"1"`, "fraud"},
		{"two versions", modelInfer, infer("fraud", "v7"), []string{"sluice-version", "v8"},
			codes.InvalidArgument, "VERSION_CONFLICT", `"v8"`, "fraud"},
		{"version that cannot be forced, by metadata", modelInfer, infer("fraud", ""), []string{"sluice-version", "closed"},
			codes.PermissionDenied, "FORCE_NOT_ALLOWED", `"closed"`, "fraud"},
		{"version that cannot be forced, by message", modelInfer, infer("fraud", "closed"), nil,
			codes.PermissionDenied, "FORCE_NOT_ALLOWED", `"closed"`, "fraud"},
		{"unknown version of TensorFlow Serving", predict, spec(3, ""), nil,
			codes.NotFound, "VERSION_NOT_FOUND", `"3"`, "fraud"},
		{"unknown label of TensorFlow Serving", predict, spec(0, "canary"), nil,
			codes.NotFound, "VERSION_NOT_FOUND", `"canary"`, "fraud"},
		{"rename that TensorFlow Serving cannot express", predict, spec(0, ""), []string{"sluice-version", "text"},
			codes.FailedPrecondition, "RENAME_NOT_POSSIBLE", `"first"`, "fraud"},
		{"management", management, message(&pb.RepositoryModelLoadRequest{ModelName: "fraud"}), nil,
			codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "allow_management", "fraud"},
		{"management of no route", "/inference.GRPCInferenceService/TraceSetting", message(), nil,
			codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "sluice-model", ""},
		{"management service of no route", "/org.pytorch.serve.grpc.management.ManagementAPIsService/ScaleWorker", message(), nil,
			codes.PermissionDenied, "MANAGEMENT_NOT_ALLOWED", "sluice-model", ""},
		{"message that is no protobuf", modelInfer, bytes.NewReader(frame(0, []byte{0x07})), nil,
			codes.InvalidArgument, "MESSAGE_MALFORMED", "message 1", ""},
		{"half a message", modelInfer, bytes.NewReader(frame(0, []byte("x"))[:5]), nil,
			codes.InvalidArgument, "MESSAGE_MALFORMED", "missing", ""},
		{"message over its limit", modelInfer, bytes.NewReader([]byte{0, 0xff, 0xff, 0xff, 0xff}), nil,
			codes.ResourceExhausted, "MESSAGE_TOO_LARGE", "at most", ""},
		{"flag that is none", modelInfer, bytes.NewReader(frame(2, nil)), nil,
			codes.Internal, "FRAME_INVALID", "want 0 or 1", ""},
		{"compression that is not known", modelInfer, bytes.NewReader(frame(1, []byte("x"))), []string{"grpc-encoding", "zstd"},
			codes.Unimplemented, "COMPRESSION_UNSUPPORTED", "zstd", ""},
		{"compressed message that is none", modelInfer, bytes.NewReader(frame(1, []byte("x"))), []string{"grpc-encoding", "gzip"},
			codes.InvalidArgument, "MESSAGE_MALFORMED", "gzip", ""},
		{"deadline that has passed", modelInfer, infer("fraud", ""), []string{"grpc-timeout", "0n"},
			codes.DeadlineExceeded, "DEADLINE", "", "fraud"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := r.call(c.path, c.body, append([]string{"x-request-id", "id-1"}, c.fields...)...)
			if a.code != c.code || !strings.Contains(a.message, c.text) {
				t.Errorf("got %v %q, want %v with %q", a.code, a.message, c.code, c.text)
			}
			if n := len(a.message); n > 700 {
				t.Errorf("a message of %d bytes: %s", n, a.message)
			}
			info := a.info()
			if info.GetReason() != c.reason || info.GetDomain() != "sluice" {
				t.Errorf("got ErrorInfo %v, want reason %s of domain sluice", info, c.reason)
			}
			if int(a.details.GetCode()) != int(a.code) || a.details.GetMessage() != a.message {
				t.Errorf("details say %d %q, the status %d %q", a.details.GetCode(), a.details.GetMessage(), a.code, a.message)
			}
			want := map[string]string{"sluice-attempts": "0", "sluice-revision": "1", "x-request-id": "id-1"}
			if c.model != "" {
				want["sluice-model"] = c.model
			}
			got := maps.Clone(info.GetMetadata())
			delete(got, "sluice-version") // a version may have been chosen by then
			if !maps.Equal(got, want) {
				t.Errorf("ErrorInfo has metadata %v, want %v", got, want)
			}
			for key, value := range info.GetMetadata() {
				if a.one(key) != value {
					t.Errorf("field %s: got %q, ErrorInfo says %q", key, a.one(key), value)
				}
			}
			if n := len(s.calls()); n != 0 {
				t.Errorf("the server was called %d times", n)
			}
		})
	}
}

// A client that is told of an unknown compression is told the known ones.
func TestUnsupportedCompressionNamesTheSupportedOnes(t *testing.T) {
	r := start(t, fraudRoutes(serve(t, nil).addr))
	a := r.call(modelInfer, bytes.NewReader(frame(1, []byte("x"))), "grpc-encoding", "zstd")
	if got := a.one("grpc-accept-encoding"); got != "identity,deflate,gzip" {
		t.Errorf("grpc-accept-encoding: got %q", got)
	}
}

// What a caller writes cannot make a status that does not arrive: header fields
// hold visible ASCII, and details valid UTF-8.
func TestRefusalsOfStrangeNames(t *testing.T) {
	r := start(t, fraudRoutes(serve(t, nil).addr))
	for _, name := range []string{"\x00\n\r", "%41", "Modell \u00fcber alles", strings.Repeat("\u20ac", 300)} {
		a := r.call(modelInfer, infer(name, ""))
		if a.code != codes.NotFound || a.info().GetReason() != "MODEL_NOT_FOUND" {
			t.Errorf("model %q: got %v %q, %v", name, a.code, a.message, a.details)
		}
	}
}

// A server's own statuses are not the gateway's to change.
func TestServersStatusPassesUnchanged(t *testing.T) {
	var code codes.Code
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { fails(code, "as the%20server says")(w, r) })
	r := start(t, fraudRoutes(s.addr))
	for i, next := range []codes.Code{codes.InvalidArgument, codes.Internal, codes.Unavailable, 99} {
		code = next
		a := r.call(modelInfer, infer("fraud", ""))
		if a.code != code || a.message != "as the server says" || len(a.details.GetDetails()) > 0 {
			t.Errorf("got %v %q with details %v", a.code, a.message, a.details)
		}
		if a.one("sluice-version") != "v7" || a.one("sluice-attempts") != "1" {
			t.Errorf("got fields %v", a.header)
		}
		if n := len(s.calls()); n != i+1 {
			t.Errorf("%v: the server was called %d times, want once", code, n-i)
		}
	}
}

func TestReasonsAreDistinct(t *testing.T) {
	all := []string{
		reasonMethodUnknown, reasonModelMissing, reasonModelNotFound, reasonServiceNotRouted, reasonVersionNotFound,
		reasonVersionConflict, reasonForceNotAllowed, reasonManagement, reasonRename, reasonNoEndpoint, reasonBreakerOpen, reasonInFlight, reasonBudget, reasonDeadline,
		reasonEvicted, reasonUnreachable, reasonLost, reasonReset, reasonUnprocessed, reasonInvalidAnswer, reasonBadRequest,
	}
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
		t.Errorf("two reasons are the same: %q", all)
	}
}
