package peer

import (
	"context"
	"fmt"

	"sluice/bench/process"
)

// HAProxy forwards calls with HTTP/2 on both sides or, in TCP mode, copies
// bytes without looking: the floor below which no proxy that reads its traffic
// can be expected to come.
type HAProxy struct{ TCP bool }

// Name returns "haproxy" or "haproxy-tcp".
func (h HAProxy) Name() string {
	if h.TCP {
		return "haproxy-tcp"
	}
	return "haproxy"
}

// Opaque reports whether TLS passes through.
func (h HAProxy) Opaque() bool { return h.TCP }

// Locate asks the program on PATH for its version.
func (HAProxy) Locate(ctx context.Context) (string, error) {
	return versionOf(ctx, `version (\S+)`, "haproxy", "-v")
}

// Launch starts HAProxy in the foreground as one process with one thread.
func (h HAProxy) Launch(site Site) Launch {
	mode, http2, reuse, secure := "http", " proto h2", "    http-reuse always\n", ""
	if site.TLS != nil {
		secure = " ssl crt " + site.TLS.Both + " alpn h2"
	}
	if h.TCP {
		mode, http2, reuse, secure = "tcp", "", "", ""
	}
	// HAProxy has no setting for the connection window: it opens it wide. The
	// number of streams stays at its default of 100, which holds in both
	// directions: with more, HAProxy 2.6 now and then sends the HEADERS of two
	// new upstream streams in the wrong order, for which a server has to close
	// the connection.
	config := fmt.Sprintf(`global
    nbthread 1
    maxconn 8000
    tune.h2.initial-window-size %d

defaults
    mode %s
    timeout connect 5s
    timeout client 10m
    timeout server 10m

frontend calls
    bind %s%s%s
    default_backend models

backend models
%s    server backend %s%s
`, streamWindow, mode, site.Listen, http2, secure, reuse, site.Backend, http2)
	return Launch{
		Files:   []File{{"haproxy.cfg", config}},
		Command: &process.Command{Path: "haproxy", Args: []string{"-db", "-f", site.Folder + "/haproxy.cfg"}},
	}
}
