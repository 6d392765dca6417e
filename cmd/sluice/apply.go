package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/routing"
)

func newApplyCommand() *cobra.Command {
	var o changeOptions
	var file string
	var remove []string
	var prune bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Add and replace routes, as a file says",
		Long: `Add and replace routes, as a file says: all of them in one change, or none.

Routes that the file does not have stay, unless --prune deletes them. The file has the
same form as the one that sluice serve reads; sluice get -o yaml writes it.`,
		Example: `  sluice apply -f routes.yaml --dry-run
  sluice apply -f routes.yaml --reason "fraud v9 is deployed"
  sluice apply --delete fraud --reason "retired"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" && len(remove) == 0 {
				return &usageError{errors.New("-f is missing: it names the file with the routes"), cmd.CommandPath()}
			}
			if prune && file == "" {
				return &usageError{errors.New("--prune deletes what a file does not have: -f is missing"), cmd.CommandPath()}
			}
			doc, err := readDocument(cmd.InOrStdin(), file)
			if err != nil {
				return err
			}
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				return c.Apply(ctx, &adminv1.ApplyRequest{Intent: in, Document: doc, Delete: remove, Prune: prune})
			})
		},
	}
	o.register(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` with routes (YAML), - for standard input")
	cmd.Flags().StringArrayVar(&remove, "delete", nil, "delete the route of a `model`; may be repeated")
	cmd.Flags().BoolVar(&prune, "prune", false, "delete all routes that the file does not have")
	_ = cmd.RegisterFlagCompletionFunc("delete", completeModels(&o.client)) // fails for an unknown flag only
	return cmd
}

// readDocument reads routes; none without a file.
func readDocument(stdin io.Reader, file string) (*routingv1.Document, error) {
	switch file {
	case "":
		return nil, nil
	case "-":
		data, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return routing.Parse("standard input", data)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return routing.Parse(file, data)
}
