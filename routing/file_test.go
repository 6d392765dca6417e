package routing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/routing"
	"sluice/routing/memstore"
	"sluice/routing/storetest"
)

// routesFile is a document with a route for each model, "m" if none is named; all
// have one version of this name.
func routesFile(version string, models ...string) string {
	if len(models) == 0 {
		models = []string{"m"}
	}
	var b strings.Builder
	b.WriteString("routes:\n")
	for _, m := range models {
		fmt.Fprintf(&b, "  - model: %s\n    versions: [{name: %s, endpoints: [\"h:1\"]}]\n    weights: {%[2]s: 1}\n", m, version)
	}
	return b.String()
}

// followed is a source under test, and the Watcher it writes to.
type followed struct {
	*routing.FileSource
	*watched
}

func newFollowed(t *testing.T, path string, poll time.Duration) followed {
	t.Helper()
	w := startWatcher(t, memstore.New(memstore.Config{}))
	return followed{routing.NewFileSource(routing.FileConfig{
		Path:    path,
		Watcher: w.Watcher,
		Logger:  slog.New(slog.NewTextHandler(w.log, nil)),
		Poll:    poll,
		Settle:  5 * time.Millisecond,
	}), w}
}

// never is longer than any test: what happens then was not found by polling.
const never = time.Hour

// run follows the file until the test ends.
func (f followed) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.FileSource.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

// serving returns the version of the model "m" that calls get, and the revision.
func (f followed) serving() string {
	table := f.router.Current()
	r, ok := table.Route("m")
	if !ok {
		return "nothing at " + table.RevisionText()
	}
	return r.Versions[0].Name + " at " + table.RevisionText()
}

// await fails the test unless the router serves want before long.
func (f followed) await(t *testing.T, want string) {
	t.Helper()
	storetest.Eventually(t, "serving "+want, func() bool { return f.serving() == want })
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file in another's place, as careful editors do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".tmp", content)
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func TestLoadPublishesOnlyWhatIsNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.yaml")
	f := newFollowed(t, path, never)
	for _, step := range []struct {
		name, content string
		want          string // what is served
		err           string // part of the error; empty for none
	}{
		{"bad at the start", "routes: 1\n", "nothing at 0", "routes.yaml:1: routes: got 1, want a list"},
		{"good", routesFile("v1"), "v1 at 1", ""},
		{"the same", routesFile("v1"), "v1 at 1", ""},
		{"a comment more", "# no change\n" + routesFile("v1"), "v1 at 1", ""},
		{"another version", routesFile("v2"), "v2 at 2", ""},
		{"bad", routesFile("v 3"), "v2 at 2", "routes.yaml:3: routes[0].versions[0].name"},
		{"bad still", routesFile("v 3"), "v2 at 2", "routes.yaml:3: routes[0].versions[0].name"},
		{"emptied", "", "v2 at 2", "want at least one route"},
		{"back to what is published", routesFile("v2"), "v2 at 2", ""},
		{"back to the beginning", routesFile("v1"), "v1 at 3", ""},
	} {
		write(t, path, step.content)
		before := f.FileSource.Status()
		err := f.Load()
		if step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%s: Load = %v, want an error with %q", step.name, err, step.err)
		}
		if got := f.serving(); got != step.want {
			t.Errorf("%s: serving %s, want %s", step.name, got, step.want)
		}
		status := f.FileSource.Status()
		if status.Revision != f.router.Current().Revision() || !errors.Is(status.Err, err) {
			t.Errorf("%s: Status = %+v, want the table's revision and Load's error", step.name, status)
		}
		if isNew := status.Revision != before.Revision; isNew != !status.LoadedAt.Equal(before.LoadedAt) {
			t.Errorf("%s: LoadedAt went from %v to %v, want a change with the revision only", step.name, before.LoadedAt, status.LoadedAt)
		}
	}
}

func TestUnreadableFileKeepsTheTable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "routes.yaml")
	f := newFollowed(t, path, never)
	write(t, path, routesFile("v1"))
	if err := f.Load(); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func() error{
		"missing":   func() error { return nil },
		"a folder":  func() error { return os.Mkdir(path, 0o700) },
		"a pipe":    func() error { return syscall.Mkfifo(path, 0o600) },
		"too large": func() error { return os.WriteFile(path, make([]byte, 64<<20+1), 0o600) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if err := f.Load(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Load = %v, want an error that names the file", what, err)
		}
		if got := f.serving(); got != "v1 at 1" {
			t.Errorf("%s: serving %s, want v1 at 1", what, got)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, routesFile("v1"))
		if err := f.Load(); err != nil || f.FileSource.Status().Err != nil {
			t.Errorf("%s, then back: Load = %v, want nil", what, err)
		}
	}
}

