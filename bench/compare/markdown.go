package main

import (
	"fmt"
	"io"
	"strings"

	"sluice/bench/payload"
	"sluice/bench/stats"
)

// short names a scenario in a table's first column.
func (s scenario) short() string {
	text := fmt.Sprintf("%s, %d x %d", payload.Size(s.Size).Text(), s.Connections, s.Streams)
	if s.TLS {
		text += ", TLS"
	}
	if s.Stream {
		text += ", streamed"
	}
	if s.Varied {
		text += ", varied"
	}
	return text
}

// writeMarkdown prints a table for each figure, scenarios down and peers across.
func (r *report) writeMarkdown(w io.Writer) error {
	r.writeConditions(w, "- ")
	fmt.Fprintf(w, "\nMedians over the rounds; in brackets the median of %s / peer, round by round, with its bounds.\nThe %s.\nA cell is empty where nothing was measured; p99 and p99.9 also where %s.\n", r.Reference, aboutBounds, aboutQuantiles)
	latency := func(of func(row) *stats.Summary, ratio func(row) *stats.Summary) func(row) string {
		return func(x row) string { return figure(of(x), ratio(x), 0) }
	}
	none := func(row) *stats.Summary { return nil }
	for _, t := range []struct {
		title string
		of    func(row) string
	}{
		{"CPU us per call, all streams busy", func(x row) string { return figure(x.CPU, x.CPURatio, 1) }},
		{"Calls per second, all streams busy", func(x row) string { return figure(x.PerSecond, x.RateRatio, 0) }},
		{"CPU us per call at half of the slowest proxy's rate", func(x row) string { return figure(x.HalfCPU, x.HalfCPURatio, 1) }},
		{"p50 us at that rate", latency(func(x row) *stats.Summary { return x.P50 }, func(x row) *stats.Summary { return x.P50Ratio })},
		{"p99 us at that rate", latency(func(x row) *stats.Summary { return x.P99 }, func(x row) *stats.Summary { return x.P99Ratio })},
		{"p99.9 us at that rate", latency(func(x row) *stats.Summary { return x.P999 }, none)},
		{"Calls of a measurement at that rate, which its quantiles are of", func(x row) string {
			if x.HalfBeside.Samples == 0 {
				return ""
			}
			return fmt.Sprint(x.HalfBeside.Calls)
		}},
		{"Calls at that rate that waited for a free stream, and by how many us at the median the generator was late with others", func(x row) string {
			if x.HalfBeside.Samples == 0 {
				return ""
			}
			return fmt.Sprintf("%s, %.0f", x.HalfBeside.waits(), x.HalfBeside.Lag)
		}},
		{"CPU us per call of the generator, all streams busy and at that rate", func(x row) string {
			return strings.Trim(x.Beside.generator()+", "+x.HalfBeside.generator(), ", ")
		}},
		{"Measurements that other processes disturbed", func(x row) string {
			return beside{Samples: x.Beside.Samples + x.HalfBeside.Samples, Noisy: x.Beside.Noisy + x.HalfBeside.Noisy}.noise()
		}},
	} {
		r.markdownTable(w, t.title, t.of)
	}
	if len(r.Growth) > 0 {
		fmt.Fprint(w, "\n### Growth of CPU per call with the number of connections\n\n| | peer | |\n| --- | --- | --- |\n")
		for _, g := range r.Growth {
			fmt.Fprintf(w, "| %s to %s | %s | %s |\n", g.Few.short(), g.Many.short(), g.Peer, cell(&g.Ratio, 2))
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "\nWarning: %s.\n", warning)
	}
	return nil
}

// markdownTable prints one figure, unless nobody has it.
func (r *report) markdownTable(w io.Writer, title string, of func(row) string) {
	var names []string
	for _, p := range r.Peers {
		names = append(names, p.Name)
	}
	var body strings.Builder
	some := false
	for _, s := range r.Scenarios {
		cells := make([]string, len(names))
		for _, row := range s.Rows {
			for i, name := range names {
				switch {
				case name != row.Peer:
				case row.Invalid != "":
					cells[i] = "invalid"
				default:
					cells[i] = of(row)
					some = some || cells[i] != ""
				}
			}
		}
		fmt.Fprintf(&body, "| %s | %s |\n", s.short(), strings.Join(cells, " | "))
	}
	if some {
		fmt.Fprintf(w, "\n### %s\n\n| | %s |\n|%s\n%s", title, strings.Join(names, " | "), strings.Repeat(" --- |", len(names)+1), &body)
	}
}

// generator is what calls cost the load generator.
func (b beside) generator() string {
	if b.Samples == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", b.Generator)
}

// figure is a median with the ratio behind it; empty if there is none.
func figure(s, ratio *stats.Summary, decimals int) string {
	if s == nil {
		return ""
	}
	text := fmt.Sprintf("%.*f", decimals, s.Median)
	if ratio != nil {
		text += fmt.Sprintf(" (%.2f, %.2f-%.2f)", ratio.Median, ratio.Low, ratio.High)
	}
	return text
}
