package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluice/loopback"
)

func TestMain(m *testing.M) {
	// grpc-go and redis-go end some of their goroutines a little after their owners.
	goleak.VerifyTestMain(m)
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until the text matches and returns the submatches.
func (b *buffer) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if found := re.FindStringSubmatch(b.String()); found != nil {
			return found
		}
	}
	t.Fatalf("no %q in:\n%s", pattern, b)
	return nil
}

// served is a running sluice serve.
type served struct {
	data, admin string
	log         *buffer
	stop        func() error
}

// startServe runs sluice serve on free ports until the test ends.
func startServe(t *testing.T, args ...string) *served {
	t.Helper()
	s := &served{log: new(buffer)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state-dir", t.TempDir(), "--drain-delay", "0s"}, args...)
	go func() { ended <- run(ctx, args, s.log, s.log) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("serve: %v\n%s", err, s.log)
		}
	})
	found := s.log.await(t, `sluice serves.*\blisten"?[=:]"?([^\s",]+).*\badmin"?[=:]"?([^\s",]+)`)
	s.data, s.admin = found[1], found[2]
	return s
}

// sluice runs one command against the gateway and returns what it prints and its
// exit code.
func (s *served) sluice(args ...string) (out string, code int) {
	var b bytes.Buffer
	err := run(context.Background(), append(args, "--admin", s.admin), &b, &b)
	if err != nil {
		fmt.Fprintln(&b, "sluice:", err)
		return b.String(), exitCode(err)
	}
	return b.String(), 0
}

// must fails the test unless a command succeeds.
func (s *served) must(t *testing.T, args ...string) string {
	t.Helper()
	out, code := s.sluice(args...)
	if code != 0 {
		t.Fatalf("sluice %q: exit code %d\n%s", args, code, out)
	}
	return out
}

// startModelServer starts a server that is healthy.
func startModelServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

// deadAddress is one that nobody listens on, unless this test does.
func deadAddress(t *testing.T) string {
	t.Helper()
	addr, err := loopback.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// writeRoutes writes a file with the route of fraud, two of whose versions can be
// reached, and returns its name.
func writeRoutes(t *testing.T, name, alive, dead string) string {
	t.Helper()
	return write(t, name, fmt.Sprintf(`routes:
  - model: fraud
    versions:
      - {name: v7, endpoints: [%q]}
      - {name: v8, endpoints: [%q]}
      - {name: v9, endpoints: [%q]}
    weights: {v7: 95, v8: 5}
    sticky: {metadata: x-user-id}
    health: {off: true} # when a server was asked would be left to chance
`, alive, alive, dead))
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// same checks a text against a file, which -update rewrites.
func same(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -update rewrites it. Lines that differ:\n%s", file, differences(string(want), got))
	}
}

func differences(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			from := max(0, i-2)
			return fmt.Sprintf("line %d\nwant: %s\n got: %s", i+1,
				strings.Join(w[min(from, len(w)):min(i+3, len(w))], "\n      "), strings.Join(g[min(from, len(g)):min(i+3, len(g))], "\n      "))
		}
	}
	return ""
}