func TestRunNoticesChanges(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path, content string){
		"written in place": write,
		"replaced":         replace,
		"removed, written again": func(t *testing.T, path, content string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			write(t, path, content)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "routes.yaml")
			write(t, path, routesFile("v1"))
			f := newFollowed(t, path, never)
			f.run(t)
			f.await(t, "v1 at 1")
			for i := 2; i < 6; i++ {
				change(t, path, routesFile(fmt.Sprint("v", i)))
				f.await(t, fmt.Sprintf("v%d at %[1]d", i))
			}
		})
	}
}

// TestRunNoticesConfigMaps swaps the link that Kubernetes swaps: the file's own
// link never changes.
func TestRunNoticesConfigMaps(t *testing.T) {
	dir := t.TempDir()
	mount := func(generation, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, generation), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, generation, "routes.yaml"), content)
		if err := os.Symlink(generation, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..2026_01", routesFile("v1"))
	path := filepath.Join(dir, "routes.yaml")
	if err := os.Symlink("..data/routes.yaml", path); err != nil {
		t.Fatal(err)
	}
	f := newFollowed(t, path, never)
	f.run(t)
	f.await(t, "v1 at 1")
	mount("..2026_02", routesFile("v2"))
	f.await(t, "v2 at 2")
}

// TestRunPolls changes a file whose folder reports nothing.
func TestRunPolls(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.yaml")
	write(t, elsewhere, routesFile("v1"))
	path := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	f := newFollowed(t, path, 10*time.Millisecond)
	f.run(t)
	f.await(t, "v1 at 1")
	write(t, elsewhere, routesFile("v2"))
	f.await(t, "v2 at 2")
}

// TestRunWithoutFolder has nothing to watch, and still finds the file later.
func TestRunWithoutFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	f := newFollowed(t, filepath.Join(dir, "routes.yaml"), 10*time.Millisecond)
	f.run(t)
	storetest.Eventually(t, "warned", func() bool { return f.log.count("found by polling only") == 1 })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "routes.yaml"), routesFile("v1"))
	f.await(t, "v1 at 1")
}

// TestRunSaysOnceWhatIsWrong: a bad file is reported when it appears and when
// somebody asks, not with every poll.
func TestRunSaysOnceWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.yaml")
	write(t, path, routesFile("v1"))
	f := newFollowed(t, path, 5*time.Millisecond)
	f.run(t)
	f.await(t, "v1 at 1")

	const refused, exact = "routes refused", "routes[0].weights.v9: got"
	replace(t, path, strings.Replace(routesFile("v1"), "{v1: 1}", "{v1: 1, v9: 1}", 1))
	storetest.Eventually(t, "refused", func() bool { return f.FileSource.Status().Err != nil && f.log.count(exact) == 1 })
	time.Sleep(50 * time.Millisecond) // ten polls
	if n := f.log.count(refused); n != 1 {
		t.Errorf("refused %d times in the log, want once", n)
	}
	f.Reload()
	storetest.Eventually(t, "refused again", func() bool { return f.log.count(refused) == 2 })
	if got := f.serving(); got != "v1 at 1" {
		t.Errorf("serving %s, want v1 at 1", got)
	}

	replace(t, path, routesFile("v1"))
	storetest.Eventually(t, "well again", func() bool { return f.FileSource.Status().Err == nil && f.log.count("routes are as published") == 1 })
	if got := f.serving(); got != "v1 at 1" {
		t.Errorf("serving %s, want v1 at 1", got)
	}
}

// TestReloadReadsAtOnce, without a change reported or polled.
func TestReloadReadsAtOnce(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere.yaml")
	write(t, elsewhere, routesFile("v1"))
	path := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	f := newFollowed(t, path, never)
	f.run(t)
	f.await(t, "v1 at 1")
	write(t, elsewhere, routesFile("v2"))
	for range 3 {
		f.Reload() // must not block, however often
	}
	f.await(t, "v2 at 2")
}
