package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newBreakerCommand() *cobra.Command {
	return newFamily("breaker", "Cut a version or an endpoint off, or let it back", `Cut a version or an endpoint off, or let it back.

An order stands in the routing state: every gateway follows it, also one that starts
later, the history tells who gave it and why, and a rollback takes it back. With --local
it is given to the gateway that is asked and to no other. That needs no store, is
written into that gateway's log instead of the history, and ends with its process.`,
		newBreakerOpenCommand(), newBreakerResetCommand())
}

// orderOptions are the flags of orders to breakers.
type orderOptions struct {
	changeOptions
	endpoint string
	local    bool
}

func (o *orderOptions) register(cmd *cobra.Command) {
	o.changeOptions.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.endpoint, "endpoint", "", "one `address` of the version, as sluice breakers shows it (default all of it)")
	f.BoolVar(&o.local, "local", false, "on the gateway that is asked, and on no other")
	_ = f.MarkHidden("force") // no guard looks at these orders
}

func newBreakerOpenCommand() *cobra.Command {
	var o orderOptions
	cmd := &cobra.Command{
		Use:   "open MODEL VERSION",
		Short: "Cut a version or an endpoint off",
		Long: `Cut a version or an endpoint off, on all gateways, until sluice breaker reset.

Weights stay as they are. The calls meant for it are answered by the route's fallback
or, without one, refused; so are calls that ask for it by name. Those under way end as
they would have.`,
		Example: `  sluice breaker open fraud v8 --reason "wrong answers since 02:40"
  sluice breaker open fraud v8 --endpoint 10.0.0.8:8001
  sluice breaker open fraud v8 --local --reason "Redis is down"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeModelThenVersions(&o.client, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			open := func(ctx context.Context, c *client, in *adminv1.Intent, local bool) (*adminv1.OpenBreakerResponse, error) {
				return c.OpenBreaker(ctx, &adminv1.OpenBreakerRequest{
					Intent: in, Model: args[0], Version: args[1], Endpoint: o.endpoint, Local: local,
				})
			}
			if o.local {
				return o.runLocally(cmd, "cut off", args, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
					return open(ctx, c, in, true)
				})
			}
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				return open(ctx, c, in, false)
			})
		},
	}
	o.register(cmd)
	return cmd
}

func newBreakerResetCommand() *cobra.Command {
	var o orderOptions
	cmd := &cobra.Command{
		Use:   "reset MODEL VERSION",
		Short: "Let a version or an endpoint back",
		Long: `Let a version or an endpoint back: take orders about it back, on all gateways, and
close its breaker.

A breaker that opened by itself needs no order: it closes when a probe succeeds. If no
order stands, reset concerns the gateway that is asked, which forgets what the breaker
had counted; what others have learned stays theirs.`,
		Example: `  sluice breaker reset fraud v8 --reason "answers are right again"
  sluice breaker reset fraud v8 --endpoint 10.0.0.8:8001`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeModelThenVersions(&o.client, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			reset := func(local bool) send {
				return func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
					return c.ResetBreaker(ctx, &adminv1.ResetBreakerRequest{
						Intent: in, Model: args[0], Version: args[1], Endpoint: o.endpoint, Local: local,
					})
				}
			}
			if !o.local {
				stands, err := o.stands(cmd, reset(false))
				if err != nil {
					return err
				}
				if stands {
					return o.run(cmd, reset(false))
				}
			}
			return o.runLocally(cmd, "reset", args, reset(true))
		},
	}
	o.register(cmd)
	return cmd
}

// stands reports whether the routing state has an order to take back.
func (o *orderOptions) stands(cmd *cobra.Command, send send) (bool, error) {
	a, err := ask(cmd.Context(), &o.client, func(ctx context.Context, c *client) (answer, error) {
		return send(ctx, c, with(o.intent(cmd), func(in *adminv1.Intent) { in.DryRun = true }))
	})
	if err != nil {
		return false, err
	}
	return a.GetOutcome().GetChange() != nil, nil
}

// runLocally gives an order to one gateway.
func (o *orderOptions) runLocally(cmd *cobra.Command, done string, args []string, send send) error {
	if o.dryRun {
		done = "dry run: would be " + done
	} else if err := o.confirm(cmd); err != nil {
		return err
	}
	where := ""
	a, err := askToDo(cmd.Context(), &o.client, func(ctx context.Context, c *client) (answer, error) {
		where = c.where
		return send(ctx, c, with(o.intent(cmd), func(in *adminv1.Intent) { in.DryRun = o.dryRun }))
	})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("version %s of %s", args[1], args[0])
	if o.endpoint != "" {
		what = fmt.Sprintf("endpoint %s of %s", o.endpoint, what)
	}
	return o.output.write(cmd.OutOrStdout(), a, func(out io.Writer) {
		fmt.Fprintf(out, "%s: %s, on the gateway at %s alone\n", what, done, where)
	})
}
