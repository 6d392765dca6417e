package gateway

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "sluice/proto/inference"
	"sluice/routing"
)

// The message that reaches the server names the model as the server knows it,
// whatever the caller said.
func TestNamesThatReachTheServer(t *testing.T) {
	s := serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: plain, endpoints: [%[1]q]}
      - {name: model, endpoints: [%[1]q], rename: {model: fraud_xgb}}
      - {name: version, endpoints: [%[1]q], rename: {version: "7"}}
      - {name: both, endpoints: [%[1]q], rename: {model: fraud_xgb, version: "8"}}
      - {name: "9", endpoints: [%[1]q], rename: {version: "9"}}
    weights: {plain: 1}
  - model: lax
    versions: [{name: v1, endpoints: [%[1]q]}]
    weights: {v1: 1}
    ignore_model_version: true
`, s.addr))
	for _, c := range []struct {
		model, modelVersion, force string
		served                     string // by
		name, version              string // in the message
	}{
		{"fraud", "", "", "plain", "fraud", ""},
		{"fraud", "plain", "", "plain", "fraud", ""}, // a name of the gateway's
		{"fraud", "model", "", "model", "fraud_xgb", ""},
		{"fraud", "", "model", "model", "fraud_xgb", ""},
		{"fraud", "version", "", "version", "fraud", "7"},
		{"fraud", "7", "", "version", "fraud", "7"}, // the server's own name
		{"fraud", "", "version", "version", "fraud", "7"},
		{"fraud", "both", "both", "both", "fraud_xgb", "8"},
		{"fraud", "8", "both", "both", "fraud_xgb", "8"},
		{"fraud", "9", "", "9", "fraud", "9"},
		{"lax", "v1", "", "v1", "lax", ""},
		{"lax", "2024-10", "", "v1", "lax", "2024-10"}, // means nothing here, maybe to the server
	} {
		var fields []string
		if c.force != "" {
			fields = []string{"sluice-version", c.force}
		}
		// Inputs between the names and what is appended.
		m := &pb.ModelInferRequest{ModelName: c.model, ModelVersion: c.modelVersion, Id: "1", RawInputContents: [][]byte{make([]byte, 5000)}}
		a := r.call(modelInfer, message(m), fields...)
		if a.code != codes.OK || a.one("sluice-version") != c.served {
			t.Errorf("%+v: got %v %q by %q", c, a.code, a.message, a.one("sluice-version"))
			continue
		}
		var got pb.ModelInferRequest
		s.last(t).message(t, 0, &got)
		if got.GetModelName() != c.name || got.GetModelVersion() != c.version || got.GetId() != "1" || len(got.GetRawInputContents()[0]) != 5000 {
			t.Errorf("%+v: the server got model_name %q, model_version %q, id %q", c, got.GetModelName(), got.GetModelVersion(), got.GetId())
		}
	}
}

// Every message of a stream is renamed, those without a name too.
func TestEveryMessageOfAStreamIsRenamed(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo(`, rename: {model: fraud_xgb, version: "7"}`, s.addr))
	a := r.call(modelStreamInfer, message(
		&pb.ModelInferRequest{ModelName: "fraud", Id: "1"}, &pb.ModelInferRequest{Id: "2"}, &pb.ModelInferRequest{ModelName: "fraud", Id: "3"}))
	if a.code != codes.OK {
		t.Fatalf("got %v %q", a.code, a.message)
	}
	for i := range 3 {
		var got pb.ModelInferRequest
		s.last(t).message(t, i, &got)
		if got.GetModelName() != "fraud_xgb" || got.GetModelVersion() != "7" || got.GetId() != fmt.Sprint(i+1) {
			t.Errorf("message %d: got %v", i, &got)
		}
	}
}

func TestPerModelMethodsAreRenamedToo(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo(`, rename: {model: fraud_xgb, version: "7"}`, s.addr))
	const service = "/inference.GRPCInferenceService/"
	for _, c := range []struct {
		method string
		body   io.Reader
	}{
		{"ModelReady", message(&pb.ModelReadyRequest{Name: "fraud", Version: "v7"})},
		{"ModelMetadata", message(&pb.ModelMetadataRequest{Name: "fraud", Version: "v7"})},
		{"ModelConfig", message(&pb.ModelConfigRequest{Name: "fraud", Version: "7"})},
		{"ModelStatistics", message(&pb.ModelStatisticsRequest{Name: "fraud"})},
	} {
		a := r.call(service+c.method, c.body)
		var got pb.ModelReadyRequest // all have name 1, version 2
		s.last(t).message(t, 0, &got)
		if a.code != codes.OK || got.GetName() != "fraud_xgb" || got.GetVersion() != "7" || s.last(t).path != service+c.method {
			t.Errorf("%s: got %v %q; the server got %v", c.method, a.code, a.message, &got)
		}
	}
}

// TensorFlow Serving's specs are merged, and a version in one cannot be taken back.
func TestModelSpecsThatReachTheServer(t *testing.T) {
	s := serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [%[1]q], rename: {model: fraud_xgb, version: "7"}}
      - {name: "8", endpoints: [%[1]q]}
      - {name: stable, endpoints: [%[1]q]}
    weights: {v7: 1}
`, s.addr))
	for _, c := range []struct {
		version uint64
		label   string
		served  string
		want    string // name, version, label
	}{
		{0, "", "v7", "fraud_xgb 7 "},
		{7, "", "v7", "fraud_xgb 7 "},
		{0, "v7", "v7", "fraud_xgb 7 "}, // version and label are one: the last one counts
		{8, "", "8", "fraud 8 "},
		{0, "stable", "stable", "fraud 0 stable"},
	} {
		a := r.call("/tensorflow.serving.PredictionService/Predict", message(modelSpec("fraud", c.version, c.label)))
		if a.code != codes.OK || a.one("sluice-version") != c.served {
			t.Errorf("version %d, label %q: got %v %q by %q", c.version, c.label, a.code, a.message, a.one("sluice-version"))
			continue
		}
		var m emptypb.Empty
		s.last(t).message(t, 0, &m)
		if got := mergedSpec(t, m.ProtoReflect().GetUnknown()); got != c.want {
			t.Errorf("version %d, label %q: the server got %q, want %q", c.version, c.label, got, c.want)
		}
	}
}

