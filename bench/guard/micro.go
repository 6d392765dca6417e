package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// compareMicro runs both revisions' benchmarks in turn and returns what benchstat finds slower.
func (o *options) compareMicro(ctx context.Context, root, base, scratch string, stdout, stderr io.Writer) (findings, error) {
	trees := []struct{ name, root, results string }{
		{"base", base, filepath.Join(scratch, "base.txt")},
		{"tree", root, filepath.Join(scratch, "tree.txt")},
	}
	for _, f := range o.within {
		for _, t := range trees {
			binary := filepath.Join(scratch, t.name+"-"+strings.ReplaceAll(f.path, "/", "-"))
			if err := process.Go(ctx, t.root, nil, "test", "-c", "-o", binary, "./"+f.path); err != nil {
				return findings{}, fmt.Errorf("%s: %w", t.name, err)
			}
		}
		fmt.Fprintf(stderr, "%s: %d runs of both\n", f.path, o.count)
		for range o.count {
			for _, t := range trees {
				binary := filepath.Join(scratch, t.name+"-"+strings.ReplaceAll(f.path, "/", "-"))
				text, err := output(ctx, filepath.Join(t.root, f.path), binary,
					"-test.run", "^$", "-test.bench", f.pattern, "-test.benchmem", "-test.benchtime", "50ms")
				if err != nil {
					return findings{}, fmt.Errorf("%s, %s: %w", t.name, f.path, err)
				}
				if err := appendTo(t.results, text+"\n"); err != nil {
					return findings{}, err
				}
			}
		}
	}
	benchstat := filepath.Join(root, "bin", "benchstat")
	table, err := output(ctx, scratch, benchstat, "-alpha", alpha, "base=base.txt", "tree=tree.txt")
	if err != nil {
		return findings{}, err
	}
	fmt.Fprintln(stdout, table)
	figures, err := output(ctx, scratch, benchstat, "-alpha", alpha, "-format", "csv", "base=base.txt", "tree=tree.txt")
	if err != nil {
		return findings{}, err
	}
	return judgeBenchmarks(figures, o.margin)
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
