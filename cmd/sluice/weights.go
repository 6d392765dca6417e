package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newWeightsCommand() *cobra.Command {
	var o changeOptions
	cmd := &cobra.Command{
		Use:   "weights MODEL VERSION=WEIGHT...",
		Short: "Give a model another split",
		Long: `Give a model another split.

It replaces the whole one: a version that is not named gets 0, and the difference shows
it. Weights are relative, any scale will do; percentages are common.`,
		Example: `  sluice weights fraud v7=95 v8=5
  sluice weights fraud v7=50 v8=50 --reason "v8 looks good" --yes`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeModelThenVersions(&o.client, "="),
		RunE: func(cmd *cobra.Command, args []string) error {
			weights, err := parseWeights(args[1:])
			if err != nil {
				return &usageError{err, cmd.CommandPath()}
			}
			return o.run(cmd, func(ctx context.Context, c *client, in *adminv1.Intent) (answer, error) {
				return c.SetWeights(ctx, &adminv1.SetWeightsRequest{Intent: in, Model: args[0], Weights: weights})
			})
		},
	}
	o.register(cmd)
	return cmd
}

// parseWeights reads words such as v7=95. The last = counts: a version's name may
// hold others.
func parseWeights(words []string) (map[string]uint32, error) {
	weights := make(map[string]uint32)
	for _, word := range words {
		i := strings.LastIndexByte(word, '=')
		if i <= 0 {
			return nil, fmt.Errorf("got %q, want VERSION=WEIGHT", word)
		}
		name := word[:i]
		w, err := strconv.ParseUint(word[i+1:], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("weight of %s: got %q, want a whole number from 0 to 4294967295", name, word[i+1:])
		}
		if _, twice := weights[name]; twice {
			return nil, fmt.Errorf("got a weight of %s twice, want one", name)
		}
		weights[name] = uint32(w)
	}
	return weights, nil
}
