package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of the admin server. What operators send is small, except for documents
// of many routes, which the admin service bounds by itself.
const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 2 * time.Minute
	adminHeaderBytes   = 64 << 10
	adminCloseTimeout  = time.Second
)

// ServeAdmin mounts a handler on the admin address, for all paths but /metrics
// and those of the probes. Call it before Run.
func (g *Gateway) ServeAdmin(h http.Handler) { g.admin = h }

// adminHandler answers operators, if there is somebody who does, and kubelets.
func (g *Gateway) adminHandler() http.Handler {
	mux := http.NewServeMux()
	g.handleOpen(mux)
	if g.admin != nil {
		mux.Handle("/", g.admin)
	}
	return mux
}

// openHandler answers kubelets and Prometheus alone.
func (g *Gateway) openHandler() http.Handler {
	mux := http.NewServeMux()
	g.handleOpen(mux)
	return mux
}

// handleOpen adds what needs no token.
func (g *Gateway) handleOpen(mux *http.ServeMux) {
	if g.cfg.Telemetry != nil {
		mux.Handle("GET /metrics", g.cfg.Telemetry.Handler())
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "live")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !g.IsReady() {
			http.Error(w, "not ready: no routing state, or draining", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
}

// serveHTTP serves on a listener, HTTP/2 without TLS too, until the returned
// function is called. Requests under way are told to end by their context. What
// ends serving before that goes to failed.
func (g *Gateway) serveHTTP(ln net.Listener, h http.Handler, cfg *tls.Config, failed chan<- error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Handler:           h,
		Protocols:         protocols,
		TLSConfig:         cfg,
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		MaxHeaderBytes:    adminHeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	g.background.Go(func() {
		serve := s.Serve
		if cfg != nil {
			serve = func(ln net.Listener) error { return s.ServeTLS(ln, "", "") }
		}
		if err := serve(ln); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	return func() {
		cancel()
		closing, done := context.WithTimeout(context.Background(), adminCloseTimeout)
		defer done()
		_ = s.Shutdown(closing) // what has not ended by then is cut off
		_ = s.Close()
	}
}

// adminTLS returns the configuration of the admin address, nil for plaintext: the
// data port's certificate, for HTTP/1.1 too.
func (g *Gateway) adminTLS() *tls.Config {
	if !g.cfg.AdminTLS || g.TLS() == nil {
		return nil
	}
	cfg := g.TLS().Clone()
	cfg.NextProtos = []string{"h2", "http/1.1"}
	return cfg
}
