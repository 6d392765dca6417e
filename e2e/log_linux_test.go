package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/sample"
)

// TestLogThatFailsCostsItsLinesAlone: whoever reads the gateway's log stops to, and later goes away. Calls and metrics go on,
// also past a server that is gone and comes back, which is what the log would tell of.
func TestLogThatFailsCostsItsLinesAlone(t *testing.T) {
	server := freeAddr(t)
	listen, admin := freeAddr(t), freeAddr(t)
	stop := serveModel(t, server)
	reader := startUnread(t, "serve", "--routes", routesFile(t, routeTo(server)), "--listen", listen, "--admin", admin, "--drain-delay", "0s")
	page := func(path string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return string(b), err
	}
	eventually(t, 20*time.Second, "the gateway is ready", func() error { _, err := page("/readyz"); return err })
	cc := dial(t, listen)
	call := func(model string) error {
		return infer(within(t, 5*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements)).err
	}
	// A failed call has a line, and a hundred lines are more than the pipe holds.
	fail := func() {
		for range 100 {
			if err := call("nobody"); status.Code(err) != codes.NotFound {
				t.Fatalf("a call of an unknown model: %v", err)
			}
		}
	}
	fail()

	stop()
	eventually(t, 20*time.Second, "calls fail", func() error {
		if call(model) == nil {
			return errors.New("the server is still there")
		}
		return nil
	})
	stop = serveModel(t, server)
	eventually(t, 20*time.Second, "calls are answered again", func() error { return call(model) })
	for range 20 {
		if err := call(model); err != nil {
			t.Fatalf("a call while nobody reads the log: %v", err)
		}
	}
	if _, err := page("/metrics"); err != nil {
		t.Errorf("metrics while nobody reads the log: %v", err)
	}

	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lines that cannot be written are counted", func() error {
		fail() // lines are limited
		text, err := page("/metrics")
		if err == nil && !strings.Contains(text, `sluice_telemetry_dropped_total{reason="export_failed",signal="logs"}`) {
			err = errors.New("none")
		}
		return err
	})
	if err := call(model); err != nil {
		t.Errorf("a call after the log's reader has gone: %v", err)
	}
	stop()
}

// startUnread starts sluice with a small pipe as its log, and returns the end that nobody reads. The process must end well.
func startUnread(t *testing.T, args ...string) io.Closer {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close()
		_ = cmd.Process.Signal(unix.SIGTERM) // fails if it has ended, as the next line says
		timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("sluice: %v", err)
		}
	})
	return r
}

func routesFile(t *testing.T, routes string) string {
	path := filepath.Join(t.TempDir(), "routes.yaml")
	writeFile(t, path, routes)
	return path
}

// serveModel serves the sample model at an address until it is stopped, at the latest at the end of the test.
func serveModel(t *testing.T, addr string) (stop func()) {
	t.Helper()
	m, err := sample.Load("v1")
	if err != nil {
		t.Fatal(err)
	}
	server := sample.NewServer(m, new(sample.Knobs))
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("model server: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}
