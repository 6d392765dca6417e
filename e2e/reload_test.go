package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/sample"
)

// A bad document and everything its message has to say: where, what, and what is
// accepted instead.
const badRoutes = `
routes:
  - model: penguins
    versions:
      - {name: v1, endpoints: ["127.0.0.1"]}
    weights: {v1: many, v2: 5}
`

var badRoutesSaid = []string{
	`routes.yaml:5: routes[0].versions[0].endpoints[0]: got "127.0.0.1", want host:port`,
	`routes.yaml:6: routes[0].weights.v1: got "many", want`,
	`routes.yaml:6: routes[0].weights.v2: got "v2", want one of the route's versions (v1)`,
}

func TestReloadThroughTheBinary(t *testing.T) {
	v1, v2 := startBackend(t, "v1"), startBackend(t, "v2")
	s := startSluice(t, split(v1, v2, 1, 0), "--log-format", "json")
	l := startLoad(model, 2, dial(t, s.addr))
	cc := dial(t, s.addr)
	serves := func(version, revision string) {
		t.Helper()
		a := infer(within(t, 10*time.Second), cc, sample.NewRequest(model, heldBack()[0].Measurements))
		if a.err != nil {
			t.Fatal(a.err)
		}
		if v, r := one(t, a.header, "sluice-version"), one(t, a.header, "sluice-revision"); v != version || r != revision {
			t.Errorf("got version %s of revision %s, want %s of %s", v, r, version, revision)
		}
	}
	serves("v1", "1")

	// A file that is bad, by itself and when asked.
	writeFile(t, s.routes, badRoutes)
	said := func() error {
		for _, text := range badRoutesSaid {
			if err := s.out.has(`"level":"ERROR"`, "routes refused, the last good ones stay", jsonText(text)); err != nil {
				return err
			}
		}
		return nil
	}
	eventually(t, 10*time.Second, "the log says what is wrong", said)
	before := strings.Count(s.out.String(), "routes refused")
	s.signal(t, syscall.SIGHUP)
	eventually(t, 10*time.Second, "it says so again on SIGHUP", func() error {
		if strings.Count(s.out.String(), "routes refused") == before {
			return errors.New("no further line")
		}
		return nil
	})
	serves("v1", "1")

	writeFile(t, s.routes, split(v1, v2, 0, 1))
	s.signal(t, syscall.SIGHUP)
	eventually(t, 10*time.Second, "the good file is published", func() error { return s.out.has("routes published", `"revision":2`) })
	serves("v2", "2")

	s.signal(t, syscall.SIGHUP)
	eventually(t, 10*time.Second, "nothing new is said to be so", func() error { return s.out.has("routes are as published") })
	serves("v2", "2")
	t.Logf("%d calls of others went on meanwhile", l.stop(t))
	s.stop(t, 10*time.Second)
}

// jsonText is text as it stands inside a JSON string.
func jsonText(s string) string { return strings.ReplaceAll(s, `"`, `\"`) }

func TestBinaryRefusesToStartWithBadRoutes(t *testing.T) {
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "routes.yaml")
	writeFile(t, file, badRoutes)
	for _, c := range []struct {
		name string
		args []string
		exit int
		said []string
	}{
		{"bad routes", []string{"--routes", file}, 1, badRoutesSaid},
		{"no such file", []string{"--routes", file + ".not"}, 1, []string{"no such file"}},
		{"no such flag", []string{"--rotes", file}, 2, []string{"--rotes", "try: sluice serve --help"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "off"}, c.args...)...)
			cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != c.exit {
				t.Errorf("got %v, want exit code %d", err, c.exit)
			}
			for _, text := range c.said {
				if !strings.Contains(string(out), text) {
					t.Errorf("output: got %q, want %q in it", out, text)
				}
			}
		})
	}
}
