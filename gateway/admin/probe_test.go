package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluice/gateway/admin"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

// TestProbeTellsWhatIsWrong asks for the status of endpoints of all kinds.
func TestProbeTellsWhatIsWrong(t *testing.T) {
	r := newRig(t)
	sick := startServer(t, healthpb.HealthCheckResponse_NOT_SERVING)
	bare := serveGRPC(t) // no health service
	secure, ca := serveTLS(t)
	_, port, _ := net.SplitHostPort(r.alive)
	tlsOf := func(file string) *routingv1.TLS { return &routingv1.TLS{CaFile: file, ServerName: "models.test"} }
	versions := []struct {
		endpoint string
		tls      *routingv1.TLS
		problem  string // empty if it is healthy
	}{
		{r.alive, nil, ""},
		{"dns:///localhost:" + port, nil, ""},
		{"localhost:" + port, nil, ""},
		{bare, nil, ""},
		{secure, tlsOf(ca), ""},
		{r.dead, nil, "connection refused"},
		{sick, nil, "not serving"},
		{secure, nil, "error reading server preface"},
		{secure, &routingv1.TLS{ServerName: "models.test"}, "certificate"},
		{secure, tlsOf("/nowhere.pem"), "ca_file"},
		{r.alive, tlsOf(ca), "handshake"},
		{"dns:///no-such-host.invalid:1", nil, "no such host"},
	}
	route := &routingv1.Route{Model: "probed", Weights: map[string]uint32{"0": 1}}
	for i, v := range versions {
		route.Versions = append(route.Versions, &routingv1.Version{Name: string(rune('0' + i)), Endpoints: []string{v.endpoint}, Tls: v.tls})
	}
	if _, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("a"), Document: &routingv1.Document{Routes: []*routingv1.Route{route}}}); err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Status(t.Context(), &adminv1.StatusRequest{Model: "probed", Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range resp.GetVersions() {
		want, got := versions[i], v.GetEndpoints()[0]
		if got.GetHealthy() != (want.problem == "") || !strings.Contains(got.GetProblem(), want.problem) {
			t.Errorf("%s with %v: %v, want %q", want.endpoint, want.tls, got, want.problem)
		}
	}
}

// TestProbeOfOneThatHangsEnds, and says so, long before the client gives up.
func TestProbeOfOneThatHangsEnds(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // connections are made, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	r := newRig(t, func(c *admin.Config) { c.ProbeTimeout = 0 }) // the default
	route := &routingv1.Route{Model: "probed", Weights: map[string]uint32{"v1": 1}, Versions: []*routingv1.Version{{Name: "v1", Endpoints: []string{hung.Addr().String()}}}}
	applied, err := r.client.Apply(t.Context(), &adminv1.ApplyRequest{Intent: by("a"), Document: &routingv1.Document{Routes: []*routingv1.Route{route}}})
	if err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(applied.GetOutcome().GetWarnings(), " "); !strings.Contains(w, "no answer") {
		t.Errorf("the change is warned of with %q, want that nobody answers", w)
	}
	resp, err := r.client.Status(t.Context(), &adminv1.StatusRequest{Model: "probed", Probe: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetVersions()[0].GetEndpoints()[0]; got.GetHealthy() || !strings.Contains(got.GetProblem(), "no answer") {
		t.Errorf("got %v, want that there is no answer", got)
	}
}

// serveGRPC starts a server without any service.
func serveGRPC(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

// serveTLS starts a server for the name models.test and returns the file with its
// certificate.
func serveTLS(t *testing.T) (addr, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"models.test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	caFile = writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return serveGRPC(t, grpc.Creds(credentials.NewServerTLSFromCert(&cert))), caFile
}
