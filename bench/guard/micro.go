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

// micro runs the benchmarks of two trees. Their results are in files named after the trees in its folder.
type micro struct {
	scratch string
	trees   []tree
}

type tree struct{ name, root string }

// binary is where the benchmarks of a package are.
func (m micro) binary(t tree, f folder) string {
	return filepath.Join(m.scratch, t.name+"-"+strings.ReplaceAll(f.path, "/", "-"))
}

// compareMicro runs both revisions' benchmarks in turn and returns what benchstat finds slower. What is not decided yet gets more
// runs, twice at most.
func (o *options) compareMicro(ctx context.Context, root, base, scratch string, stdout, stderr io.Writer) (findings, error) {
	m := micro{scratch, []tree{{"base", base}, {"tree", root}}}
	for _, f := range o.within {
		for _, t := range m.trees {
			if err := process.Go(ctx, t.root, nil, "test", "-c", "-o", m.binary(t, f), "./"+f.path); err != nil {
				return findings{}, fmt.Errorf("%s: %w", t.name, err)
			}
		}
		fmt.Fprintf(stderr, "%s: %d runs of both\n", f.path, o.count)
		if err := m.run(ctx, f, o.count); err != nil {
			return findings{}, err
		}
	}
	benchstat := []string{filepath.Join(root, "bin", "benchstat"), "-alpha", alpha}
	for turn := 1; ; turn++ {
		figures, err := output(ctx, scratch, benchstat[0], slices.Concat(benchstat[1:], []string{"-format", "csv", "base=base.txt", "tree=tree.txt"})...)
		if err != nil {
			return findings{}, err
		}
		found, err := judgeBenchmarks(figures, o.margin)
		if err != nil {
			return findings{}, err
		}
		if len(found.open) == 0 || turn == patience {
			table, err := output(ctx, scratch, benchstat[0], slices.Concat(benchstat[1:], []string{"base=base.txt", "tree=tree.txt"})...)
			fmt.Fprintln(stdout, table)
			return found, err
		}
		slices.Sort(found.open)
		open := slices.Compact(found.open)
		fmt.Fprintf(stderr, "after %d runs not decided: %s\n", turn*o.count, strings.Join(open, ", "))
		for _, f := range o.within {
			// Where there are none of them, nothing is run.
			if err := m.run(ctx, folder{f.path, "^(" + strings.Join(open, "|") + ")$"}, o.count); err != nil {
				return findings{}, err
			}
		}
	}
}

// run runs the benchmarks of a package, both trees' in turn.
func (m micro) run(ctx context.Context, f folder, count int) error {
	for range count {
		for _, t := range m.trees {
			text, err := output(ctx, filepath.Join(t.root, f.path), m.binary(t, f),
				"-test.run", "^$", "-test.bench", f.pattern, "-test.benchmem", "-test.benchtime", "50ms")
			if err != nil {
				return fmt.Errorf("%s, %s: %w", t.name, f.path, err)
			}
			if err := appendTo(filepath.Join(m.scratch, t.name+".txt"), text+"\n"); err != nil {
				return err
			}
		}
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
