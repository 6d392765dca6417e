package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what commands write to it is collected, and what
// the test types they can read.
type terminal struct {
	t      *testing.T
	tty    *os.File // the commands' side
	ptmx   *os.File // the test's side
	screen *buffer
}

func newTerminal(t *testing.T, columns, lines int) *terminal {
	t.Helper()
	t.Setenv("TERM", "xterm-256color")
	t.Setenv("NO_COLOR", "")
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(ptmx.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(lines), Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, tty: tty, ptmx: ptmx, screen: new(buffer)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		chunk := make([]byte, 4096)
		for {
			n, err := ptmx.Read(chunk)
			_, _ = term.screen.Write(chunk[:n])
			if err != nil {
				return // the other side is closed
			}
		}
	}()
	t.Cleanup(func() {
		tty.Close()
		<-read
		ptmx.Close()
	})
	return term
}

// sluice starts a command in the terminal, against a gateway.
func (term *terminal) sluice(ctx context.Context, gateway *served, args ...string) (ended chan error) {
	cmd := newRootCommand()
	cmd.SetArgs(append(args, "--admin", gateway.admin))
	cmd.SetIn(term.tty)
	cmd.SetOut(term.tty)
	cmd.SetErr(term.tty)
	ended = make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	return ended
}

func (term *terminal) types(text string) {
	term.t.Helper()
	if _, err := term.ptmx.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

func TestChangesAreConfirmedInATerminal(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	weights := []string{"weights", "fraud", "v7=1", "v8=1", "--actor", "anna"}
	for _, test := range []struct {
		typed string
		err   error
		split string
	}{
		{"\n", errNotConfirmed, "v7=95 v8=5"},
		{"n\n", errNotConfirmed, "v7=95 v8=5"},
		{"yesterday\n", errNotConfirmed, "v7=95 v8=5"},
		{" Yes \n", nil, "v7=1 v8=1"},
	} {
		t.Run(strings.TrimSpace(test.typed), func(t *testing.T) {
			term := newTerminal(t, 120, 40)
			ended := term.sluice(t.Context(), gateway, weights...)
			term.screen.await(t, `make this change\? \[y/N\] `)
			term.types(test.typed)
			if err := <-ended; !errors.Is(err, test.err) {
				t.Errorf("err = %v, want %v", err, test.err)
			}
			if got := gateway.must(t, "history", "--limit", "1"); strings.Contains(got, "v7 95->1") != (test.err == nil) {
				t.Errorf("history after %q:\n%s", test.typed, got)
			}
		})
	}
}

func TestNothingIsAskedWhere(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	term := newTerminal(t, 120, 40)
	for i, args := range [][]string{
		{"weights", "fraud", "v7=1", "--yes"},
		{"weights", "fraud", "v7=2", "--dry-run"},
		{"weights", "fraud", "v7=1"}, // as it is
		{"weights", "fraud", "v7=3", "-o", "json"},
	} {
		select {
		case err := <-term.sluice(t.Context(), gateway, args...):
			if err != nil {
				t.Errorf("%d: %q: %v", i, args, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q waits:\n%s", args, term.screen)
		}
	}
	if strings.Contains(term.screen.String(), "y/N") {
		t.Errorf("asked:\n%s", term.screen)
	}
}

// TestQuestionIsOvertakenByOthers: what was shown must be what is changed.
func TestQuestionIsOvertakenByOthers(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	term := newTerminal(t, 120, 40)
	ended := term.sluice(t.Context(), gateway, "weights", "fraud", "v7=1", "--actor", "anna")
	term.screen.await(t, `y/N`)
	gateway.must(t, "weights", "fraud", "v8=1", "--actor", "berta", "--reason", "quicker")
	term.types("y\n")
	err := <-ended
	if exitCode(err) != exitLostRace || !strings.Contains(err.Error(), `berta was faster: model "fraud" has changed since revision 1, with revision 2 (quicker)`) {
		t.Errorf("err = %v with exit code %d, want 3 and who was faster", err, exitCode(err))
	}
}

func TestQuestionEndsWithTheCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	term := newTerminal(t, 120, 40)
	ctx, interrupt := context.WithCancel(t.Context())
	ended := term.sluice(ctx, gateway, "weights", "fraud", "v7=1")
	term.screen.await(t, `y/N`)
	interrupt()
	if err := <-ended; !errors.Is(err, errNotConfirmed) {
		t.Errorf("err = %v, want that nothing was changed", err)
	}
	term.types("\n") // for whoever still reads
}

var colour = regexp.MustCompile(`\x1b\[[0-9;]*3[0-9](;[0-9]+)*m`)

func TestColoursOnlyInTerminalsThatWantThem(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	for _, test := range []struct {
		name    string
		noColor string
		want    bool
	}{{"colours", "", true}, {"NO_COLOR", "1", false}} {
		t.Run(test.name, func(t *testing.T) {
			term := newTerminal(t, 120, 40)
			t.Setenv("NO_COLOR", test.noColor)
			if err := <-term.sluice(t.Context(), gateway, "weights", "fraud", "v7=1", "--dry-run"); err != nil {
				t.Fatal(err)
			}
			term.screen.await(t, "dry run")
			if got := colour.MatchString(term.screen.String()); got != test.want {
				t.Errorf("coloured: %v, want %v:\n%q", got, test.want, term.screen)
			}
		})
	}
	if out := gateway.must(t, "weights", "fraud", "v7=1", "--dry-run"); strings.Contains(out, "\x1b") {
		t.Errorf("escape sequences in what is no terminal: %q", out)
	}
}

// TestLiveView changes weights while somebody watches, and takes the gateway away.
func TestLiveView(t *testing.T) {
	t.Chdir(t.TempDir())
	gateway := startServe(t, "--routes", writeRoutes(t, "routes.yaml", startModelServer(t), deadAddress(t)))
	term := newTerminal(t, 100, 20)
	ctx, interrupt := context.WithCancel(t.Context())
	ended := term.sluice(ctx, gateway, "get", "--watch")
	term.screen.await(t, `(?s)revision 1.*store memory, followed.*fraud  v7 .*seeded from`)
	gateway.must(t, "weights", "fraud", "v7=30", "v8=70", "--actor", "anna", "--reason", "most of it")
	term.screen.await(t, `(?s)revision 2.*70\.0 %.*anna +fraud  v7 95->30, v8 5->70  most of it`)
	if err := gateway.stop(); err != nil {
		t.Fatal(err)
	}
	term.screen.await(t, `no gateway answers`)
	interrupt()
	if err := <-ended; err != nil {
		t.Errorf("watch = %v, want nil after an interrupt", err)
	}
}

func TestFitCutsToTheTerminal(t *testing.T) {
	lines := func(name string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint(name, i))
		}
		return all
	}
	for head := range 4 {
		for routes := range 12 {
			for tail := range 12 {
				for height := 1; height < 20; height++ {
					got := fit(lines("h", head), lines("r", routes), lines("t", tail), height)
					if len(got) > height {
						t.Fatalf("%d+%d+%d lines in %d: got %d", head, routes, tail, height, len(got))
					}
					if all := head + routes + tail; all <= height && len(got) != all {
						t.Fatalf("%d+%d+%d lines in %d: got %d, though all fit", head, routes, tail, height, len(got))
					}
				}
			}
		}
	}
}
