package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

func newFaultCommand() *cobra.Command {
	return newFamily("fault", "Let calls fail on purpose, for a time", `Let calls fail on purpose, for a time: to see what callers notice, and that breakers,
fallbacks and alerts do what they are there for.

Faults stand in the routing state: every gateway acts on them, and the history tells who
wanted them and why. They end by themselves, at most an hour later. A call that one has
struck carries sluice-fault in its answer.`,
		newFaultInjectCommand(), newFaultListCommand(), newFaultClearCommand())
}

// faultOptions are the flags of sluice fault inject.
type faultOptions struct {
	changeOptions
	version string
	percent float64
	delay   time.Duration
	status  string
	reset   bool
	lasts   time.Duration
}

func newFaultInjectCommand() *cobra.Command {
	var o faultOptions
	cmd := &cobra.Command{
		Use:   "inject MODEL (--delay D | --status CODE | --reset) [--version VERSION] [--percent P] [--for D]",
		Short: "Let a share of a model's calls fail or take longer, for a time",
		Long: `Let a share of a model's calls fail or take longer, for a time.

It is as if the model server had done it: the call falls back where the route says so,
and breakers count it. Calls that manage a model server are spared, and so are copies
for shadows and health probes. It ends by itself; sluice fault clear or sluice rollback
end it before.`,
		Example: `  sluice fault inject fraud --version v8 --status UNAVAILABLE --percent 10 --reason "game day"
  sluice fault inject fraud --delay 200ms --for 5m
  sluice fault inject fraud --version v8 --reset`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel(&o.client),
		RunE: func(cmd *cobra.Command, args []string) error {
			fault, err := o.fault()
			if err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				return c.InjectFault(ctx, &adminv1.InjectFaultRequest{
					Intent: in, Model: args[0], Fault: fault, Duration: durationpb.New(o.lasts),
				})
			})
		},
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.version, "version", "", "the `version` whose calls are struck (default all of the model)")
	f.Float64Var(&o.percent, "percent", 100, "share of the calls that are struck")
	f.DurationVar(&o.delay, "delay", 0, "send the call that much later, at most 30s")
	f.StringVar(&o.status, "status", "", "end the call with this gRPC status `code`, such as UNAVAILABLE")
	f.BoolVar(&o.reset, "reset", false, "end the call as if the server had reset its stream")
	f.DurationVar(&o.lasts, "for", time.Minute, "how long, at most 1h")
	_ = f.MarkHidden("force") // it sends no calls anywhere
	completeVersionFlag(cmd, &o.client)
	return cmd
}

// fault is what the flags ask for. Its bounds are the gateway's to check.
func (o *faultOptions) fault() (*routingv1.Fault, error) {
	f := &routingv1.Fault{Version: o.version, Percent: o.percent, Status: strings.ToUpper(o.status), ResetStream: o.reset}
	if o.delay != 0 {
		f.Delay = durationpb.New(o.delay)
	}
	n := 0
	for _, set := range []bool{o.delay != 0, o.status != "", o.reset} {
		if set {
			n++
		}
	}
	if n != 1 {
		return nil, errors.New("want one of --delay, --status and --reset")
	}
	return f, nil
}

func newFaultListCommand() *cobra.Command {
	var o clientOptions
	var output format
	cmd := &cobra.Command{
		Use:   "list [MODEL]",
		Short: "Show the faults, and when they end",
		Long: `Show the faults, when they end, and how many attempts each has struck at the gateway that
is asked. Other gateways have counts of their own; sluice_faults_injected_total in their
metrics adds up.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.ListFaultsResponse, error) {
				return c.ListFaults(ctx, &adminv1.ListFaultsRequest{Model: modelOf(args)})
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeFaults(out, resp) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	return cmd
}

func writeFaults(out io.Writer, resp *adminv1.ListFaultsResponse) {
	if len(resp.GetFaults()) == 0 {
		fmt.Fprintln(out, "no faults")
		return
	}
	t := newTable("MODEL", "VERSION", ">PERCENT", "FAULT", "FROM", "UNTIL", "STATE", ">STRUCK")
	for _, rf := range resp.GetFaults() {
		f, state := rf.GetFault(), rf.GetState()
		version := f.GetVersion()
		if version == "" {
			version = "all"
		}
		if state == "active" {
			state = alarm.Render(state)
		}
		t.add(rf.GetModel(), version, fmt.Sprint(f.GetPercent()), faultWords(f), moment(f.GetFrom()), moment(f.GetUntil()), state, fmt.Sprint(rf.GetStruck()))
	}
	t.write(out)
}

// faultWords is what a fault does.
func faultWords(f *routingv1.Fault) string {
	switch {
	case f.GetDelay() != nil:
		return "delay " + f.GetDelay().AsDuration().String()
	case f.GetResetStream():
		return "reset"
	}
	return "status " + f.GetStatus()
}

func newFaultClearCommand() *cobra.Command {
	var o changeOptions
	var version string
	cmd := &cobra.Command{
		Use:               "clear MODEL [--version VERSION]",
		Short:             "End the faults of a model now",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel(&o.client),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				return c.ClearFaults(ctx, &adminv1.ClearFaultsRequest{Intent: in, Model: args[0], Version: version})
			})
		},
	}
	o.register(cmd)
	cmd.Flags().StringVar(&version, "version", "", "those of one `version` (default all)")
	_ = cmd.Flags().MarkHidden("force")
	completeVersionFlag(cmd, &o.client)
	return cmd
}
