package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newDriftCommand() *cobra.Command {
	var o clientOptions
	var output format
	cmd := &cobra.Command{
		Use:   "drift MODEL",
		Short: "Show how the data of a model's versions has moved",
		Long: `Show how what is asked of the versions of a model, and what they answer, stands
against their references: for each feature, the last whole window. The route has to
have a drift setting; docs/drift.md says what the numbers mean.

  PSI    population stability index; from the route's effect on (0.2) it matters
  P      probability that chance gives as much, corrected for the number of features
  SHIFT  how far values have moved, in standard deviations of the reference; of whole rows
         of a wide tensor (.embedding), their MMD, which has to reach the effect
  STATE  drift: suspect in two of the last three windows

The small histograms show the shares of the reference's tenths, or of its categories,
in the reference and now.`,
		Example: `  sluice drift penguins
  sluice drift reference penguins v2 --from train.csv`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.GetDriftResponse, error) {
				return c.GetDrift(ctx, &adminv1.GetDriftRequest{Model: args[0]})
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeDrift(out, args[0], resp) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.AddCommand(newDriftReferenceCommand())
	return cmd
}

func writeDrift(out io.Writer, model string, resp *adminv1.GetDriftResponse) {
	if len(resp.GetVersions()) == 0 {
		fmt.Fprintf(out, "the data of %s is not watched: its route needs a drift setting, such as drift: {}\n", model)
		return
	}
	for i, v := range resp.GetVersions() {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s %s: %s\n", model, strong.Render(v.GetVersion()), strings.Join(driftStanding(v), ", "))
		if len(v.GetFeatures()) > 0 {
			driftTable(v.GetFeatures()).write(out)
			writeEffects(out, v)
		}
	}
	between := "\n"
	for _, c := range resp.GetContrasts() {
		if c.GetVerdict() == "unknown" && idle(resp, c.GetOther()) {
			continue // of a dark version there is nothing to say
		}
		fmt.Fprint(out, between)
		between = ""
		fmt.Fprintf(out, "%s against %s: %s\n", c.GetOther(), c.GetBase(), contrastText(c))
	}
	if len(resp.GetAlarms()) > 0 {
		fmt.Fprintln(out)
		t := newTable("RAISED", "VERSION", "FEATURE", "REASON", "")
		for _, a := range resp.GetAlarms()[:min(10, len(resp.GetAlarms()))] {
			t.add(moment(a.GetTime()), a.GetVersion(), visible(a.GetFeature(), 40), a.GetReason(), visible(a.GetText(), 160))
		}
		t.write(out)
	}
}

// writeEffects tells of features of which more than the route says has to change, because the reference itself is as uneven.
func writeEffects(out io.Writer, v *adminv1.VersionDrift) {
	for _, f := range v.GetFeatures() {
		if f.GetEffect() > v.GetEffect() {
			fmt.Fprintf(out, "%s: %.2f and more matter, not %.2g, because parts of the reference differ by as much\n",
				visible(f.GetFeature(), 40), f.GetEffect(), v.GetEffect())
		}
	}
}

// idle reports a version that has not been called.
func idle(resp *adminv1.GetDriftResponse, version string) bool {
	return !slices.ContainsFunc(resp.GetVersions(), func(v *adminv1.VersionDrift) bool {
		return v.GetVersion() == version && v.GetSampled() > 0
	})
}

// contrastText says whether the world has moved or two versions differ, and by what that is known.
func contrastText(c *adminv1.DriftContrast) string {
	var moved, unlike []string
	for _, f := range c.GetMoved() {
		moved = append(moved, visible(f, 40))
	}
	for _, u := range c.GetUnlike() {
		unlike = append(unlike, fmt.Sprintf("%s (PSI %.2f)", visible(u.GetFeature(), 40), u.GetPsi()))
	}
	in, by := someOf(moved), someOf(unlike)
	switch c.GetVerdict() {
	case "unmoved":
		return "nothing has moved in both, and they answer alike"
	case "world moved":
		return alarm.Render("the world has moved") + ", for both in " + in + "; they answer alike"
	case "models differ":
		return alarm.Render("the models differ") + ": asked alike, they answer differently in " + by
	case "world moved and models differ":
		return alarm.Render("the world has moved") + ", for both in " + in + ", " + alarm.Render("and the models differ") + ", in " + by
	case "traffic differs":
		return less.Render("they are asked different things") + ", in " + by + ", so their answers say nothing about the models"
	}
	return faint.Render("not known: no window of both has values enough")
}

// someOf lists the first few words.
func someOf(words []string) string {
	const most = 3
	if n := len(words) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), n)
	}
	return strings.Join(words, ", ")
}

