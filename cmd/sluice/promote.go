package main

import (
	"context"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newPromoteCommand() *cobra.Command {
	var o changeOptions
	cmd := &cobra.Command{
		Use:   "promote MODEL VERSION",
		Short: "Send all calls of a model to one version",
		Long: `Send all calls of a model to one version.

The history says which version it was before; sluice rollback MODEL returns to it.`,
		Example:           `  sluice promote fraud v8 --reason "a week without complaints"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeModelThenVersions(&o.client, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				return c.Promote(ctx, &adminv1.PromoteRequest{Intent: in, Model: args[0], Version: args[1]})
			})
		},
	}
	o.register(cmd)
	return cmd
}
