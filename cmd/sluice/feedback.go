package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	feedbackv1 "sluice/proto/sluice/feedback/v1"
)

const (
	// feedbackBatch is how many labels are sent at once.
	feedbackBatch = 1000
	// shownRefusals is how many refused labels are shown.
	shownRefusals = 10
)

// feedbackOptions are the flags of sluice feedback.
type feedbackOptions struct {
	client clientOptions
	csv    bool
}

func newFeedbackCommand() *cobra.Command {
	var o feedbackOptions
	cmd := &cobra.Command{
		Use:   "feedback FILE...",
		Short: "Report what turned out to be true of predictions",
		Long: `Report what turned out to be true of predictions, from files of labels; - is standard
input. Each label names the sluice-prediction-id that came with an answer, and one of
class, number or reward; time, if it is there, says when the truth became known. All
rows of a batch have one id, and row says which of them is meant, from 0.

JSON lines:

  {"prediction_id": "AbC...", "class": "fraud", "time": "2026-11-26T10:00:00Z"}
  {"prediction_id": "DeF...", "reward": 0.5}
  {"prediction_id": "GhI...", "row": 2, "class": "honest"}

CSV, for files whose names end in .csv or with --csv: a header with the same names,
such as prediction_id,class,time.

A prediction has one label, the first that arrives: sending it again does no harm, and
another one does not correct it. Labels that cannot be used are listed, and the others
are counted all the same.`,
		Example: `  sluice feedback labels.jsonl
  sluice feedback monday.csv tuesday.csv
  zcat late.csv.gz | sluice feedback --csv -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, args)
		},
	}
	o.client.register(cmd)
	cmd.Flags().BoolVar(&o.csv, "csv", false, "the files are CSV, whatever they are called")
	return cmd
}

func (o *feedbackOptions) run(cmd *cobra.Command, files []string) error {
	sum := feedbackSum{refused: make(map[string]int)}
	for _, name := range files {
		if err := o.send(cmd, name, &sum); err != nil {
			if sum.counted+sum.duplicates > 0 {
				sum.write(cmd.OutOrStdout())
			}
			return err
		}
	}
	sum.write(cmd.OutOrStdout())
	if n := sum.refusals(); n > 0 {
		return fmt.Errorf("%s refused", plural(n, "label"))
	}
	return nil
}

// send sends the labels of one file.
func (o *feedbackOptions) send(cmd *cobra.Command, name string, sum *feedbackSum) error {
	in, source := cmd.InOrStdin(), "standard input"
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in, source = file, name
	}
	read := readJSONLabels
	if o.csv || strings.HasSuffix(name, ".csv") {
		read = readCSVLabels
	}
	var batch []*feedbackv1.Label
	var lines []int
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		resp, err := askToDo(cmd.Context(), &o.client, func(ctx context.Context, c *client) (*feedbackv1.SendResponse, error) {
			return c.Send(ctx, &feedbackv1.SendRequest{Labels: batch})
		})
		if err != nil {
			return err
		}
		sum.add(source, lines, resp)
		batch, lines = batch[:0], lines[:0]
		return nil
	}
	for line, l := range read(in) {
		if l.err != nil {
			// What was read before it is good, and goes first.
			return errors.Join(flush(), fmt.Errorf("%s:%d: %w", source, line, l.err))
		}
		batch, lines = append(batch, l.label), append(lines, line)
		if len(batch) == feedbackBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// feedbackSum is what became of labels.
type feedbackSum struct {
	counted, duplicates int
	refused             map[string]int // by reason
	shown               []string
}

func (s *feedbackSum) add(source string, lines []int, resp *feedbackv1.SendResponse) {
	s.counted += int(resp.GetCounted())
	s.duplicates += int(resp.GetDuplicates())
	for _, r := range resp.GetRefused() {
		s.refused[strings.ToLower(strings.TrimPrefix(r.GetReason().String(), "REASON_"))]++
		if i := int(r.GetIndex()); len(s.shown) < shownRefusals && i < len(lines) {
			s.shown = append(s.shown, fmt.Sprintf("%s:%d: %s", source, lines[i], visible(r.GetText(), 300)))
		}
	}
}

func (s *feedbackSum) refusals() (n int) {
	for _, x := range s.refused {
		n += x
	}
	return n
}

func (s *feedbackSum) write(out io.Writer) {
	fmt.Fprintf(out, "%s counted", plural(s.counted, "label"))
	if s.duplicates > 0 {
		fmt.Fprintf(out, ", %d counted before", s.duplicates)
	}
	for _, reason := range slices.Sorted(maps.Keys(s.refused)) {
		fmt.Fprintf(out, ", %d refused (%s)", s.refused[reason], reason)
	}
	fmt.Fprintln(out)
	for _, text := range s.shown {
		fmt.Fprintln(out, "  "+text)
	}
	if n := s.refusals() - len(s.shown); n > 0 {
		fmt.Fprintf(out, "  and %d more\n", n)
	}
}