// driftStanding says in a few words what is compared with what.
func driftStanding(v *adminv1.VersionDrift) []string {
	var words []string
	ref := v.GetReference()
	switch {
	case ref != nil:
		words = append(words, "compared with "+visible(ref.GetSource(), 80))
		if ref.GetData() != "" {
			words = append(words, "data "+visible(ref.GetData(), 40))
		}
	case v.GetToLearn() > 0:
		words = append(words, fmt.Sprintf("learning, %d of %d samples", v.GetLearnt(), v.GetToLearn()))
	default:
		words = append(words, "no reference (try: sluice drift reference --help)")
	}
	if w := v.GetWindow(); w != nil {
		words = append(words, fmt.Sprintf("window of %s until %s, %s",
			w.GetTo().AsTime().Sub(w.GetFrom().AsTime()).Round(time.Millisecond), moment(w.GetTo()), plural(int(w.GetSamples()), "sample")))
	} else if w := v.GetNext(); w != nil {
		words = append(words, "first window ends "+moment(w.GetTo()))
	}
	if n := v.GetUnreadable(); n > 0 {
		words = append(words, alarm.Render(fmt.Sprintf("%d unreadable", n)))
	}
	return words
}

func driftTable(features []*adminv1.FeatureDrift) *table {
	t := newTable("FEATURE", "STATE", ">VALUES", ">PSI", ">P", ">SHIFT", "REFERENCE", "NOW", "RATES")
	for _, f := range features {
		state := f.GetState()
		switch state {
		case "drift":
			state = alarm.Render(state)
		case "suspect":
			state = less.Render(state)
		case "insufficient":
			state = faint.Render(state)
		}
		t.add(visible(f.GetFeature(), 40), state, fmt.Sprint(f.GetValues()), statisticText(f.GetPsi(), "%.3f"),
			probabilityText(f.Adjusted), statisticText(cmp.Or(f.GetWasserstein(), f.GetMmd()), "%.2f"),
			histogram(f.GetReference()), histogram(f.GetCurrent()), ratesText(f.GetRates()))
	}
	return t
}

func statisticText(s *adminv1.DriftStatistic, format string) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf(format, s.GetValue())
}

func probabilityText(p *float64) string {
	switch {
	case p == nil:
		return "-"
	case *p < 1e-12:
		return "<1e-12"
	case *p < 0.001:
		return fmt.Sprintf("%.0e", *p)
	}
	return fmt.Sprintf("%.3f", *p)
}

// ratesText lists what there was of rows without a value, with an alarm in red.
func ratesText(rates []*adminv1.DriftRate) string {
	var parts []string
	for _, r := range rates {
		if r.GetCount() == 0 && !r.GetAlarm() {
			continue
		}
		text := fmt.Sprintf("%s %.3g %%", r.GetKind(), 100*float64(r.GetCount())/float64(max(1, r.GetRows())))
		if r.GetAlarm() {
			text = alarm.Render(text)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// histogram draws shares as bars, the largest one full; a share that is not 0 is seen.
func histogram(shares []float64) string {
	const bars = " ▁▂▃▄▅▆▇█"
	var most float64
	for _, s := range shares {
		most = max(most, s)
	}
	if most == 0 {
		return "-"
	}
	steps := []rune(bars)
	var b strings.Builder
	for _, s := range shares[:min(len(shares), 24)] {
		b.WriteRune(steps[int(math.Ceil(s/most*float64(len(steps)-1)))])
	}
	return b.String()
}
