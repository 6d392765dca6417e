package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/bench/process"
)

// compareMacro builds both gateways, has the bench measure them in turn and returns the
// scenarios in which the working tree's takes more CPU time. What is not decided yet gets more
// rounds, twice at most.
func (o *options) compareMacro(ctx context.Context, root, base, scratch string, stdout, stderr io.Writer) (findings, error) {
	builds := []struct{ name, root string }{{"base", base}, {"tree", root}}
	m := macro{
		module: cmp.Or(o.module, root), binary: filepath.Join(scratch, "compare"),
		args: []string{
			"-peers", "base,tree", "-reference", "tree", "-latency=false", "-seconds", fmt.Sprint(o.seconds),
			"-into", filepath.Join(scratch, "samples.jsonl"), "-o", "json",
		},
	}
	for _, b := range builds {
		gateway := filepath.Join(scratch, "sluice-"+b.name)
		if err := process.Build(ctx, b.root, []string{"CGO_ENABLED=0"}, "-trimpath", "-o", gateway, "./cmd/sluice"); err != nil {
			return findings{}, fmt.Errorf("%s: %w", b.name, err)
		}
		m.args = append(m.args, "-sluice", b.name+"="+gateway)
	}
	if o.routes != "" {
		m.args = append(m.args, "-sluice-routes", o.routes)
	}
	if err := process.Build(ctx, m.module, nil, "-o", m.binary, "./bench/compare"); err != nil {
		return findings{}, err
	}
	scenarios := o.scenarios
	for rounds := o.rounds; ; rounds += o.rounds {
		text, err := m.measure(ctx, scenarios, rounds, stderr)
		if err != nil {
			return findings{}, err
		}
		found, lines, err := judgeScenarios(text, o.margin)
		if err != nil {
			return findings{}, err
		}
		if len(found.open) == 0 || rounds == patience*o.rounds {
			fmt.Fprintln(stdout, strings.Join(lines, "\n"))
			return found, nil
		}
		scenarios = strings.Join(found.open, ",")
		fmt.Fprintf(stderr, "after %d rounds not decided: %s\n", rounds, scenarios)
	}
}

// macro is the bench's command.
type macro struct {
	module string // where it is run
	binary string
	args   []string
}

// measure takes samples up to a number of rounds and returns the report on all there are.
func (m macro) measure(ctx context.Context, scenarios string, rounds int, stderr io.Writer) ([]byte, error) {
	command := exec.CommandContext(ctx, m.binary, append(m.args, "-scenarios", scenarios, "-rounds", strconv.Itoa(rounds))...)
	command.Dir = m.module
	var said strings.Builder
	command.Stderr = io.MultiWriter(stderr, &said)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) } // it then ends its own processes
	text, err := command.Output()
	if err != nil && strings.Contains(said.String(), "base ended at once") {
		return nil, fmt.Errorf("bench: %w: if the older gateway does not know the working tree's routes, give -routes that both know, "+
			"such as those that `go run ./bench/compare -peers sluice -show-configs` prints there", err)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return text, nil
}
