package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	pb "sluice/proto/inference"
	"sluice/routing"
)

const (
	healthCheck = "/grpc.health.v1.Health/Check"
	healthWatch = "/grpc.health.v1.Health/Watch"
	serverReady = "/inference.GRPCInferenceService/ServerReady"
)

// decode reads the only message of an answer.
func (a *answer) decode(t testing.TB, m proto.Message) {
	t.Helper()
	if a.code != codes.OK || len(a.body) < 5 {
		t.Fatalf("got %v %q, body %x", a.code, a.message, a.body)
	}
	if err := proto.Unmarshal(a.body[5:], m); err != nil {
		t.Fatal(err)
	}
}

// health asks a gateway for its health over gRPC, both ways.
func (r *rig) health(t testing.TB) (status healthpb.HealthCheckResponse_ServingStatus, ready bool) {
	t.Helper()
	var check healthpb.HealthCheckResponse
	r.call(healthCheck, message(&healthpb.HealthCheckRequest{})).decode(t, &check)
	var server pb.ServerReadyResponse
	r.call(serverReady, message(nil)).decode(t, &server)
	return check.GetStatus(), server.GetReady()
}

// probe asks the admin address.
func (r *rig) probe(t testing.TB, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.AdminAddr().String()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func withAdmin(c *Config) { c.Admin = "127.0.0.1:0" }

// A gateway is ready once it has routes, and not before.
func TestReadyMeansRoutes(t *testing.T) {
	s := serve(t, nil)
	r := start(t, "", withAdmin)
	if status, ready := r.health(t); status != healthpb.HealthCheckResponse_NOT_SERVING || ready || r.probe(t, "/readyz") != http.StatusServiceUnavailable {
		t.Errorf("without routes: got %v, ready %v, /readyz %d", status, ready, r.probe(t, "/readyz"))
	}
	if got := r.probe(t, "/livez"); got != http.StatusOK {
		t.Errorf("/livez: got %d", got)
	}
	if a := r.call(modelInfer, infer("fraud", "")); a.code != codes.NotFound || a.one("sluice-revision") != "0" {
		t.Errorf("a call: got %v %q, fields %v", a.code, a.message, a.header)
	}
	r.publish(1, routeTo("", s.addr))
	if status, ready := r.health(t); status != healthpb.HealthCheckResponse_SERVING || !ready || r.probe(t, "/readyz") != http.StatusOK {
		t.Errorf("with routes: got %v, ready %v, /readyz %d", status, ready, r.probe(t, "/readyz"))
	}
}

// The whole of a drain: not ready while calls are still taken, then no new ones,
// and those under way end.
func TestDrain(t *testing.T) {
	begun, finish := make(chan struct{}, 2), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-finish
		ok(w, r)
	})
	const delay = time.Second
	r := start(t, routeTo("", s.addr), withAdmin, func(c *Config) { c.DrainDelay, c.DrainTimeout = delay, patience })
	first := r.waiting(t, 1)
	<-begun
	started := time.Now()
	r.stop()
	r.until(t, "it says that it is not ready", func() bool { return r.probe(t, "/readyz") == http.StatusServiceUnavailable })
	r.publish(2, routeTo("", s.addr))
	if status, ready := r.health(t); status != healthpb.HealthCheckResponse_NOT_SERVING || ready || r.probe(t, "/livez") != http.StatusOK {
		t.Errorf("draining: got %v, ready %v, /livez %d", status, ready, r.probe(t, "/livez"))
	}
	second := r.waiting(t, 1)
	<-begun
	r.until(t, "nobody is accepted any more", func() bool {
		nc, err := net.Dial("tcp", r.Addr().String())
		if err == nil {
			_ = nc.Close()
		}
		return err != nil
	})
	if took := time.Since(started); took < delay {
		t.Errorf("calls were refused after %v already, want them taken for %v", took, delay)
	}
	close(finish)
	for _, a := range append(first(), second()...) {
		if a.code != codes.OK {
			t.Errorf("a call under way: got %v %q", a.code, a.message)
		}
	}
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		r.ended <- nil // for the end of the test
	case <-time.After(patience):
		t.Error("Run goes on, though no call is left")
	}
}

// Calls that do not end are cut off when the time is over, which is said.
func TestDrainEndsInTime(t *testing.T) {
	r := start(t, routeTo("", streams(t, hangs)), func(c *Config) { c.DrainTimeout = 300 * ms })
	got := make(chan bool, 1)
	go func() {
		a, err := r.try(context.Background(), modelStreamInfer, infer("fraud", ""))
		got <- err == nil && a.code == codes.OK
	}()
	r.until(t, "the call is under way", func() bool { return r.Stats().Calls == 1 })
	started := time.Now()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	r.ended <- nil
	if took := time.Since(started); took > 3*time.Second {
		t.Errorf("the drain took %v", took)
	}
	if <-got {
		t.Error("the call ended well")
	}
	if !strings.Contains(r.log.String(), "drain timed out") || !strings.Contains(r.log.String(), "under_way=1") {
		t.Errorf("logged:\n%s", r.log)
	}
}

