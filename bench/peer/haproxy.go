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

// haproxyBuffers makes HAProxy's buffers eight times as long as they are by default. Of 16, 32, 64, 96, 128, 160 and 256 KiB this was the
// best for version 2.6 in plaintext: half of the CPU time at 64 KiB and 1 MiB, and no more for small calls. With 64 and
// 96 KiB it loses upstream connections over streamed answers. With TLS none is the best for all: 64 KiB take 0.8 and 0.65 of the
// CPU time at 64 KiB and 1 MiB, where HAProxy is far from the best with either, and 1.25 of it at 4 KiB. The default stays there.
const haproxyBuffers = "    tune.bufsize 131072\n"

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

// Launch starts HAProxy in the foreground as one process with its threads.
func (h HAProxy) Launch(site Site) Launch {
	mode, http2, reuse, secure, global := "http", " proto h2", "    http-reuse always\n", "", haproxyBuffers
	if site.TLS != nil {
		// Left alone, OpenSSL prefers AES-256.
		global = "    ssl-default-bind-ciphersuites " + cipherSuite + "\n"
		secure = " ssl crt " + site.TLS.Both + " alpn h2"
	}
	if h.TCP {
		mode, http2, reuse, secure, global = "tcp", "", "", "", ""
	}
	// HAProxy has no setting for the connection window: it opens it wide. The
	// number of streams stays at its default of 100, which holds in both
	// directions: with more, HAProxy 2.6 now and then sends the HEADERS of two
	// new upstream streams in the wrong order, for which a server has to close
	// the connection.
	config := fmt.Sprintf(`global
    nbthread %d
    maxconn 8000
    tune.h2.initial-window-size %d
%s
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
`, site.workers(), streamWindow, global, mode, site.Listen, http2, secure, reuse, site.Backend, http2)
	return Launch{
		Files:   []File{{"haproxy.cfg", config}},
		Command: &process.Command{Path: "haproxy", Args: []string{"-db", "-f", site.Folder + "/haproxy.cfg"}},
	}
}
