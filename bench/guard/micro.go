package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/bench/process"
)

// folder is a package, and which of its benchmarks count.
type folder struct{ path, pattern string }

// dataPath is what every call goes through.
var dataPath = []folder{
	{"gateway/relay", "."},
	{"gateway/identify", "Lookup|Identify|ManySmallFields|Rewrite"},
	{"gateway", "Director|Pick"},
	{"breaker", "Plain|TwoStep|Refused"},
	{"routing", "Choose|Lookup"},
}

// alpha is the chance at which a benchmark that has not changed is called changed. There are
// a hundred comparisons in a run: at the usual 0.05, some of them are off by chance every time.
const alpha = "0.001"

// micro runs the benchmarks of two trees. Their results are in files of its folder.
type micro struct {
	scratch   string
	benchstat string
	trees     []tree
	within    []folder
	count     int
	margin    float64
	alone     []string // benchmarks that one tree has not got
}

type tree struct{ name, root string }

// binary is where the benchmarks of a package are.
func (m *micro) binary(t tree, f folder) string {
	return filepath.Join(m.scratch, t.name+"-"+strings.ReplaceAll(f.path, "/", "-"))
}

// results is the file of a tree's results.
func (m *micro) results(t tree, p pool) string { return t.name + "." + string(p) + ".txt" }

// compareMicro builds both revisions' benchmarks and returns which are slower.
func (o *options) compareMicro(ctx context.Context, root, base, scratch string, stdout, stderr io.Writer) (findings, error) {
	m := &micro{
		scratch: scratch, benchstat: filepath.Join(root, "bin", "benchstat"),
		trees: []tree{{"base", base}, {"tree", root}}, within: o.within, count: o.count, margin: o.margin,
	}
	for _, f := range m.within {
		for _, t := range m.trees {
			if err := process.Go(ctx, t.root, nil, "test", "-c", "-o", m.binary(t, f), "./"+f.path); err != nil {
				return findings{}, fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	measure := measurer(func(into pool, run []string) ([]comparison, string, error) { return m.measure(ctx, into, run, stderr) })
	found, err := measure.settle(stdout, stderr)
	if len(m.alone) > 0 {
		fmt.Fprintf(stdout, "not compared, only one revision has it: %s\n", strings.Join(m.alone, ", "))
	}
	return found, err
}

// measure runs benchmarks, of their top-level names, and returns what benchstat says of all results in the pool.
func (m *micro) measure(ctx context.Context, into pool, run []string, stderr io.Writer) ([]comparison, string, error) {
	for _, f := range m.within {
		if len(run) > 0 {
			f.pattern = "^(" + strings.Join(run, "|") + ")$" // where there are none of them, nothing is run
		}
		fmt.Fprintf(stderr, "%s: %d runs of both\n", f.path, m.count)
		if err := m.run(ctx, into, f); err != nil {
			return nil, "", err
		}
	}
	args := []string{"-alpha", alpha}
	for _, t := range m.trees {
		args = append(args, t.name+"="+m.results(t, into))
	}
	figures, err := output(ctx, m.scratch, m.benchstat, append([]string{"-format", "csv"}, args...)...)
	if err != nil {
		return nil, "", err
	}
	all, alone, err := judgeBenchmarks(figures, m.margin)
	if into == first {
		m.alone = alone
	}
	if err != nil {
		return nil, "", err
	}
	table, err := output(ctx, m.scratch, m.benchstat, args...)
	return all, table, err
}

// run runs the benchmarks of a package, both trees' in turn. Which one comes first alternates: what is periodic, or what one
// leaves behind, is not always the same one's burden.
func (m *micro) run(ctx context.Context, into pool, f folder) error {
	order := slices.Clone(m.trees)
	for range m.count {
		for _, t := range order {
			text, err := output(ctx, filepath.Join(t.root, f.path), m.binary(t, f),
				"-test.run", "^$", "-test.bench", f.pattern, "-test.benchmem", "-test.benchtime", "50ms")
			if err != nil {
				return fmt.Errorf("%s, %s: %w", t.name, f.path, err)
			}
			if err := appendTo(filepath.Join(m.scratch, m.results(t, into)), text+"\n"); err != nil {
				return err
			}
		}
		slices.Reverse(order)
	}
	return nil
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
