package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
	"sluice/shadow"
)

// replayOptions are the flags of sluice replay.
type replayOptions struct {
	client clientOptions
	output format
	req    adminv1.ReplayRequest
	atMost float64
}

func newReplayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay MODEL VERSION",
		Short: "Make calls again that a gateway has kept, and compare the answers",
		Long: `Make calls again that a gateway has kept, of any version of their route, and compare the
answers with those that callers got then.

A gateway keeps calls if it was started with --capture-dir and the route has "capture"; what
callers asked and were answered stands in its files. They are made by the gateway itself,
the oldest first, without the credentials of their callers. The version's server really
does the work again: see "sluice help shadow" and docs/shadow.md.

It exits with 1 if no call could be compared, and with --at-most if the exact upper bound
of the share of calls that differ is above that. There, a call that brought no answer to
compare, because it failed or could not be made, is one that may differ.`,
		Example: `  sluice replay fraud v9
  sluice replay fraud v9 --rate 200 --limit 3000 --at-most 0.01
  sluice replay fraud v9 --from 20260301T120000.000000000Z.jsonl -o json`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeModel(&o.client),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(o.req.GetRate() > 0) {
				return &usageError{fmt.Errorf("--rate: got %g, want a number of calls per second above 0", o.req.GetRate()), cmd.CommandPath()}
			}
			if !(o.atMost > 0 && o.atMost <= 1) {
				return &usageError{fmt.Errorf("--at-most: got %g, want a share above 0 and at most 1", o.atMost), cmd.CommandPath()}
			}
			o.req.Model, o.req.Version = args[0], args[1]
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.client.register(cmd)
	o.output.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.req.From, "from", "", "`file` of the gateway's folder for the model (default all of them)")
	f.Float64Var(&o.req.Rate, "rate", 50, "calls per second, a `number`")
	f.Uint64Var(&o.req.Limit, "limit", 0, "`number` of calls, the oldest first; 0 is all there are")
	f.BoolVar(&o.req.Sequences, "sequences", false, "make calls of sequences, too: they mix with those under way")
	f.Float64Var(&o.atMost, "at-most", 1, "`share` of calls that may differ: fail if its exact upper bound is higher")
	return cmd
}

// run follows a replay to its end.
func (o *replayOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	c, err := o.client.connect()
	if err != nil {
		return err
	}
	defer c.close()
	stream, err := c.Replay(ctx, &o.req)
	if err != nil {
		return explainFailure(ctx, err, c.where)
	}
	defer stream.Close()
	last := new(adminv1.ReplayResponse)
	for stream.Receive() {
		last = stream.Msg()
		fmt.Fprintf(stderr, "%d calls read, %d compared, %d differ\n", last.GetRead(), last.GetReport().GetCompared(), last.GetReport().GetMismatched())
	}
	if err := stream.Err(); err != nil {
		return explainFailure(ctx, err, c.where)
	}
	err = o.output.write(stdout, last, func(out io.Writer) { writeShadows(out, []*adminv1.ShadowReport{last.GetReport()}, false) })
	if err != nil {
		return err
	}
	switch r := last.GetReport(); {
	case last.GetRead() == 0:
		return errors.New("no call was kept: nothing was made again")
	case r.GetCompared() == 0:
		return fmt.Errorf("none of %d calls could be compared", last.GetRead())
	default:
		return o.judge(r)
	}
}

// judge holds a replay against --at-most. Calls without an answer count as if they differed: a
// version that answers nothing is none to go on with.
func (o *replayOptions) judge(r *adminv1.ShadowReport) error {
	silent := total(r.GetFailed()) + total(r.GetDropped())
	bound := shadow.ClopperPearsonUpper(r.GetMismatched()+silent, r.GetCompared()+silent)
	if o.atMost >= 1 || bound <= o.atMost {
		return nil
	}
	return fmt.Errorf("%d of %d calls differ and %d brought nothing to compare: up to %s with what is not seen; --at-most says %s",
		r.GetMismatched(), r.GetCompared()+silent, silent, percent(bound), percent(o.atMost))
}
