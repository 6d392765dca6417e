package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newRollbackCommand() *cobra.Command {
	var o changeOptions
	var to uint64
	var all bool
	cmd := &cobra.Command{
		Use:   "rollback MODEL [--to REVISION]",
		Short: "Undo the last change, or return to a revision",
		Long: `Undo the last change of a model, or return to what its route was at a revision.

It is itself a change, so that it can be undone: a second rollback makes anew what the
first has undone. With --all instead of a model it concerns all routes.`,
		Example: `  sluice rollback fraud --reason "v8 answers slowly"
  sluice rollback fraud --to 12
  sluice rollback --all --to 12`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o.client),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return &usageError{errors.New("want a model, or --all for all routes"), cmd.CommandPath()}
			}
			req := &adminv1.RollbackRequest{}
			if !all {
				req.Model = args[0]
			}
			if cmd.Flags().Changed("to") {
				req.ToRevision = proto.Uint64(to)
			}
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				req.Intent = in
				return c.Rollback(ctx, req)
			})
		},
	}
	o.register(cmd)
	cmd.Flags().Uint64Var(&to, "to", 0, "`revision` to return to")
	_ = cmd.RegisterFlagCompletionFunc("to", completeRevisions(&o.client)) // fails for an unknown flag only
	cmd.Flags().BoolVar(&all, "all", false, "all routes")
	return cmd
}
