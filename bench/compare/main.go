// Command compare measures Sluice and other proxies side by side: the same
// backend, the same load, one machine, interleaved rounds. bench/README.md
// explains the method.
//
// It exits 0 if every figure is valid, 1 if something failed, 2 on wrong usage.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"sluice/bench/h2load"
	"sluice/bench/payload"
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
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(exitCode(err))
	}
}

// exitCode is what tells programs what went wrong.
func exitCode(err error) int {
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// run does what the options ask for. Whatever it starts has ended when it returns.
func (o *options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if o.from != "" {
		s := &samples{have: make(map[key]bool)}
		if err := s.read(o.from); err != nil {
			return err
		}
		if len(o.scenarios) > 0 {
			if err := s.only(o.scenarios); err != nil {
				return err
			}
		}
		if o.referred {
			if err := s.hasPeer(o.reference); err != nil {
				return err
			}
		}
		return o.report(s, stdout)
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return fmt.Errorf("working folder: %w", err)
	}
	if o.keep {
		fmt.Fprintln(stderr, "configurations and logs:", folder)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	}
	// Workers that gave up root must reach their files in it.
	if err := os.Chmod(folder, 0o755); err != nil {
		return fmt.Errorf("working folder: %w", err)
	}

	peers, versions, skipped, err := o.choose(ctx, o.known(root, folder))
	if err != nil {
		return err
	}
	if o.showConfigs {
		for i, p := range peers {
			printLaunch(stdout, p, versions[i].Version, o.workers)
		}
		return nil
	}
	generator := "its own generator"
	if o.h2load {
		version, err := h2load.Version(ctx)
		if err != nil {
			return err
		}
		generator = "h2load " + version
	}
	now := session{
		Machine: thisMachine(generator), Peers: versions, Skipped: skipped,
		Workers: o.workers, Seconds: o.seconds.Seconds(), Seed: o.seed, SluiceEnv: o.sluiceEnv, Routes: o.routes,
		Scenarios: o.scenarios,
	}
	for _, s := range skipped {
		fmt.Fprintf(stderr, "%s: skipped, %s\n", s.Name, s.Reason)
	}
	secure := securities(o.scenarios)
	if o.idle > 0 || o.neverRead > 0 {
		secure = []bool{o.secure}
	}
	y, err := prepare(ctx, root, folder, peers, secure, o.workers)
	if err != nil {
		return err
	}
	if o.idle > 0 || o.neverRead > 0 {
		return o.measureMemory(ctx, y, now, stdout, stderr)
	}
	return o.measureSpeed(ctx, y, now, stdout, stderr)
}

// measureSpeed takes the samples and reports on them.
func (o *options) measureSpeed(ctx context.Context, y *yard, now session, stdout, stderr io.Writer) (err error) {
	messages, err := writeBodies(y, o.scenarios)
	if err != nil {
		return err
	}
	s, err := openSamples(o.into)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.begin(now); err != nil {
		return err
	}
	// The generator gets as many cores as the proxies get workers.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(1, o.workers)))
	m := &measurer{yard: y, messages: messages, seconds: o.seconds, warmUp: o.warmUp, h2load: o.h2load}
	if err := o.takeSamples(ctx, m, s, time.Now().Add(o.budget), stderr); err != nil {
		return err
	}
	if err := s.end(loadAverage()); err != nil {
		return err
	}
	return o.report(s, stdout)
}

// report writes the report, also when figures in it are invalid, and then says so by its
// error.
func (o *options) report(s *samples, stdout io.Writer) error {
	r, invalid := newReport(s, o.reference)
	return errors.Join(r.write(stdout, o.output), invalid)
}

// writeBodies makes a request of each size, also as a file for h2load to send.
func writeBodies(y *yard, scenarios []scenario) (map[int][]byte, error) {
	out := make(map[int][]byte)
	for _, s := range scenarios {
		request, err := payload.Request(payload.Model, s.Size)
		if err != nil {
			return nil, err
		}
		out[s.Size] = request
		if err := os.WriteFile(y.bodyFile(s.Size), request, 0o600); err != nil {
			return nil, fmt.Errorf("request body: %w", err)
		}
	}
	return out, nil
}

// moduleRoot returns the folder of go.mod, from which the binaries are built.
func moduleRoot(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	path := string(bytes.TrimSpace(output))
	if path == "" || path == os.DevNull {
		return "", fmt.Errorf("go env GOMOD: got %q, want a go.mod: run this inside the module", path)
	}
	return filepath.Dir(path), nil
}
