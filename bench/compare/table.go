package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"sluice/bench/stats"
)

// write prints the report in one of the formats of -o.
func (r *report) write(w io.Writer, format string) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	case "markdown":
		return r.writeMarkdown(w)
	case "svg":
		return r.writeSVG(w)
	}
	return r.writeTable(w)
}

// writeTable prints one block per scenario. Figures are medians over the rounds
// with their bounds behind them.
func (r *report) writeTable(w io.Writer) error {
	r.writeConditions(w, "  ")
	fmt.Fprintf(w, "medians (and their bounds) over the rounds; ratios are %s / peer, round by round\n%s\n-: not measured; p99 and p99.9 also where %s\n",
		r.Reference, aboutBounds, aboutQuantiles)
	for _, s := range r.Scenarios {
		fmt.Fprintf(w, "\n%s\n", s.title())
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "  all streams busy\tCPU us/call\tcalls/s\tCPU ratio\tcalls/s ratio\tgenerator us\tnoisy")
		for _, row := range s.Rows {
			if row.Invalid != "" {
				fmt.Fprintf(table, "  %s\tINVALID: %s\n", row.Peer, row.Invalid)
				continue
			}
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%.1f\t%s\n", row.Peer,
				cell(row.CPU, 1), cell(row.PerSecond, 0), cell(row.CPURatio, 2), cell(row.RateRatio, 2), row.Beside.Generator, row.Beside.noise())
		}
		if s.Rate > 0 {
			fmt.Fprintf(table, "  at %.0f calls/s\tCPU us/call\tp50 us\tp99 us\tp99.9 us\tCPU ratio\tp50 ratio\tcalls\twaited\tlate us\tgenerator us\tnoisy\n", s.Rate)
			for _, row := range s.Rows {
				if row.Invalid == "" {
					b := row.HalfBeside
					fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%.0f\t%.1f\t%s\n", row.Peer, cell(row.HalfCPU, 1), cell(row.P50, 0),
						cell(row.P99, 0), cell(row.P999, 0), cell(row.HalfCPURatio, 2), cell(row.P50Ratio, 2), b.Calls, b.waits(), b.Lag, b.Generator, b.noise())
				}
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if len(r.Growth) > 0 {
		fmt.Fprintln(w, "\ngrowth of CPU per call with the number of connections")
		for _, g := range r.Growth {
			fmt.Fprintf(w, "  %v to %v  %-12s %s\n", g.Few, g.Many, g.Peer, cell(&g.Ratio, 2))
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "\nwarning: %s\n", warning)
	}
	return nil
}

// writeConditions says what was measured where.
func (r *report) writeConditions(w io.Writer, indent string) {
	for i, s := range r.Sessions {
		if i == 0 || s.Machine.String() != r.Sessions[i-1].Machine.String() {
			fmt.Fprintln(w, s.Machine)
		}
	}
	for _, p := range r.Peers {
		fmt.Fprintf(w, "%s%s: %s\n", indent, p.Name, p.Version)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "%s%s: skipped, %s\n", indent, s.Name, s.Reason)
	}
	if len(r.Sessions) > 0 {
		drawn := "scenarios and peers"
		if slices.ContainsFunc(r.Sessions, func(s session) bool { return s.fixed }) {
			drawn = "peers"
		}
		fmt.Fprintf(w, "%s%s; order of the %s drawn by seed", indent, workersText(r.Sessions[0].Workers), drawn)
		for _, s := range r.Sessions {
			fmt.Fprintf(w, " %d", s.Seed)
		}
		fmt.Fprintln(w)
	}
	if n := len(r.Sessions); n > 0 && len(r.Sessions[n-1].SluiceEnv) > 0 {
		fmt.Fprintf(w, "%senvironment of sluice: %s\n", indent, strings.Join(r.Sessions[n-1].SluiceEnv, " "))
	}
}

// What has to be known of figures stands in front of them, in every form of them that people read.
const (
	aboutBounds    = "bounds enclose the true median with at least 95 % probability; of fewer than six rounds they are the range"
	aboutQuantiles = "fewer than ten calls of a measurement lie beyond them"
)

// noise says how many samples were noisy.
func (b beside) noise() string { return fmt.Sprintf("%d of %d", b.Noisy, b.Samples) }

// waits says which part of the calls waited for a stream.
func (b beside) waits() string { return fmt.Sprintf("%.0f %%", 100*b.Waited) }

// cell writes a summary with a number of decimals, "-" if there is none.
func cell(s *stats.Summary, decimals int) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f (%.*f-%.*f)", decimals, s.Median, decimals, s.Low, decimals, s.High)
}
