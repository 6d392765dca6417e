package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"sluice/sample"
)

// model is the name under which the sample models know themselves.
const model = "penguins"

// backend is a sample model server inside the test process.
type backend struct {
	*sample.Server
	model *sample.Model
	knobs *sample.Knobs
	addr  string
}

// startBackend serves a version of the sample model until the test ends.
func startBackend(t testing.TB, version string, options ...grpc.ServerOption) *backend {
	t.Helper()
	m, err := sample.Load(version)
	if err != nil {
		t.Fatal(err)
	}
	return startModel(t, m, options...)
}

// startModel runs a server of a model until the test ends. Its address is nobody else's, also when it is shut down
// before.
func startModel(t testing.TB, m *sample.Model, options ...grpc.ServerOption) *backend {
	t.Helper()
	b := &backend{model: m, knobs: new(sample.Knobs)}
	b.Server = sample.NewServer(m, b.knobs, options...)
	lis, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	b.addr = lis.Addr().String()
	served := make(chan error, 1)
	go func() { served <- b.Serve(lis) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("model server %s: %v", m.Version, err)
		}
	})
	return b
}

// turn sets the knobs of the server.
func (b *backend) turn(t testing.TB, behaviour sample.Behaviour) {
	t.Helper()
	if err := b.knobs.Set(behaviour); err != nil {
		t.Fatal(err)
	}
}

// routeTo is a document with one route for the sample model, all of whose calls go
// to the server at addr as version v1.
func routeTo(addr string) string {
	return fmt.Sprintf(`
routes:
  - model: %s
    versions: [{name: v1, endpoints: [%q]}]
    weights: {v1: 1}
`, model, addr)
}

// split is a document with one route for the sample model and two versions.
func split(v1, v2 *backend, weight1, weight2 int) string {
	return fmt.Sprintf(`
routes:
  - model: %s
    versions:
      - {name: v1, endpoints: [%q]}
      - {name: v2, endpoints: [%q]}
    weights: {v1: %d, v2: %d}
`, model, v1.addr, v2.addr, weight1, weight2)
}

// within gives a call its own end, so that a test never hangs.
func within(t testing.TB, d time.Duration, metadataPairs ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, metadataPairs...)
}

// one returns the single value of a metadata key.
func one(t testing.TB, md metadata.MD, key string) string {
	t.Helper()
	if v := md.Get(key); len(v) == 1 {
		return v[0]
	}
	t.Errorf("metadata %s: got %q, want one value", key, md.Get(key))
	return ""
}

// heldBack returns penguins that no model has seen.
var heldBack = sync.OnceValue(func() []sample.Row {
	_, held := sample.Split()
	return slices.DeleteFunc(held, func(r sample.Row) bool { return !r.Complete() })
})
