package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluice/cmd/sluice/internal/block"
	adminv1 "sluice/proto/sluice/admin/v1"
)

func newShadowCommand() *cobra.Command {
	var o clientOptions
	var output format
	var watch bool
	cmd := &cobra.Command{
		Use:   "shadow [MODEL]",
		Short: "Show how the answers of shadows differ from those that callers got",
		Long: `Show how the answers of shadows differ from those that callers got.

What shadows have brought is each gateway's own: --admin says which one is asked. The
interval of a share of mismatches is for looking at; "at most" is the bound to decide by,
once as many calls were compared as had been planned. With --watch, which looks again and
again, "at any time" is shown in their place: the interval that holds however often it is
looked at, and is wider for it: several times where most calls differ.`,
		Example: `  sluice shadow fraud
  sluice shadow --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			show := func(ctx context.Context) (*adminv1.ListShadowsResponse, error) {
				return ask(ctx, &o, func(ctx context.Context, c *client) (*adminv1.ListShadowsResponse, error) {
					return c.ListShadows(ctx, &adminv1.ListShadowsRequest{Model: modelOf(args)})
				})
			}
			resp, err := show(cmd.Context())
			if err != nil {
				return err
			}
			if watch {
				return watchShadows(cmd, output, resp, show)
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeShadows(out, resp.GetShadows(), false) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and show it anew every second")
	return cmd
}

// watchEvery is how often shadows are looked at again.
const watchEvery = time.Second

// watchShadows shows shadows again and again until ctx ends: in place in a terminal,
// one after the other elsewhere.
func watchShadows(
	cmd *cobra.Command, output format, resp *adminv1.ListShadowsResponse, ask func(context.Context) (*adminv1.ListShadowsResponse, error),
) error {
	out := cmd.OutOrStdout()
	var live *block.Block
	if f, ok := out.(*os.File); ok && output == asTable && term.IsTerminal(f.Fd()) {
		live = block.New(f)
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if live != nil {
			var text strings.Builder
			writeShadows(&text, resp.GetShadows(), true)
			live.Draw(strings.Split(strings.TrimRight(text.String(), "\n"), "\n"))
		} else if err := output.write(out, resp, func(out io.Writer) { writeShadows(out, resp.GetShadows(), true) }); err != nil {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
		next, err := ask(cmd.Context())
		switch {
		case cmd.Context().Err() != nil:
			return nil
		case err != nil:
			return err
		}
		resp = next
	}
}

// writeShadows shows for each shadow what became of the copies, then its outputs, the
// latencies and the worst calls. Watched, it shows what holds at every look.
func writeShadows(out io.Writer, shadows []*adminv1.ShadowReport, watched bool) {
	if len(shadows) == 0 {
		fmt.Fprintln(out, "no shadows")
		return
	}
	bounds := []string{"95 %", ">AT MOST"}
	if watched {
		bounds = []string{"AT ANY TIME"}
	}
	head := append([]string{"MODEL", "SHADOW", ">OF CALLS", ">COMPARED", ">DIFFER", ">SHARE"}, bounds...) // what matters first: terminals are narrow
	t := newTable(append(head, ">COPIES", ">ANSWERED", ">DROPPED", ">FAILED")...)
	for _, s := range shadows {
		rate := s.GetRate()
		bounds := []string{percent(rate.GetLow()) + " - " + percent(rate.GetHigh()), percent(rate.GetBound())}
		if watched {
			bounds = []string{percent(rate.GetAlwaysLow()) + " - " + percent(rate.GetAlwaysHigh())}
		}
		share := "kept" // a replay
		if s.GetPercent() > 0 {
			share = fmt.Sprintf("%g%%", s.GetPercent())
		}
		row := append([]string{
			s.GetModel(), s.GetVersion(), share, fmt.Sprint(s.GetCompared()), fmt.Sprint(s.GetMismatched()), percent(rate.GetSeen()),
		}, bounds...)
		t.add(append(row, fmt.Sprint(s.GetOffered()), fmt.Sprint(s.GetAnswered()), fmt.Sprint(total(s.GetDropped())), fmt.Sprint(total(s.GetFailed())))...)
	}
	t.write(out)
	for _, s := range shadows {
		fmt.Fprintf(out, "\n%s\n", strong.Render(s.GetModel()+" "+s.GetVersion())+faint.Render("  since "+moment(s.GetSince())))
		if c := s.GetComparedSince(); c != nil && !c.AsTime().Equal(s.GetSince().AsTime()) {
			fmt.Fprintf(out, "compared since %s, when its rules or its servers changed\n", moment(c))
		}
		writeShadow(out, s, watched)
	}
}

func writeShadow(out io.Writer, s *adminv1.ShadowReport, watched bool) {
	if b := s.GetBreaker(); b != "closed" && b != "" {
		fmt.Fprintf(out, "its breaker is %s\n", alarm.Render(s.GetBreaker()))
	}
	for _, c := range []struct {
		what   string
		counts map[string]uint64
	}{{"dropped", s.GetDropped()}, {"failed", s.GetFailed()}, {"differ in", s.GetDifferences()}} {
		if len(c.counts) > 0 {
			fmt.Fprintf(out, "%s: %s\n", c.what, counted(c.counts))
		}
	}
	if len(s.GetOutputs()) > 0 {
		bound, of := ">AT MOST", (*adminv1.Rate).GetBound
		if watched {
			bound, of = ">AT ANY TIME AT MOST", (*adminv1.Rate).GetAlwaysHigh
		}
		t := newTable("OUTPUT", ">COMPARED", ">DIFFER", ">SHARE", bound, ">MAX ABS", ">MAX REL", ">X ALLOWED", ">ULP", ">COSINE", ">FLIPS", ">CLOSE", ">TOP K")
		for _, o := range s.GetOutputs() {
			t.add(visible(o.GetName(), 40), fmt.Sprint(o.GetCompared()), fmt.Sprint(o.GetMismatched()), percent(o.GetRate().GetSeen()),
				percent(of(o.GetRate())), digits(o.GetMaxAbs()), digits(o.GetMaxRel()), excess(o), fmt.Sprint(o.GetMaxUlp()),
				orDash(o.MeanCosine), fmt.Sprintf("%d/%d", o.GetFlips(), o.GetRows()), fmt.Sprint(o.GetCloseFlips()), orDash(o.MeanTopK))
		}
		t.write(out)
	}
	if s.GetSlowerBy().GetCount() > 0 {
		t := newTable("LATENCY", ">P5", ">P50", ">P95", ">P99", ">MAX")
		for _, l := range []struct {
			name string
			of   *adminv1.Latency
		}{{"callers'", s.GetCallerLatency()}, {"shadow's", s.GetShadowLatency()}, {"slower by", s.GetSlowerBy()}} {
			t.add(l.name, span(l.of.GetP5()), span(l.of.GetP50()), span(l.of.GetP95()), span(l.of.GetP99()), span(l.of.GetMax()))
		}
		t.write(out)
	}
	if len(s.GetWorst()) > 0 {
		t := newTable("WORST CALLS", "ANSWERED BY", "DIFFER IN", "OUTPUT", ">ELEMENTS", ">MAX ABS", "WHY")
		for _, e := range s.GetWorst() {
			elements, off := "-", "-" // where no elements were compared
			if e.GetElements() > 0 {
				elements, off = fmt.Sprintf("%d/%d", e.GetDiffering(), e.GetElements()), digits(e.GetMaxAbs())
			}
			t.add(visible(e.GetRequestId(), 40), e.GetAnsweredBy(), e.GetDifference(), visible(e.GetOutput(), 40), elements, off, visible(e.GetWhy(), 80))
		}
		t.write(out)
	}
}

func total(counts map[string]uint64) (n uint64) {
	for _, v := range counts {
		n += v
	}
	return n
}

// counted lists counts with their names.
func counted(counts map[string]uint64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}

func percent(share float64) string { return fmt.Sprintf("%.2f%%", 100*share) }

func digits(v float64) string { return fmt.Sprintf("%.3g", v) }

// excess is an output's largest error in proportion to what is allowed, if anything is.
func excess(o *adminv1.OutputReport) string {
	if math.IsInf(o.GetExcess(), 1) && !math.IsInf(o.GetMaxAbs(), 1) {
		return "-"
	}
	return digits(o.GetExcess())
}

func orDash(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *v)
}

// span is a time to two or three digits.
func span(d *durationpb.Duration) string {
	v := d.AsDuration()
	switch {
	case v.Abs() >= time.Second:
		return v.Round(10 * time.Millisecond).String()
	case v.Abs() >= time.Millisecond:
		return v.Round(10 * time.Microsecond).String()
	}
	return v.Round(time.Microsecond).String()
}