// mergedSpec reads a PredictRequest's model_specs as protobuf merges them.
func mergedSpec(t *testing.T, b []byte) string {
	t.Helper()
	var name, label string
	var version uint64
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if number != 1 || wire != protowire.BytesType {
			t.Fatalf("field %d of type %d", number, wire)
		}
		spec, m := protowire.ConsumeBytes(b[n:])
		b = b[n+m:]
		for len(spec) > 0 {
			number, _, n := protowire.ConsumeTag(spec)
			v, m := protowire.ConsumeBytes(spec[n:])
			if n < 0 || m < 0 {
				t.Fatalf("model_spec %x", spec)
			}
			spec = spec[n+m:]
			switch number {
			case 1:
				name = string(v)
			case 2:
				version, label = 0, ""
				if len(v) > 0 {
					version, _ = protowire.ConsumeVarint(v[1:])
				}
			case 4:
				version, label = 0, string(v)
			}
		}
	}
	return fmt.Sprintf("%s %d %s", name, version, label)
}

// A sticky key decides as the routing table does, and sluice-key before the
// route's own metadata.
func TestStickyKeys(t *testing.T) {
	s := serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}, {name: v8, endpoints: [%[1]q]}]
    weights: {v7: 1, v8: 1}
    sticky: {metadata: x-user-id}
`, s.addr))
	route, _ := r.router.Current().Route("fraud")
	want := func(key string) string {
		c, err := route.Choose("", key, 0)
		if err != nil {
			t.Fatal(err)
		}
		return c.Version.Name
	}
	of := map[string]string{} // version -> a key that lands there
	for i := range 20 {
		key := fmt.Sprint("user-", i)
		of[want(key)] = key
		for _, field := range []string{"sluice-key", "x-user-id"} {
			if got := r.call(modelInfer, infer("fraud", ""), field, key).one("sluice-version"); got != want(key) {
				t.Errorf("%s: %s: got %q, want %q", field, key, got, want(key))
			}
		}
	}
	if a := r.call(modelInfer, infer("fraud", ""), "x-user-id", of["v7"], "sluice-key", of["v8"]); a.one("sluice-version") != "v8" {
		t.Errorf("both keys: got %q, want sluice-key's v8", a.one("sluice-version"))
	}
	if a := r.call(modelInfer, infer("fraud", "v7"), "sluice-key", of["v8"]); a.one("sluice-version") != "v7" {
		t.Errorf("a key and a force: got %q, want the forced v7", a.one("sluice-version"))
	}
}

func TestCallsAreSharedByWeightAndNoneIsDark(t *testing.T) {
	s := serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}, {name: v8, endpoints: [%[1]q]}, {name: v9, endpoints: [%[1]q]}]
    weights: {v7: 3, v8: 1}
`, s.addr))
	const n = 1000
	got := map[string]int{}
	for range n {
		got[r.call(modelInfer, infer("fraud", "")).one("sluice-version")]++
	}
	// 6.2 sigma of a binomial with p = 1/4, sqrt(1000*3/16) each: one run in 1e9 is further off.
	if got["v9"] != 0 || got["v8"] < n/4-85 || got["v8"] > n/4+85 {
		t.Errorf("got %v of %d calls at weights 3 to 1 to 0", got, n)
	}
	if a := r.call(modelInfer, infer("fraud", ""), "sluice-version", "v9"); a.one("sluice-version") != "v9" {
		t.Errorf("forced: got %q, want v9", a.one("sluice-version"))
	}
}

