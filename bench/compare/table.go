package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"sluice/bench/payload"
	"sluice/bench/stats"
)

// write prints the report in one of the formats of -o.
func (r *report) write(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	return r.writeTable(w)
}

// writeTable prints one block per scenario. Figures are medians over the rounds
// with the range behind them.
func (r *report) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s\n", r.Machine)
	for _, p := range r.Peers {
		fmt.Fprintf(w, "  %s: %s\n", p.Name, p.Version)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "  %s: skipped, %s\n", s.Name, s.Reason)
	}
	if len(r.SluiceEnv) > 0 {
		fmt.Fprintf(w, "  environment of sluice: %s\n", strings.Join(r.SluiceEnv, " "))
	}
	fmt.Fprintf(w, "median (min-max) of %d rounds of about %g s; ratios are %s / peer, round by round\n", r.Rounds, r.Seconds, r.Reference)

	for _, s := range r.Scenarios {
		fmt.Fprintf(w, "\n%s requests, %d connections x %d streams\n", payload.Size(s.Size).Text(), s.Connections, s.Streams)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "  peer\tCPU us/request\trequests/s\tmean latency us\tCPU ratio\trequests/s ratio")
		for _, row := range s.Rows {
			if !valid(row.Samples) {
				fmt.Fprintf(table, "  %s\tINVALID\t\t\t\t\n", row.Peer)
				continue
			}
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\n", row.Peer,
				cell(row.CPUMicros, 1), cell(row.PerSecond, 0), cell(row.MeanLatency, 0),
				cell(row.CPURatio, 2), cell(row.RateRatio, 2))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "\nwarning: %s", warning)
	}
	fmt.Fprintln(w)
	return nil
}

// cell writes a summary with a number of decimals, "-" if there is none.
func cell(s *stats.Summary, decimals int) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f (%.*f-%.*f)", decimals, s.Median, decimals, s.Min, decimals, s.Max)
}
