package admin_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluice/gateway"
	"sluice/gateway/admin"
	"sluice/loopback"
	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/proto/sluice/admin/v1/adminv1connect"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
	"sluice/routing/memstore"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"))
}

// rig is a real gateway with the service on its admin address.
type rig struct {
	t       *testing.T
	watcher *routing.Watcher
	url     string
	http    *http.Client
	client  adminv1connect.AdminServiceClient
	breaker adminv1connect.BreakerServiceClient
	fault   adminv1connect.FaultServiceClient
	gateway *gateway.Gateway
	router  *routing.Router
	alive   string // an endpoint that answers
	dead    string // one that does not
}

// newRig starts a gateway over a store, by default one in memory. It serves the
// model "fraud" with v7=95, v8=5 and, dark, v9, whose endpoint is dead.
func newRig(t *testing.T, options ...func(*admin.Config)) *rig {
	t.Helper()
	r := &rig{t: t, alive: startServer(t, healthpb.HealthCheckResponse_SERVING), dead: deadAddress(t)}
	router := routing.NewRouter()
	log := slog.New(slog.DiscardHandler)
	r.watcher = routing.NewWatcher(routing.WatcherConfig{
		Store: memstore.New(memstore.Config{}), Router: router, Logger: log,
		Seed: &routingv1.Document{Routes: []*routingv1.Route{r.fraud()}}, SeedFile: "routes.yaml",
	})
	if err := r.watcher.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	gw, err := gateway.New(gateway.Config{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", DrainDelay: -1, Logger: log}, router)
	if err != nil {
		t.Fatal(err)
	}
	cfg := admin.Config{Watcher: r.watcher, Router: router, Gateway: gw, Version: "test", Logger: log, ProbeTimeout: time.Minute} // a busy machine may take seconds
	for _, o := range options {
		o(&cfg)
	}
	service, err := admin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	gw.ServeAdmin(service.Handler())
	background(t, r.watcher.Run)
	background(t, gw.Run)
	<-gw.Ready()
	r.url = "http://" + gw.AdminAddr().String()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r.http = &http.Client{Transport: transport, Timeout: time.Minute}
	r.client = adminv1connect.NewAdminServiceClient(r.http, r.url)
	r.breaker = adminv1connect.NewBreakerServiceClient(r.http, r.url)
	r.fault = adminv1connect.NewFaultServiceClient(r.http, r.url)
	r.gateway, r.router = gw, router
	return r
}

// background runs something until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// fraud is the route every test begins with.
func (r *rig) fraud() *routingv1.Route {
	return &routingv1.Route{
		Model: "fraud",
		Versions: []*routingv1.Version{
			{Name: "v7", Endpoints: []string{r.alive}},
			{Name: "v8", Endpoints: []string{r.dead, r.alive}},
			{Name: "v9", Endpoints: []string{r.dead}},
		},
		Weights: map[string]uint32{"v7": 95, "v8": 5},
		Sticky:  &routingv1.Sticky{Metadata: "x-user-id"},
	}
}

// startServer starts a server that says this of its health.
func startServer(t *testing.T, status healthpb.HealthCheckResponse_ServingStatus) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := health.NewServer()
	h.SetServingStatus("", status)
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

// deadAddress returns an address nobody listens on, nor will.
func deadAddress(t *testing.T) string {
	t.Helper()
	addr, err := loopback.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// by is an intent of an actor.
func by(actor string, alter ...func(*adminv1.Intent)) *adminv1.Intent {
	in := &adminv1.Intent{Actor: actor}
	for _, f := range alter {
		f(in)
	}
	return in
}

func force(in *adminv1.Intent)  { in.Force = true }
func dryRun(in *adminv1.Intent) { in.DryRun = true }

func key(k string) func(*adminv1.Intent) {
	return func(in *adminv1.Intent) { in.RequestKey = k }
}

func expecting(revision uint64) func(*adminv1.Intent) {
	return func(in *adminv1.Intent) { in.ExpectedRevision = &revision }
}

func since(revision uint64) func(*adminv1.Intent) {
	return func(in *adminv1.Intent) { in.UnchangedSince = &revision }
}

// weights asks for another split of fraud.
func (r *rig) weights(in *adminv1.Intent, weights map[string]uint32) (*adminv1.Outcome, error) {
	resp, err := r.client.SetWeights(r.t.Context(), &adminv1.SetWeightsRequest{Intent: in, Model: "fraud", Weights: weights})
	return resp.GetOutcome(), err
}

// must fails the test unless a change was made.
func (r *rig) must(o *adminv1.Outcome, err error) *adminv1.Outcome {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return o
}

// split is what the gateway serves of fraud.
func (r *rig) split() map[string]uint32 {
	r.t.Helper()
	entry, _, _ := r.watcher.Entry("fraud")
	return entry.GetRoute().GetWeights()
}

// refusal takes an error of the service apart.
type refusal struct {
	code   connect.Code
	reason string
	text   string
	fields []*errdetails.BadRequest_FieldViolation
	info   map[string]string
}

func refusalOf(t *testing.T, err error) refusal {
	t.Helper()
	if err == nil {
		t.Fatal("got no error, want a refusal")
	}
	r := refusal{code: connect.CodeOf(err), text: err.Error()}
	var c *connect.Error
	if !asConnect(err, &c) {
		t.Fatalf("got %v, want a connect error", err)
	}
	for _, d := range c.Details() {
		m, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			if m.GetDomain() != "sluice" {
				t.Errorf("domain %q, want sluice", m.GetDomain())
			}
			r.reason, r.info = m.GetReason(), m.GetMetadata()
		case *errdetails.BadRequest:
			r.fields = m.GetFieldViolations()
		}
	}
	return r
}

// post sends a body the way curl does.
func (r *rig) post(path, body string, header ...string) (status int, answer string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
