// Command guard compares the working tree with a revision and fails if it has become slower
// beyond noise: micro-benchmarks of the data path by benchstat, and the whole gateway by CPU
// time per call. `make bench-guard BASE=REV` runs it; it needs bin/benchstat.
//
// Benchmarks are judged by the CPU time they report, or else by the time on the clock, and by allocations; the whole gateway by CPU time with
// every stream busy, and if asked for by p50 at half load, and nothing else: calls per second, memory, and kinds of load that are not in
// -scenarios may get worse unseen. What waits without using the CPU passes without -latency-margin.
//
// It exits 0 if nothing is slower, 1 if something is or the comparison failed, 2 on wrong usage, and 3 if
// nothing is known to be slower, but the measurements do not suffice to say so of everything.
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
	"regexp"
	"strings"
	"syscall"
	"time"
)

// errUndecided says that the noise was too much for a margin this small.
var errUndecided = errors.New("not decided")

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
	}
	os.Exit(exitCode(err))
}

// exitCode is what tells programs how the comparison went.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUndecided):
		return 3
	}
	return 1
}

// usage is what -h prints before the flags.
const usage = `Compares the working tree with a revision and fails if it has become slower.

  make bench-guard BASE=main
  make bench-guard BASE=main ARGS="-macro=false"

What seems slower is measured again, and is slower only if those measurements alone say so as well. Looked at are
the micro-benchmarks' time and allocations, and the gateway's CPU time per call with every stream busy; with -latency-margin
also p50 at half load; not calls per second, memory, or kinds of load that are not in -scenarios. What waits without using
the CPU passes without -latency-margin. Exit codes: 0 not slower, 1 slower or failed, 2 wrong usage, 3 not decided.

`

// patience is how many times what is not decided is measured.
const patience = 3

// options are the command line.
type options struct {
	base      string
	margin    float64
	latency   float64 // margin of p50; 0: not looked at
	count     int
	rounds    int
	seconds   float64
	scenarios string
	routes    string
	micro     bool
	macro     bool

	module string   // where bench/compare is built and run; empty: the root of the working tree
	within []folder // which micro-benchmarks count
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{within: dataPath}
	flags := flag.NewFlagSet("guard", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.base, "base", "HEAD", "`revision` to compare with")
	flags.Float64Var(&o.margin, "margin", 0.05, "`share` by which something may be slower, 0 to 1")
	flags.Float64Var(&o.latency, "latency-margin", 0, "`share` by which the gateway's p50 at half load may grow, 0 to 1; 0 is not to measure it, 0.25 is what may be decided at rest")
	flags.IntVar(&o.count, "count", 12, "`runs` of every micro-benchmark; more of what is not decided or seems slower then")
	flags.IntVar(&o.rounds, "rounds", 9, "`rounds` of the whole gateway; more of what is not decided or seems slower then")
	flags.Float64Var(&o.seconds, "seconds", 1, "`seconds` of one measurement of the whole gateway")
	flags.StringVar(&o.scenarios, "scenarios", "4KiB:4x8,4KiB:100x4,64KiB:4x8,1MiB:4x4,4KiB:4x8:tls,1KiB:4x8:stream", "a `list` as bench/compare takes it")
	flags.StringVar(&o.routes, "routes", "", "`file` of routes for both gateways, as bench/compare takes it in -sluice-routes (default: all policies, as the working tree writes them)")
	bench := flags.String("bench", "", "`pattern` of micro-benchmarks, as go test takes it (default: those of the data path)")
	flags.BoolVar(&o.micro, "micro", true, "compare micro-benchmarks")
	flags.BoolVar(&o.macro, "macro", true, "compare the whole gateway")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *bench != "" {
		o.within = nil
		for _, f := range dataPath {
			o.within = append(o.within, folder{f.path, *bench})
		}
	}
	_, err := regexp.Compile(*bench)
	switch {
	case err != nil:
		err = fmt.Errorf("-bench: got %q, want a regular expression: %w", *bench, err)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !(o.margin >= 0 && o.margin <= 1):
		err = fmt.Errorf("-margin: got %g, want 0 to 1", o.margin)
	case !(o.latency >= 0 && o.latency <= 1):
		err = fmt.Errorf("-latency-margin: got %g, want 0 to 1", o.latency)
	case o.count < 7 || o.count > 33:
		err = fmt.Errorf("-count: got %d, want 7 to 33: with fewer, nothing can be told from chance", o.count)
	case o.rounds < 6 || o.rounds > 33:
		err = fmt.Errorf("-rounds: got %d, want 6 to 33: with fewer, the median has no bounds", o.rounds)
	case !(o.seconds >= 0.1 && o.seconds <= 60):
		err = fmt.Errorf("-seconds: got %g, want 0.1 to 60", o.seconds)
	}
	if err == nil && o.routes != "" {
		o.routes, err = filepath.Abs(o.routes)
	}
	if err != nil {
		fmt.Fprintf(stderr, "guard: %v\ntry: go run ./bench/guard -h\n", err)
	}
	return o, err
}

// run compares. Whatever it makes is gone when it returns.
func (o *options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	start := time.Now()
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

	var all findings
	if o.micro {
		found, err := o.compareMicro(ctx, root, base, folder, stdout, stderr)
		if err != nil {
			return err
		}
		all.add(found)
	}
	if o.macro {
		found, err := o.compareMacro(ctx, root, base, folder, stdout, stderr)
		if err != nil {
			return err
		}
		all.add(found)
	}
	fmt.Fprintf(stderr, "that took %v\n", time.Since(start).Round(time.Second))
	return all.conclude(o.base, stdout)
}

// findings are lines about what is slower, and about what may be or may not.
type findings struct{ slower, undecided []string }

func (f *findings) add(more findings) {
	f.slower = append(f.slower, more.slower...)
	f.undecided = append(f.undecided, more.undecided...)
}

// conclude returns an error unless nothing is slower.
func (f *findings) conclude(base string, stdout io.Writer) error {
	list := func(lines []string) string { return strings.Join(lines, "\n  ") }
	if len(f.undecided) > 0 {
		fmt.Fprintf(stdout, "may be slower than %s, or not: more -rounds or -count, a machine with nothing else to do, or a wider -margin would tell\n  %s\n", base, list(f.undecided))
	}
	switch {
	case len(f.slower) > 0:
		return fmt.Errorf("slower than %s:\n  %s", base, list(f.slower))
	case len(f.undecided) > 0:
		return fmt.Errorf("%w whether it is slower than %s: %d of the comparisons", errUndecided, base, len(f.undecided))
	}
	fmt.Fprintf(stdout, "nothing is slower than %s\n", base)
	return nil
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
