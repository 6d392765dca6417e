// Command guard compares the working tree with a revision and fails if it has become slower
// beyond noise: micro-benchmarks of the data path by benchstat, and the whole gateway by CPU
// time per call. `make bench-guard BASE=REV` runs it; it needs bin/benchstat.
//
// It exits 0 if nothing is slower, 1 if something is or the comparison failed, 2 on wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"sluice/bench/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		os.Exit(2)
	}
	err = o.run(ctx, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	base      string
	margin    float64
	count     int
	rounds    int
	scenarios string
	micro     bool
	macro     bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("guard", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.base, "base", "HEAD", "`revision` to compare with")
	flags.Float64Var(&o.margin, "margin", 0.05, "`share` by which something may be slower, 0 to 1")
	flags.IntVar(&o.count, "count", 12, "`runs` of every micro-benchmark")
	flags.IntVar(&o.rounds, "rounds", 9, "`rounds` of the whole gateway")
	flags.StringVar(&o.scenarios, "scenarios", "4KiB:4x8,4KiB:100x4", "a `list` as bench/compare takes it")
	flags.BoolVar(&o.micro, "micro", true, "compare micro-benchmarks")
	flags.BoolVar(&o.macro, "macro", true, "compare the whole gateway")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !(o.margin >= 0 && o.margin <= 1):
		err = fmt.Errorf("-margin: got %g, want 0 to 1", o.margin)
	case o.count < 7 || o.count > 100:
		err = fmt.Errorf("-count: got %d, want 7 to 100: with fewer, nothing can be told from chance", o.count)
	case o.rounds < 6 || o.rounds > 100:
		err = fmt.Errorf("-rounds: got %d, want 6 to 100: with fewer, the median has no bounds", o.rounds)
	}
	if err != nil {
		fmt.Fprintf(stderr, "guard: %v\ntry: go run ./bench/guard -h\n", err)
	}
	return o, err
}

// run compares. Whatever it makes is gone when it returns.
func (o *options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "sluice-guard-")
	if err != nil {
		return fmt.Errorf("working folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	base := filepath.Join(folder, "base")
	if _, err := output(ctx, root, "git", "worktree", "add", "--quiet", "--detach", base, o.base); err != nil {
		return err
	}
	defer func() {
		// Also after an interruption, when ctx has ended.
		_, removed := output(context.WithoutCancel(ctx), root, "git", "worktree", "remove", "--force", base)
		err = errors.Join(err, removed)
	}()

	var slower []string
	if o.micro {
		found, err := o.compareMicro(ctx, root, base, folder, stdout, stderr)
		if err != nil {
			return err
		}
		slower = append(slower, found...)
	}
	if o.macro {
		found, err := o.compareMacro(ctx, root, base, folder, stdout, stderr)
		if err != nil {
			return err
		}
		slower = append(slower, found...)
	}
	if len(slower) > 0 {
		return fmt.Errorf("slower than %s:\n  %s", o.base, strings.Join(slower, "\n  "))
	}
	fmt.Fprintf(stdout, "nothing is slower than %s\n", o.base)
	return nil
}

// microBenchmarks are the packages of the data path, and which of their benchmarks count.
var microBenchmarks = []struct{ folder, pattern string }{
	{"gateway/relay", "."},
	{"gateway/identify", "Lookup|Identify|ManySmallFields|Rewrite"},
	{"gateway", "Director|Pick"},
	{"breaker", "Plain|TwoStep|Refused"},
	{"routing", "Choose|Lookup"},
}

// alpha is the chance at which a benchmark that has not changed is called changed. There are
// a hundred comparisons in a run: at the usual 0.05, some of them are off by chance every time.
const alpha = "0.001"

// compareMicro runs both revisions' benchmarks in turn and returns what benchstat finds slower.
func (o *options) compareMicro(ctx context.Context, root, base, folder string, stdout, stderr io.Writer) ([]string, error) {
	trees := []struct{ name, root, results string }{
		{"base", base, filepath.Join(folder, "base.txt")},
		{"tree", root, filepath.Join(folder, "tree.txt")},
	}
	for _, m := range microBenchmarks {
		for _, t := range trees {
			binary := filepath.Join(folder, t.name+"-"+strings.ReplaceAll(m.folder, "/", "-"))
			if err := process.Go(ctx, t.root, nil, "test", "-c", "-o", binary, "./"+m.folder); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
		}
		fmt.Fprintf(stderr, "%s: %d runs of both\n", m.folder, o.count)
		for range o.count {
			for _, t := range trees {
				binary := filepath.Join(folder, t.name+"-"+strings.ReplaceAll(m.folder, "/", "-"))
				text, err := output(ctx, filepath.Join(t.root, m.folder), binary,
					"-test.run", "^$", "-test.bench", m.pattern, "-test.benchmem", "-test.benchtime", "50ms")
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", t.name, m.folder, err)
				}
				if err := appendTo(t.results, text+"\n"); err != nil {
					return nil, err
				}
			}
		}
	}
	benchstat := filepath.Join(root, "bin", "benchstat")
	table, err := output(ctx, folder, benchstat, "-alpha", alpha, "base=base.txt", "tree=tree.txt")
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(stdout, table)
	figures, err := output(ctx, folder, benchstat, "-alpha", alpha, "-format", "csv", "base=base.txt", "tree=tree.txt")
	if err != nil {
		return nil, err
	}
	return slowerBenchmarks(figures, o.margin)
}

// compareMacro builds both gateways, has the bench measure them in turn and returns the
// scenarios in which the working tree's takes more CPU time.
func (o *options) compareMacro(ctx context.Context, root, base, folder string, stdout, stderr io.Writer) ([]string, error) {
	before := filepath.Join(folder, "sluice-base")
	if err := process.Build(ctx, base, []string{"CGO_ENABLED=0"}, "-trimpath", "-o", before, "./cmd/sluice"); err != nil {
		return nil, err
	}
	bench := filepath.Join(folder, "compare")
	if err := process.Build(ctx, root, nil, "-o", bench, "./bench/compare"); err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, bench, "-sluice", "base="+before, "-peers", "sluice,base", "-latency=false",
		"-scenarios", o.scenarios, "-rounds", strconv.Itoa(o.rounds), "-o", "json")
	command.Dir, command.Stderr = root, stderr
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) } // it then ends its own processes
	text, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return slowerScenarios(text, o.margin, stdout)
}

// output runs a command in a folder and returns what it prints, without the last newline.
func output(ctx context.Context, folder, program string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = folder
	var problems strings.Builder
	command.Stderr = &problems
	text, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", filepath.Base(program), err, problems.String(), text)
	}
	return strings.TrimSpace(string(text)), nil
}

// appendTo adds text to a file.
func appendTo(name, text string) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
