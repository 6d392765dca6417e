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
	"strconv"
	"syscall"

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
		os.Exit(1)
	}
}

// run does what the options ask for. Whatever it starts has ended when it returns.
func (o *options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	generator, err := h2load.Version(ctx)
	if err != nil {
		return err
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
			printLaunch(stdout, p, versions[i].Version)
		}
		return nil
	}
	r := &report{
		Machine: thisMachine(generator), Peers: versions, Skipped: skipped,
		Rounds: o.rounds, Seconds: o.seconds.Seconds(), Reference: o.reference, SluiceEnv: o.sluiceEnv,
	}
	for _, s := range skipped {
		fmt.Fprintf(stderr, "%s: skipped, %s\n", s.Name, s.Reason)
	}
	f, err := startFleet(ctx, root, folder, peers)
	if err != nil {
		return err
	}
	defer f.stop()
	if o.idle > 0 || o.neverRead > 0 {
		return o.measureMemory(ctx, f, r, stdout, stderr)
	}
	return o.measureSpeed(ctx, f, r, stdout, stderr)
}

// measureSpeed runs the rounds and prints the report, also when figures in it
// are invalid, and then says so by its error.
func (o *options) measureSpeed(ctx context.Context, f *fleet, r *report, stdout, stderr io.Writer) error {
	bodies, err := writeBodies(f.folder, o.scenarios)
	if err != nil {
		return err
	}
	if load, err := strconv.ParseFloat(r.Machine.LoadBefore, 64); err == nil && load > 0.5 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the load average was %.2f before the run: something else is running", load))
	}
	m := &measurer{fleet: f, bodies: bodies, seconds: o.seconds, warmUp: o.warmUp, rates: make(map[rateKey]float64)}
	measured, err := runRounds(ctx, m, o.scenarios, o.rounds, stderr)
	if err != nil {
		return err
	}
	r.Machine.LoadAfter = loadAverage()
	invalid := r.summarize(o.scenarios, measured)
	return errors.Join(r.write(stdout, o.output), invalid)
}

// writeBodies writes a request of each size for h2load to send.
func writeBodies(folder string, scenarios []scenario) (map[int]string, error) {
	out := make(map[int]string)
	for _, s := range scenarios {
		request, err := payload.Request(payload.Model, s.Size)
		if err != nil {
			return nil, err
		}
		out[s.Size] = filepath.Join(folder, fmt.Sprintf("request-%d", s.Size))
		if err := os.WriteFile(out[s.Size], request, 0o600); err != nil {
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