// Where no message names a model, metadata does, under any of its names; else
// the service.
func TestRoutingWithoutNamesInMessages(t *testing.T) {
	s := serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: till
    services: [shop.Till, inference.GRPCInferenceService]
    versions: [{name: v1, endpoints: [%[1]q]}]
    weights: {v1: 1}
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}]
    weights: {v7: 1}
`, s.addr))
	body := func() io.Reader { return message(&pb.ModelInferRequest{Id: "opaque to the gateway"}) }
	for _, c := range []struct {
		path, key string
		want      string
	}{
		{"/shop.Till/Ring", "", "till"},
		{"/shop.Till/Ring", "sluice-model", "fraud"},
		{"/shop.Scale/Weigh", "seldon-model", "fraud"},
		{"/shop.Scale/Weigh", "mm-model-id", "fraud"},
		{"/shop.Scale/Weigh", "mm-vmodel-id", "fraud"},
		{"/shop.Scale/Weigh", "x-gateway-model-name", "fraud"},
		{modelInfer, "sluice-model", "fraud"},
		{modelInfer, "", "till"}, // the message is empty of names
		{"/tensorflow.serving.PredictionService/MultiInference", "sluice-model", "fraud"},
	} {
		var fields []string
		if c.key != "" {
			fields = []string{c.key, "fraud"}
		}
		a := r.call(c.path, body(), fields...)
		if a.code != codes.OK || a.one("sluice-model") != c.want || s.last(t).path != c.path {
			t.Errorf("%s with %q: got %v %q by %q", c.path, c.key, a.code, a.message, a.one("sluice-model"))
		}
	}
	if a := r.call("/shop.Till/Ring", body(), "sluice-version", "v1"); a.one("sluice-version") != "v1" {
		t.Errorf("a forced version of a service: got %v %q", a.code, a.message)
	}
}

func TestManagementPassesWhereTheRouteAllowsIt(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo("", s.addr)+"    allow_management: true\n")
	a := r.call("/inference.GRPCInferenceService/RepositoryModelLoad", message(&pb.RepositoryModelLoadRequest{ModelName: "fraud"}))
	if a.code != codes.OK || a.one("sluice-version") != "v7" {
		t.Errorf("got %v %q", a.code, a.message)
	}
}

// ForcedByModelVersion and Choose decide for the director: whatever it makes of a
// pair of wishes is what they say.
func TestPickVersionFollowsTheRoute(t *testing.T) {
	tb := table(t, 1, fraudRoutes("127.0.0.1:1"))
	route, _ := tb.Route("fraud")
	names := []string{"", "v7", "v8", "closed", "1", "v0"}
	for range 2000 {
		force, modelVersion := names[rand.IntN(len(names))], names[rand.IntN(len(names))]
		s := &call{route: route, modelVersion: modelVersion}
		s.meta.ForceVersion = force
		choice, refused := s.pickVersion(nil)
		if (choice.Version == nil) == (refused == nil) {
			t.Fatalf("sluice-version %q, model_version %q: got %v and %v", force, modelVersion, choice.Version, refused)
		}
		if refused != nil {
			continue
		}
		byMessage, err := route.ForcedByModelVersion(modelVersion)
		if err != nil || (force != "" && byMessage != "" && force != byMessage) {
			t.Errorf("sluice-version %q, model_version %q: got %q, want a refusal", force, modelVersion, choice.Version.Name)
		}
		if want := force + byMessage; want != "" && (choice.Reason != routing.Forced || (choice.Version.Name != force && choice.Version.Name != byMessage)) {
			t.Errorf("sluice-version %q, model_version %q: got %+v", force, modelVersion, choice)
		}
	}
}
