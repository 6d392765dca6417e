package peer

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"

	"sluice/bench/process"
)

// Envoy is the proxy of most service meshes, in C++.
type Envoy struct {
	Binary string // empty: envoy on PATH
}

// Name returns "envoy".
func (Envoy) Name() string { return "envoy" }

func (e Envoy) program() string { return cmp.Or(e.Binary, "envoy") }

// Locate asks the program for its version.
func (e Envoy) Locate(ctx context.Context) (string, error) {
	return versionOf(ctx, `version: [0-9a-f]+/([^/\s]+)`, e.program(), "--version")
}

// Launch starts Envoy with its worker threads beside its main thread, which share connections evenly. What it would add to
// requests and answers is turned off, as are its limits on pending and open calls. Its
// statistics stay on: they are to Envoy what metrics are to Sluice.
func (e Envoy) Launch(site Site) Launch {
	balance := ""
	if site.workers() > 1 {
		// Left alone, one thread may accept most of a few connections that live long.
		balance = "      connection_balance_config: {exact_balance: {}}\n"
	}
	config := fmt.Sprintf(`static_resources:
  listeners:
    - address: %[1]s
%[7]s      filter_chains:
        - %[6]sfilters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: calls
                codec_type: HTTP2
                http2_protocol_options: &http2
                  max_concurrent_streams: %[3]d
                  initial_stream_window_size: %[4]d
                  initial_connection_window_size: %[5]d
                stream_idle_timeout: 600s
                generate_request_id: false
                server_header_transformation: PASS_THROUGH
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                      suppress_envoy_headers: true
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {prefix: "/"}
                          route: {cluster: models, timeout: 0s}
  clusters:
    - name: models
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options: *http2
      circuit_breakers:
        thresholds:
          - {max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}
      load_assignment:
        cluster_name: models
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address: %[2]s
`, envoyAddress(site.Listen), envoyAddress(site.Backend), maxStreams, streamWindow, connectionWindow, envoyTLS(site.TLS), balance)
	return Launch{
		Files: []File{{"envoy.yaml", config}},
		Command: &process.Command{
			Path: e.program(),
			Args: []string{"--config-path", site.Folder + "/envoy.yaml", "--concurrency", strconv.Itoa(site.workers()), "--disable-hot-restart", "--log-level", "error"},
		},
	}
}

// envoyAddress writes host:port as Envoy wants it.
func envoyAddress(address string) string {
	host, port, _ := net.SplitHostPort(address) // made by the harness, always well-formed
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// envoyTLS is the part of a filter chain that ends TLS, in front of its filters.
func envoyTLS(files *TLS) string {
	if files == nil {
		return ""
	}
	return fmt.Sprintf(`transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2]
                tls_certificates:
                  - certificate_chain: {filename: %s}
                    private_key: {filename: %s}
          `, files.Cert, files.Key)
}
