package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newBreakersCommand() *cobra.Command {
	var o clientOptions
	var output format
	var watch bool
	cmd := &cobra.Command{
		Use:   "breakers [MODEL]",
		Short: "Show which versions and endpoints are cut off, since when and why",
		Long: `Show which versions and endpoints are cut off, since when and why.

What breakers have learned is each gateway's own: --admin says which one is asked. With
--watch, every change is told as it happens, with its cause, what had been counted and
the request id of the call that was decisive.`,
		Example: `  sluice breakers
  sluice breakers fraud --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return watchBreakers(cmd, &o, output, modelOf(args))
			}
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.ListBreakersResponse, error) {
				return c.ListBreakers(ctx, &adminv1.ListBreakersRequest{Model: modelOf(args)})
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeBreakers(out, resp) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and tell every change")
	return cmd
}

// writeBreakers shows a row for each version and one for each of its endpoints.
func writeBreakers(out io.Writer, resp *adminv1.ListBreakersResponse) {
	t := newTable("MODEL", "VERSION", "ENDPOINT", "STATE", "CAUSE", "SINCE", ">FAILED", ">OVERLOADED", ">SLOW", ">REFUSED", ">IN FLIGHT", ">P95")
	for _, v := range resp.GetVersions() {
		flight := fmt.Sprintf("%d/%d", v.GetInFlight(), v.GetLimit())
		p95 := "-"
		if v.GetP95() != nil {
			p95 = v.GetP95().AsDuration().Round(10 * time.Microsecond).String()
		}
		t.add(append(append([]string{v.GetModel(), v.GetVersion(), "all"}, breakerCells(v.GetBreaker())...), flight, p95)...)
		for _, e := range v.GetEndpoints() {
			t.add(append(append([]string{"", "", e.GetAddress()}, breakerCells(e.GetBreaker())...), "", "")...)
		}
	}
	t.write(out)
	for _, b := range resp.GetBudgets() {
		fmt.Fprintf(out, "budget of %s: %.0f second attempts left; %d made, %d refused\n", b.GetModel(), b.GetLeft(), b.GetTaken(), b.GetRefused())
	}
}

func breakerCells(b *adminv1.Breaker) []string {
	n := b.GetCounts()
	return []string{
		breakerState(b), b.GetCause(), moment(b.GetSince()),
		fmt.Sprintf("%d/%d", n.GetFailures(), n.GetCalls()), fmt.Sprint(n.GetOverloaded()), fmt.Sprint(n.GetSlow()), fmt.Sprint(b.GetRefused()),
	}
}

// breakerState is a state in words that say for how long, and for whom.
func breakerState(b *adminv1.Breaker) string {
	var notes []string
	switch {
	case b.GetForced() && b.GetOrdered():
		notes = append(notes, "on all gateways")
	case b.GetForced():
		notes = append(notes, "on this gateway")
	case b.GetOpenUntil() == nil:
	case b.GetOpenUntil().AsTime().After(time.Now()):
		notes = append(notes, "until "+clock(b.GetOpenUntil().AsTime()))
	default:
		notes = append(notes, "the next call is a probe")
	}
	if b.GetDryRun() {
		notes = append(notes, "dry run")
	}
	text := b.GetState()
	if b.GetState() != "closed" {
		text = alarm.Render(text)
	}
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	return text
}

// watchBreakers tells changes until ctx ends: a line each, or as JSON or YAML.
func watchBreakers(cmd *cobra.Command, o *clientOptions, output format, model string) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	defer c.close()
	v := &breakerView{out: colours(cmd.OutOrStdout())}
	show, lost := v.show, v.lost
	if output != asTable {
		machine := machineView{cmd.OutOrStdout(), output}
		show, lost = func(resp *adminv1.WatchBreakersResponse) error { return machine.write(resp) }, machine.lost
	}
	return keepWatching(cmd.Context(), c, lost, func(ctx context.Context) (*connect.ServerStreamForClient[adminv1.WatchBreakersResponse], error) {
		return c.WatchBreakers(ctx, &adminv1.WatchBreakersRequest{Model: model})
	}, show)
}

// breakerView writes how the breakers stand, then a line for every change.
type breakerView struct {
	out     io.Writer
	dropped uint64
}

func (v *breakerView) show(resp *adminv1.WatchBreakersResponse) error {
	if resp.GetStanding() != nil {
		writeBreakers(v.out, resp.GetStanding())
		v.dropped = 0
	}
	for _, e := range resp.GetEvents() {
		fmt.Fprintln(v.out, faint.Render(clock(e.GetTime().AsTime()))+" "+eventLine(e))
	}
	if n := resp.GetDropped(); n > v.dropped {
		fmt.Fprintf(v.out, "%s\n", alarm.Render(fmt.Sprintf("%d more changes came faster than they were read, and are not shown", n-v.dropped)))
		v.dropped = n
	}
	return nil
}

func (v *breakerView) lost(err error) {
	fmt.Fprintln(v.out, faint.Render(clock(time.Now()))+" "+alarm.Render("problem: ")+visible(err.Error(), 500))
}

// eventLine is a change of a breaker in one line.
func eventLine(e *adminv1.BreakerEvent) string {
	to := e.GetTo()
	if to == "open" {
		to = alarm.Render(to)
	}
	n := e.GetCounts()
	line := fmt.Sprintf("%s %s -> %s: %s (%d calls, %d failed, %d overloaded, %d slow, %d failures in a row)",
		strong.Render(strings.TrimSpace(e.GetModel()+" "+e.GetVersion()+" "+e.GetEndpoint())), e.GetFrom(), to, e.GetCause(),
		n.GetCalls(), n.GetFailures(), n.GetOverloaded(), n.GetSlow(), n.GetConsecutive())
	if e.GetRequestId() != "" {
		line += ", request " + visible(e.GetRequestId(), 128)
	}
	if e.GetOpenUntil() != nil {
		line += ", probe from " + clock(e.GetOpenUntil().AsTime())
	}
	if e.GetDryRun() {
		line += " [dry run: nothing is cut off]"
	}
	return line
}