// Who watches the gateway's health does not hold up its drain.
func TestWatchDoesNotHoldUpTheDrain(t *testing.T) {
	r := start(t, routeTo("", "127.0.0.1:1"), func(c *Config) { c.DrainTimeout = time.Minute })
	body, w := io.Pipe()
	defer w.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = r.try(context.Background(), healthWatch, io.MultiReader(message(&healthpb.HealthCheckRequest{}), body))
	}()
	r.until(t, "the watch is under way", func() bool { return r.Stats().Calls == 1 })
	r.stop()
	select {
	case err := <-r.ended:
		r.ended <- err
	case <-time.After(patience):
		t.Error("the drain waits for a watch")
	}
	<-ended
}

func TestAddressesInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, cfg := range map[string]Config{
		"data address":    {Listen: taken.Addr().String()},
		"admin address":   {Listen: "127.0.0.1:0", Admin: taken.Addr().String()},
		"metrics address": {Listen: "127.0.0.1:0", Admin: "off", Metrics: taken.Addr().String()},
	} {
		g, err := New(cfg, routing.NewRouter())
		if err != nil {
			t.Fatal(err)
		}
		err = g.Run(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("got %v, want it to name the %s", err, want)
		}
	}
}

func TestNewRefusesHalfACertificate(t *testing.T) {
	for _, cfg := range []Config{
		{TLSCert: "tls.crt"}, {TLSKey: "tls.key"},
		{TLSCert: filepath.Join(t.TempDir(), "tls.crt"), TLSKey: filepath.Join(t.TempDir(), "tls.key")},
	} {
		if _, err := New(cfg, routing.NewRouter()); err == nil {
			t.Errorf("%q and %q: no error", cfg.TLSCert, cfg.TLSKey)
		}
	}
}

// brittle is a listener that breaks.
type brittle struct {
	net.Listener
	broken chan struct{}
}

var errBroken = errors.New("the network is gone")

func (b *brittle) Accept() (net.Conn, error) {
	<-b.broken
	return nil, errBroken
}

// When a part that serves fails, calls under way do not suffer, and Run says why.
func TestFailureDrains(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		ok(w, r)
	})
	admin := &brittle{broken: make(chan struct{})}
	r := start(t, routeTo("", s.addr), withAdmin, func(c *Config) {
		first := true
		c.listen = func(network, addr string) (net.Listener, error) {
			ln, err := net.Listen(network, addr)
			if first || err != nil {
				first = false
				return ln, err
			}
			admin.Listener = ln
			return admin, nil
		}
		c.DrainTimeout = patience
	})
	done := r.waiting(t, 1)
	<-begun
	close(admin.broken)
	r.until(t, "it drains", func() bool { return strings.Contains(r.log.String(), "no new calls") })
	close(finish)
	if a := done()[0]; a.code != codes.OK {
		t.Errorf("the call under way: got %v %q", a.code, a.message)
	}
	if err := <-r.ended; !errors.Is(err, errBroken) {
		t.Errorf("Run: got %v, want the cause", err)
	}
	r.ended <- nil
}

// RepositoryIndex is made of the routes: what has no weight is not ready.
func TestRepositoryIndex(t *testing.T) {
	r := start(t, fmt.Sprintf(`
routes:
  - model: fraud
    versions: [{name: v7, endpoints: [%[1]q]}, {name: v8, endpoints: [%[1]q]}]
    weights: {v8: 1}
  - model: churn
    versions: [{name: "1", endpoints: [%[1]q]}]
    weights: {"1": 1}
`, "127.0.0.1:1"))
	for _, c := range []struct {
		ready bool
		want  string
	}{
		{false, "churn 1 READY, fraud v7 UNAVAILABLE, fraud v8 READY"},
		{true, "churn 1 READY, fraud v8 READY"},
	} {
		var index pb.RepositoryIndexResponse
		r.call("/inference.GRPCInferenceService/RepositoryIndex", message(&pb.RepositoryIndexRequest{Ready: c.ready})).decode(t, &index)
		var got []string
		for _, m := range index.GetModels() {
			got = append(got, fmt.Sprintf("%s %s %s", m.GetName(), m.GetVersion(), m.GetState()))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("ready %v: got %q, want %q", c.ready, s, c.want)
		}
	}
}
