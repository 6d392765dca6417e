// Command train fits the sample models to the Palmer penguins and writes them
// as JSON files. The same seed gives the same models.
//
//	go run ./sample/train                    # print held-back accuracies, write nothing
//	go run ./sample/train -out sample/models # write v1.json, v2.json, v3.json as well
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"sluice/sample"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "train: %v (try: train -h)\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "train: %v\n", err)
		os.Exit(1)
	}
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("train", flag.ContinueOnError)
	flags.SetOutput(stderr)
	out := flags.String("out", "", "`folder` to write the model files to; without it nothing is written")
	seed := flags.Uint64("seed", sample.SplitSeed, "seed of the split into rows to train on and rows held back")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if flags.NArg() > 0 {
		return usageError{fmt.Errorf("arguments: got %q, want none", flags.Args())}
	}

	models, err := trainAll(*seed)
	if err != nil {
		return err
	}
	if err := report(stdout, models); err != nil {
		return err
	}
	if *out == "" {
		return nil
	}
	for _, model := range models {
		data, err := model.Encode()
		if err != nil {
			return fmt.Errorf("version %s: %w", model.Version, err)
		}
		file := filepath.Join(*out, model.Version+".json")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "wrote %s\n", file)
	}
	return nil
}

// report prints a line per model.
func report(w io.Writer, models []*sample.Model) error {
	p := models[0].Provenance
	fmt.Fprintf(w, "%s (sha256 %.12s...), seed %d: trained on %d rows, %d held back\n", p.Data, p.DataSHA256, p.Seed, p.Trained, p.HeldBack)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERSION\tHELD-BACK ACCURACY\tFEATURES\tMETHOD")
	for _, m := range models {
		fmt.Fprintf(table, "%s\t%.1f %%\t%s\t%s\n", m.Version, 100*m.Provenance.Accuracy, strings.Join(m.Features, ", "), m.Provenance.Method)
	}
	return table.Flush()
}
