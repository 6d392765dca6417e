package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sluice/bench/process"
)

// compareMacro builds both gateways, has the bench measure them in turn and returns the
// scenarios in which the working tree's takes more CPU time.
func (o *options) compareMacro(ctx context.Context, root, base, scratch string, stdout, stderr io.Writer) (findings, error) {
	builds := []struct{ name, root string }{{"base", base}, {"tree", root}}
	m := &macro{
		module: cmp.Or(o.module, root), scratch: scratch, scenarios: o.scenarios, step: o.rounds, rounds: make(map[pool]int), margin: o.margin, latency: o.latency,
		args: []string{
			"-peers", "base,tree", "-reference", "tree", "-latency=" + strconv.FormatBool(o.latency > 0), "-seconds", fmt.Sprint(o.seconds),
			"-warm-up", fmt.Sprintf("%gs", max(0.1, 0.3*o.seconds)), "-o", "json",
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
	if err := process.Build(ctx, m.module, nil, "-o", m.binary(), "./bench/compare"); err != nil {
		return findings{}, err
	}
	measure := measurer(func(into pool, run []string) ([]comparison, string, error) { return m.measure(ctx, into, run, stderr) })
	return measure.settle(stdout, stderr)
}

// macro is the bench's command. Its samples are in files of the folder scratch.
type macro struct {
	module    string // where it is run
	scratch   string
	args      []string
	scenarios string
	step      int // how many rounds more there are each time
	rounds    map[pool]int
	margin    float64
	latency   float64 // as options have it
}

func (m *macro) binary() string { return filepath.Join(m.scratch, "compare") }

// measure takes some more rounds of scenarios and returns what all samples in the pool say.
func (m *macro) measure(ctx context.Context, into pool, run []string, stderr io.Writer) ([]comparison, string, error) {
	m.rounds[into] += m.step
	report, err := m.report(ctx, into, cmp.Or(strings.Join(run, ","), m.scenarios), stderr)
	if err != nil {
		return nil, "", err
	}
	all, err := judgeScenarios(report, m.margin, m.latency)
	return all, strings.Join(lines(all), "\n"), err
}

// report takes samples up to the number of rounds and returns the bench's report on all in the pool.
func (m *macro) report(ctx context.Context, into pool, scenarios string, stderr io.Writer) ([]byte, error) {
	samples := filepath.Join(m.scratch, "samples."+string(into)+".jsonl")
	command := exec.CommandContext(ctx, m.binary(), slices.Concat(m.args,
		[]string{"-scenarios", scenarios, "-rounds", strconv.Itoa(m.rounds[into]), "-into", samples})...)
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
