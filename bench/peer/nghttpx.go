package peer

import (
	"context"
	"fmt"
	"net"

	"sluice/bench/process"
)

// Nghttpx is nghttp2's proxy, a relay in C++ that speaks HTTP/2 on both sides.
type Nghttpx struct{}

// Name returns "nghttpx".
func (Nghttpx) Name() string { return "nghttpx" }

// Locate asks the program on PATH for its version.
func (Nghttpx) Locate(ctx context.Context) (string, error) {
	return versionOf(ctx, `nghttp2/(\S+)`, "nghttpx", "--version")
}

// Launch starts nghttpx. The header fields it would add are
// turned off: the other peers add none.
func (Nghttpx) Launch(site Site) Launch {
	front := "frontend=" + commas(site.Listen) + ";no-tls"
	if site.TLS != nil {
		front = fmt.Sprintf("frontend=%s\nprivate-key-file=%s\ncertificate-file=%s", commas(site.Listen), site.TLS.Key, site.TLS.Cert)
	}
	config := fmt.Sprintf(`workers=%[6]d
%[1]s
backend=%[2]s;;no-tls;proto=h2
no-via=yes
no-add-x-forwarded-proto=yes
no-server-rewrite=yes
frontend-http2-max-concurrent-streams=%[3]d
frontend-http2-window-size=%[4]d
frontend-http2-connection-window-size=%[5]d
backend-http2-max-concurrent-streams=%[3]d
backend-http2-window-size=%[4]d
backend-http2-connection-window-size=%[5]d
frontend-http2-read-timeout=10m
backend-read-timeout=10m
backend-write-timeout=10m
`, front, commas(site.Backend), maxStreams, streamWindow, connectionWindow, site.workers())
	return Launch{
		Files:   []File{{"nghttpx.conf", config}},
		Command: &process.Command{Path: "nghttpx", Args: []string{"--conf", site.Folder + "/nghttpx.conf"}},
	}
}

// commas writes host:port as nghttpx wants it: host,port.
func commas(address string) string {
	host, port, _ := net.SplitHostPort(address) // made by the harness, always well-formed
	return host + "," + port
}
