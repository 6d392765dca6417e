package gateway

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
)

const modelReadyPath = "/inference.GRPCInferenceService/ModelReady"

// well makes all endpoints of a version well, or not.
func (r *rig) makeWell(version string, well bool) {
	for v, t := range r.director.snapshot.Load().targets.all() {
		for _, e := range *t.group.list.Load() {
			if v.Name == version {
				e.unhealthy.Store(!well)
			}
		}
	}
}

// A model is ready while any version with weight is. Which one a call would go to, by
// weight, does not matter, nor do dark versions.
func TestModelIsReadyWhileAVersionWithWeightIs(t *testing.T) {
	s := serve(t, nil)
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [%[1]q], rename: {model: fraud_xgb, version: "7"}}
      - {name: v8, endpoints: [%[1]q, "192.0.2.1:1"]}
      - {name: v9, endpoints: [%[1]q]}
    weights: {v7: 50, v8: 50}
`, s.addr))
	ready := func() bool {
		t.Helper()
		a := r.call(modelReadyPath, message(&pb.ModelReadyRequest{Name: "fraud"}))
		var got pb.ModelReadyResponse
		if a.code != codes.OK || a.one("sluice-model") != "fraud" || proto.Unmarshal(a.body[5:], &got) != nil {
			t.Fatalf("got %v %q, header %v", a.code, a.message, a.header)
		}
		return got.GetReady()
	}
	index := func() (all []string) {
		t.Helper()
		a := r.call("/inference.GRPCInferenceService/RepositoryIndex", message(&pb.RepositoryIndexRequest{Ready: true}))
		var got pb.RepositoryIndexResponse
		if err := proto.Unmarshal(a.body[5:], &got); err != nil {
			t.Fatal(err)
		}
		for _, m := range got.GetModels() {
			all = append(all, m.GetVersion())
		}
		return all
	}
	for _, c := range []struct {
		unwell []string
		ready  bool
		index  []string
	}{
		{nil, true, []string{"v7", "v8"}},
		{[]string{"v7"}, true, []string{"v8"}},
		{[]string{"v8"}, true, []string{"v7"}},
		{[]string{"v7", "v8"}, false, nil},
	} {
		for _, v := range []string{"v7", "v8", "v9"} {
			r.makeWell(v, !slices.Contains(c.unwell, v))
		}
		for range 10 { // not by weight
			if got := ready(); got != c.ready {
				t.Fatalf("%v unwell: got %v", c.unwell, got)
			}
		}
		if got := index(); !slices.Equal(got, c.index) {
			t.Errorf("%v unwell: index %v, want %v", c.unwell, got, c.index)
		}
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("the model server was asked %d times", n)
	}
}

// Whoever names a version gets its server's own answer.
func TestReadinessOfANamedVersionIsItsServers(t *testing.T) {
	s := serve(t, nil)
	r := start(t, routeTo(`, rename: {model: fraud_xgb, version: "7"}`, s.addr))
	for i, c := range []struct {
		body   *pb.ModelReadyRequest
		fields []string
	}{
		{&pb.ModelReadyRequest{Name: "fraud", Version: "v7"}, nil},
		{&pb.ModelReadyRequest{Name: "fraud", Version: "7"}, nil},
		{&pb.ModelReadyRequest{Name: "fraud"}, []string{"Sluice-Version", "v7"}},
	} {
		a := r.call(modelReadyPath, message(c.body), c.fields...)
		if a.code != codes.OK || a.one("sluice-version") != "v7" || len(s.calls()) != i+1 {
			t.Errorf("%v, %v: got %v %q from %q, %d calls", c.body, c.fields, a.code, a.message, a.one("sluice-version"), len(s.calls()))
		}
	}
}

// However a model is named: by message, by metadata, compressed, or not at all.
func TestReadinessIsAskedForInAnyForm(t *testing.T) {
	r := start(t, routeTo("", "192.0.2.1:1"))
	packed := new(bytes.Buffer)
	zw := gzip.NewWriter(packed)
	b, _ := proto.Marshal(&pb.ModelReadyRequest{Name: "fraud"})
	_, _ = zw.Write(b)
	_ = zw.Close()
	for name, c := range map[string]struct {
		a    *answer
		code codes.Code
	}{
		"by metadata":   {r.call(modelReadyPath, message(nil), "Sluice-Model", "fraud"), codes.OK},
		"by an alias":   {r.call(modelReadyPath, message(nil), "Seldon-Model", "fraud"), codes.OK},
		"compressed":    {r.call(modelReadyPath, bytes.NewReader(frame(1, packed.Bytes())), "Grpc-Encoding", "gzip"), codes.OK},
		"by nothing":    {r.call(modelReadyPath, message(nil)), codes.InvalidArgument},
		"no such model": {r.call(modelReadyPath, message(&pb.ModelReadyRequest{Name: "whales"})), codes.NotFound},
		"two names":     {r.call(modelReadyPath, message(&pb.ModelReadyRequest{Name: "fraud"}), "Sluice-Model", "whales"), codes.InvalidArgument},
	} {
		if c.a.code != c.code {
			t.Errorf("%s: got %v %q, want %v", name, c.a.code, c.a.message, c.code)
		}
		var got pb.ModelReadyResponse
		if c.code == codes.OK && (proto.Unmarshal(c.a.body[5:], &got) != nil || !got.GetReady()) {
			t.Errorf("%s: got %v, want ready", name, &got)
		}
	}
}
