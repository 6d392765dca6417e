package e2e

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sluice/gateway"
	"sluice/gateway/relay"
	"sluice/routing"
)

// runningGateway is a gateway inside the test process, with its file of routes.
type runningGateway struct {
	*gateway.Gateway
	addr   string
	routes string // the file, which the gateway follows
	source *routing.FileSource
	log    *logBuffer
}

// startGateway runs a gateway until the test ends. It then has to have given
// back whatever it took for calls.
func startGateway(t testing.TB, routes string, change ...func(*gateway.Config)) *runningGateway {
	t.Helper()
	g := &runningGateway{routes: filepath.Join(t.TempDir(), "routes.yaml"), log: new(logBuffer)}
	writeFile(t, g.routes, routes)
	log := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	router := routing.NewRouter()
	g.source = routing.NewFileSource(routing.FileConfig{
		Path: g.routes, Router: router, Logger: log, Poll: time.Second, Settle: 10 * time.Millisecond,
	})
	if err := g.source.Load(); err != nil {
		t.Fatalf("routes: %v", err)
	}
	cfg := gateway.Config{
		Listen: "127.0.0.1:0", Admin: "off", DrainDelay: -1, DrainTimeout: 5 * time.Second,
		Version: "e2e", Logger: log,
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if g.Gateway, err = gateway.New(cfg, router); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(context.Background())
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return g.source.Run(ctx) })
	running.Go(func() error { return g.Run(ctx) })
	t.Cleanup(func() {
		eventually(t, 5*time.Second, "no call under way and every buffer given back", func() error {
			return atRest(g.Stats())
		})
		stop()
		if err := running.Wait(); err != nil {
			t.Errorf("gateway: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.log)
		}
	})
	select {
	case <-g.Ready():
	case <-ctx.Done():
		t.Fatalf("gateway: %v", context.Cause(ctx))
	}
	g.addr = g.Addr().String()
	return g
}

// atRest says what a gateway without calls still holds.
func atRest(s relay.Stats) error {
	if s.Calls != 0 || s.ReplayBytes != 0 || s.BufferedBytes != 0 || s.CaptureBytes != 0 {
		return fmt.Errorf("got %+v, want no calls and no bytes", s)
	}
	return nil
}

// dial connects to the gateway, or to a model server, in plaintext unless the
// options say otherwise.
func dial(t testing.TB, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	cc, err := grpc.NewClient(addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// eventually waits until check finds nothing wrong.
func eventually(t testing.TB, patience time.Duration, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Errorf("not within %v: %s: %v", patience, what, err)
}

// writeFile replaces a file whole, so that nobody reads it half written.
func writeFile(t testing.TB, path, content string) {
	t.Helper()
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
}

// logBuffer collects a log that is written and read at the same time.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// has says what of all the texts is missing in every line of the log.
func (l *logBuffer) has(texts ...string) error {
	for line := range strings.Lines(l.String()) {
		missing := false
		for _, text := range texts {
			missing = missing || !strings.Contains(line, text)
		}
		if !missing {
			return nil
		}
	}
	return fmt.Errorf("no line with %q", texts)
}
