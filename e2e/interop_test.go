package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/gateway"
)

// interopCases are the cases of grpc-go's interop client that need no account
// with anybody.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak",
}

// tool returns the path of a program that the Makefile builds.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("bin/%s is missing: build it with \"make conformance-tools\"", name)
	}
	return path
}

// startInteropServer runs grpc-go's interop server and returns its address.
func startInteropServer(t testing.TB, flags ...string) string {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	p := startProcess(t, nil, tool(t, "interop-server"), append(flags, "-port", port)...)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
			return addr
		}
		select {
		case <-p.ended:
			t.Fatalf("interop server: %v\n%s", p.err, &p.out)
		default:
		}
	}
	t.Fatal("interop server does not listen")
	return ""
}

// interopRoute sends the interop services to a server, settings being further
// YAML of its version.
func interopRoute(addr, settings string) string {
	return fmt.Sprintf(`
routes:
  - model: interop
    services: [grpc.testing.TestService, grpc.testing.UnimplementedService, xds.service.orca.v3.OpenRcaService]
    versions: [{name: a, endpoints: [%q]%s}]
    weights: {a: 100}
`, addr, settings)
}

// runInterop runs every case of the interop client against an address.
func runInterop(t *testing.T, addr string, flags ...string) {
	client := tool(t, "interop-client")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range interopCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, client, append([]string{
				"-server_host", host, "-server_port", port, "-test_case", name,
				// The race detector is in the way of these calls.
				"-soak_iterations", "10", "-soak_per_iteration_max_acceptable_latency_ms", "5000", "-soak_overall_timeout_seconds", "50",
				// The ORCA cases read the reports where a load balancer would; the others do not mind.
				"-service_config_json", `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`,
			}, flags...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", cmd, err, out)
			}
		})
	}
}

func TestInteropPlaintext(t *testing.T) {
	g := startGateway(t, interopRoute(startInteropServer(t), ""))
	runInterop(t, g.addr)
}

func TestInteropTLS(t *testing.T) {
	ca := newAuthority(t)
	upCert, upKey := ca.files(t)
	upstream := startInteropServer(t, "-use_tls", "-tls_cert_file", upCert, "-tls_key_file", upKey)
	tls := fmt.Sprintf(", tls: {ca_file: %q, server_name: %s}", ca.file, serverName)
	g := startGateway(t, interopRoute(upstream, tls), func(c *gateway.Config) {
		c.TLSCert, c.TLSKey = ca.files(t)
	})
	runInterop(t, g.addr, "-use_tls", "-use_test_ca", "-ca_file", ca.file, "-server_host_override", serverName)
}
