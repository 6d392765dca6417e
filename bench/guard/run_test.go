package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A repository with a gateway that only copies bytes, and spins for every piece of them, and with a
// benchmark that says how long it would. That is counted, not timed: a busy machine changes nothing.
const (
	gatewaySource = `package main

import (
	"io"
	"net"
	"os"
	"regexp"

	"sluice/spin"
)

func main() {
	var listen, routes string
	for i, argument := range os.Args {
		switch argument {
		case "--listen":
			listen = os.Args[i+1]
		case "--routes":
			routes = os.Args[i+1]
		}
	}
	text, err := os.ReadFile(routes)
	if err != nil {
		panic(err)
	}
	if regexp.MustCompile("frobnicate:").Match(text) {
		panic("frobnicate is not known here")
	}
	backend := string(regexp.MustCompile("127[.]0[.]0[.]1:[0-9]+").Find(text))
	l, err := net.Listen("tcp", listen)
	if err != nil {
		panic(err)
	}
	for {
		down, err := l.Accept()
		if err != nil {
			panic(err)
		}
		up, err := net.Dial("tcp", backend)
		if err != nil {
			panic(err)
		}
		go pass(down, up)
		go pass(up, down)
	}
}

func pass(from, to net.Conn) {
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		spin.Once()
		if _, failed := to.Write(b[:n]); failed != nil || err == io.EOF || err != nil {
			return
		}
	}
}
`
	spinSource = `package spin

var sink uint64

// Rounds is how long Once spins, about a nanosecond each.
const Rounds = %d

// Once takes some time of a processor.
func Once() {
	x := sink | 1
	for range Rounds {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	sink = x
}
`
	benchmarkSource = `package spin

import "testing"

func BenchmarkOnce(b *testing.B) {
	b.ReportMetric(Rounds, "cpu-ns/op")
	for range b.N {
	}
}
`
	newBenchmarkSource = `package spin

import "testing"

func BenchmarkNew(b *testing.B) {
	for range b.N {
	}
}
`
	few = 20_000 // rounds of spinning, some 20 us: a call is five pieces
)

// repository makes one in a temporary folder, with a revision tagged before and a working tree that spin
// so often, and changes to it.
func repository(t *testing.T, before, after int) {
	t.Helper()
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	t.Chdir(root)
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		command := exec.Command("git", append([]string{"-c", "user.name=test", "-c", "user.email=test@localhost"}, args...)...)
		if text, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, text)
		}
	}
	git("init", "--quiet")
	write("go.mod", "module sluice\n\ngo 1.25\n")
	write(".gitignore", "bin\n")
	write("cmd/sluice/main.go", gatewaySource)
	write("spin/spin_test.go", benchmarkSource)
	write("spin/spin.go", fmt.Sprintf(spinSource, before))
	git("add", ".")
	git("commit", "--quiet", "-m", "before")
	git("tag", "before")
	write("spin/spin.go", fmt.Sprintf(spinSource, after)) // the working tree, not committed
	benchstat := filepath.Join(module, "bin", "benchstat")
	if _, err := os.Stat(benchstat); err != nil {
		t.Fatalf("%v; try: make bin/benchstat", err)
	}
	if err := errors.Join(os.Mkdir("bin", 0o700), os.Symlink(benchstat, "bin/benchstat")); err != nil {
		t.Fatal(err)
	}
}

// guard compares the working tree with the revision tagged before. What is twice as slow is slower, less may be noise.
func guard(t *testing.T, module, arguments string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	o, err := parse(strings.Fields("-base before -margin 1 -count 7 -rounds 6 -seconds 0.1 -scenarios 1KiB:1x1 "+arguments), &stderr)
	if err != nil {
		t.Fatal(err)
	}
	o.module, o.within = module, []folder{{"spin", "."}}
	err = o.run(t.Context(), &stdout, &stderr)
	t.Logf("%s\n%s", &stderr, &stdout)
	if left, _ := exec.Command("git", "worktree", "list").Output(); bytes.Count(left, []byte("\n")) != 1 {
		t.Errorf("worktrees left:\n%s", left)
	}
	return stdout.String(), err
}

// thisModule is where the real bench is, which measures gateways of other repositories as well.
func thisModule(t *testing.T) string {
	t.Helper()
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return module
}

func TestASlowdownFailsTheRun(t *testing.T) {
	module := thisModule(t)
	repository(t, few, 8*few)
	_, err := guard(t, module, "")
	if exitCode(err) != 1 {
		t.Fatalf("run = %v, want an error with exit code 1", err)
	}
	for _, want := range []string{"slower than before", "Once", "1KiB:1x1: CPU per call "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("run = %v, want %q in it", err, want)
		}
	}
}

func TestTheSameBenchmarksAreNotSlower(t *testing.T) {
	module := thisModule(t)
	repository(t, few, few)
	if err := os.WriteFile("spin/new_test.go", []byte(newBenchmarkSource), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, err := guard(t, module, "-macro=false")
	if err != nil || !strings.Contains(stdout, "nothing is slower than before") {
		t.Errorf("run = %v, want none and that nothing is slower", err)
	}
	if want := "only one revision has it: spin New"; !strings.Contains(stdout, want) {
		t.Errorf("%q is not said", want)
	}
}

func TestTheRevisionsTakeTurnsInRunningFirst(t *testing.T) {
	spin := folder{path: "spin", pattern: "."}
	m := &micro{scratch: t.TempDir(), trees: []tree{{"base", t.TempDir()}, {"tree", t.TempDir()}}, count: 4}
	order := filepath.Join(m.scratch, "order")
	for _, one := range m.trees {
		script := fmt.Sprintf("#!/bin/sh\necho %s >> %s\n", one.name, order)
		err := errors.Join(os.Mkdir(filepath.Join(one.root, "spin"), 0o700), os.WriteFile(m.binary(one, spin), []byte(script), 0o700))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := m.run(t.Context(), first, spin); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(order)
	if want := "base tree tree base base tree tree base"; err != nil || strings.Join(strings.Fields(string(got)), " ") != want {
		t.Errorf("the order is %q, %v, want %s", got, err, want)
	}
}

func TestABaseThatDoesNotKnowTheRoutesIsSaidTo(t *testing.T) {
	module := thisModule(t)
	repository(t, few, few)
	routes := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(routes, []byte("frobnicate: 127.0.0.1:9001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := guard(t, module, "-micro=false -routes "+routes)
	if exitCode(err) != 1 || !strings.Contains(err.Error(), "give -routes that both know") {
		t.Errorf("run = %v, want advice", err)
	}
}

func TestAnInterruptedRunLeavesNoWorktree(t *testing.T) {
	repository(t, few, few)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o, err := parse([]string{"-base", "before"}, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	o.within = []folder{{"spin", "."}}
	started := onWrite(cancel) // it says so when it begins to run benchmarks
	if err := o.run(ctx, new(bytes.Buffer), started); err == nil || ctx.Err() == nil {
		t.Errorf("run = %v, want that it was interrupted", err)
	}
	if left, _ := exec.Command("git", "worktree", "list").Output(); bytes.Count(left, []byte("\n")) != 1 {
		t.Errorf("worktrees left:\n%s", left)
	}
}

// onWrite is a writer that calls a function.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}
