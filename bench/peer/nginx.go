package peer

import (
	"context"
	"fmt"

	"sluice/bench/process"
)

// Nginx forwards calls with grpc_pass.
type Nginx struct{}

// Name returns "nginx".
func (Nginx) Name() string { return "nginx" }

// Locate asks the program on PATH for its version.
func (Nginx) Locate(ctx context.Context) (string, error) {
	return versionOf(ctx, `nginx/(\S+)`, "nginx", "-v")
}

// Launch starts nginx in the foreground: a master and its workers. It opens one
// upstream connection per concurrent call, so the idle pool must hold as many
// as there are calls, or connections would be closed and opened all the time.
func (Nginx) Launch(site Site) Launch {
	listen, certificate := site.Listen+" http2", ""
	if site.workers() > 1 {
		// Sharing one socket, a worker that is awake takes all of a few connections: of eight times four, six times. With a socket
		// for each it was once.
		listen += " reuseport"
	}
	if site.TLS != nil {
		listen += " ssl"
		// Version 1.22 would take TLS 1.2, and OpenSSL AES-256.
		certificate = fmt.Sprintf("        ssl_certificate %s;\n        ssl_certificate_key %s;\n        ssl_protocols TLSv1.3;\n        ssl_conf_command Ciphersuites %s;\n",
			site.TLS.Cert, site.TLS.Key, cipherSuite)
	}
	config := fmt.Sprintf(`daemon off;
worker_processes %[8]d;
worker_rlimit_nofile 20000;
pid %[1]s/nginx.pid;
error_log stderr warn;

events {
    worker_connections 16000;
}

http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;

    upstream models {
        server %[2]s;
        keepalive %[3]d;
        keepalive_requests %[4]d;
        keepalive_timeout 10m;
    }

    server {
        listen %[5]s;
%[7]s        http2_max_concurrent_streams %[3]d;
        http2_body_preread_size %[6]d;
        keepalive_requests %[4]d;
        keepalive_timeout 10m;
        client_max_body_size 0;
        grpc_read_timeout 10m;
        grpc_send_timeout 10m;

        location / {
            grpc_pass grpc://models;
        }
    }
}
`, site.Folder, site.Backend, maxStreams, unlimited, listen, streamWindow, certificate, site.workers())
	return Launch{
		Files: []File{{"nginx.conf", config}},
		Command: &process.Command{
			Path: "nginx",
			Args: []string{"-p", site.Folder, "-e", "stderr", "-c", site.Folder + "/nginx.conf"},
		},
	}
}
