package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newLabelsCommand() *cobra.Command {
	var o clientOptions
	var output format
	cmd := &cobra.Command{
		Use:   "labels MODEL",
		Short: "Show how good the predictions of a model's versions turned out to be",
		Long: `Show what the labels that were reported say of the versions of a model: the window
under way and the last whole one, of all gateways that share the store. The route has to
have a labels setting; docs/labels.md says what the numbers mean.

  COVERAGE    share of the predictions of the last max_age that have a label
  DELAY       median time from a prediction to its label
  ERRORS      share of labels that were errors
  USUAL       share that is usual at most; it is learnt from the first labels

Below, versions are compared with the one that has the most labels: by how much their
losses differ, and where the true difference is with a confidence of 95 %, however
often one looks.`,
		Example: `  sluice labels fraud
  sluice labels fraud -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.GetLabelsResponse, error) {
				return c.GetLabels(ctx, &adminv1.GetLabelsRequest{Model: args[0]})
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeLabels(out, args[0], resp) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	return cmd
}

func writeLabels(out io.Writer, model string, resp *adminv1.GetLabelsResponse) {
	if len(resp.GetVersions()) == 0 {
		fmt.Fprintf(out, "no labels are taken for %s: its route needs a labels setting, such as labels: {}\n", model)
		return
	}
	measures := labelMeasures(resp)
	columns := []string{"VERSION", "WINDOW", ">LABELS", ">COVERAGE", ">DELAY", ">ERRORS", ">USUAL"}
	for _, m := range measures {
		columns = append(columns, ">"+m.title)
	}
	t := newTable(columns...)
	for _, v := range resp.GetVersions() {
		for i, w := range []*adminv1.LabelWindow{v.GetCurrent(), v.GetLast()} {
			if w == nil {
				continue
			}
			name, coverage, usual := strong.Render(v.GetVersion()), coverageText(v), usualText(v)
			if i > 0 {
				name, coverage, usual = "", "", ""
			}
			cells := []string{name, windowText(w, i > 0), fmt.Sprint(w.GetLabels()), coverage, delayText(w), errorText(v, w), usual}
			for _, m := range measures {
				cells = append(cells, m.text(w))
			}
			t.add(cells...)
		}
	}
	t.write(out)
	writeClasses(out, resp)
	writeComparisons(out, resp)
	if len(resp.GetAlarms()) > 0 {
		fmt.Fprintln(out)
		t := newTable("RAISED", "VERSION", "DETECTOR", "")
		for _, a := range resp.GetAlarms()[:min(10, len(resp.GetAlarms()))] {
			t.add(moment(a.GetTime()), alarm.Render(a.GetVersion()), a.GetDetector(), visible(a.GetText(), 160))
		}
		t.write(out)
	}
}

// labelMeasure is one of the measures that a table may have.
type labelMeasure struct {
	title string
	of    func(*adminv1.LabelWindow) *float64
}

func (m labelMeasure) text(w *adminv1.LabelWindow) string {
	if v := m.of(w); v != nil {
		return fmt.Sprintf("%.4g", *v)
	}
	return "-"
}

// labelMeasures are those that any version has.
func labelMeasures(resp *adminv1.GetLabelsResponse) (known []labelMeasure) {
	for _, m := range []labelMeasure{
		{"ACCURACY", func(w *adminv1.LabelWindow) *float64 { return w.Accuracy }},
		{"F1", func(w *adminv1.LabelWindow) *float64 { return w.MacroF1 }},
		{"LOG-LOSS", func(w *adminv1.LabelWindow) *float64 { return w.LogLoss }},
		{"BRIER", func(w *adminv1.LabelWindow) *float64 { return w.Brier }},
		{"AUC", func(w *adminv1.LabelWindow) *float64 { return w.Auc }},
		{"ECE", func(w *adminv1.LabelWindow) *float64 { return w.CalibrationError }},
		{"RMSE", func(w *adminv1.LabelWindow) *float64 { return w.Rmse }},
		{"MAE", func(w *adminv1.LabelWindow) *float64 { return w.Mae }},
		{"BIAS", func(w *adminv1.LabelWindow) *float64 { return w.Bias }},
		{"REWARD", func(w *adminv1.LabelWindow) *float64 { return w.Reward }},
	} {
		for _, v := range resp.GetVersions() {
			if m.of(v.GetCurrent()) != nil || v.GetLast() != nil && m.of(v.GetLast()) != nil {
				known = append(known, m)
				break
			}
		}
	}
	return known
}

func windowText(w *adminv1.LabelWindow, whole bool) string {
	if whole {
		return "until " + moment(w.GetTo())
	}
	return "since " + moment(w.GetFrom())
}

func coverageText(v *adminv1.VersionLabels) string {
	if v.GetPredictions() == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g %%", 100*float64(v.GetLabelled())/float64(v.GetPredictions()))
}

func delayText(w *adminv1.LabelWindow) string {
	if w.GetMedianDelay() == nil {
		return "-"
	}
	d := w.GetMedianDelay().AsDuration()
	if d > time.Minute {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.Round(100 * time.Millisecond).String()
}

func errorText(v *adminv1.VersionLabels, w *adminv1.LabelWindow) string {
	if w.GetLabels() == 0 {
		return "-"
	}
	share := float64(w.GetErrors()) / float64(w.GetLabels())
	text := fmt.Sprintf("%.3g %%", 100*share)
	if v.Baseline != nil && share > v.GetBaseline() {
		text = less.Render(text)
	}
	return text
}

// usualText says what share of errors is usual, or how far that is from being known.
func usualText(v *adminv1.VersionLabels) string {
	switch {
	case v.Baseline != nil:
		return fmt.Sprintf("%.3g %%", 100*v.GetBaseline())
	case v.GetToLearn() > 0:
		return faint.Render(fmt.Sprintf("%d of %d", v.GetLearnt(), v.GetToLearn()))
	}
	return "-"
}

func writeClasses(out io.Writer, resp *adminv1.GetLabelsResponse) {
	t := newTable("VERSION", "CLASS", ">LABELS", ">F1")
	n := 0
	for _, v := range resp.GetVersions() {
		for i, c := range v.GetCurrent().GetClasses() {
			name, f1 := "", "-"
			if i == 0 {
				name = v.GetVersion()
			}
			if c.F1 != nil {
				f1 = fmt.Sprintf("%.3f", c.GetF1())
			}
			t.add(name, visible(c.GetClass(), 40), fmt.Sprint(c.GetLabels()), f1)
			n++
		}
	}
	if n > 0 {
		fmt.Fprintln(out)
		t.write(out)
	}
}

func writeComparisons(out io.Writer, resp *adminv1.GetLabelsResponse) {
	if len(resp.GetComparisons()) == 0 {
		return
	}
	fmt.Fprintln(out)
	t := newTable("COMPARED", "WITH", ">DIFFERENCE", "95 % INTERVAL", "VERDICT")
	for _, c := range resp.GetComparisons() {
		interval, verdict := "too few labels", c.GetVerdict()
		if c.Low != nil {
			interval = fmt.Sprintf("%+.4f to %+.4f", c.GetLow(), c.GetHigh())
		}
		switch verdict {
		case "worse":
			verdict = alarm.Render(verdict)
		case "better":
			verdict = more.Render(verdict)
		}
		t.add(strong.Render(c.GetVersion()), c.GetWith(), fmt.Sprintf("%+.4f", c.GetDifference()), interval, verdict)
	}
	t.write(out)
}
