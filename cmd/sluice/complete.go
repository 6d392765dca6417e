package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

// completionTimeout is how long somebody who has pressed Tab may wait.
const completionTimeout = time.Second

// completeModels completes the name of a model, as the gateway knows them.
func completeModels(o *clientOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []cobra.Completion
		for _, r := range completionRoutes(cmd.Context(), o, "") {
			names = append(names, cobra.CompletionWithDesc(r.GetModel(), splitWords(r.GetRoute())))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeModel completes the one argument of a command that takes a model.
func completeModel(o *clientOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeModels(o)(cmd, args, text)
	}
}

// completeModelThenVersions completes a model, then versions of it. With a suffix
// there may be many, each with something more to type.
func completeModelThenVersions(o *clientOptions, suffix string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return completeModels(o)(cmd, args, text)
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if suffix != "" {
			directive |= cobra.ShellCompDirectiveNoSpace
		} else if len(args) > 1 {
			return nil, directive
		}
		var names []cobra.Completion
		for _, r := range completionRoutes(cmd.Context(), o, args[0]) {
			for _, v := range r.GetRoute().GetVersions() {
				name := v.GetName() + suffix
				taken := slices.ContainsFunc(args[1:], func(a string) bool { return strings.HasPrefix(a, name) })
				if !taken {
					names = append(names, cobra.CompletionWithDesc(name, fmt.Sprintf("weight %d", r.GetRoute().GetWeights()[v.GetName()])))
				}
			}
		}
		return names, directive
	}
}

// completionRoutes asks the gateway; nobody is told if it does not answer.
func completionRoutes(ctx context.Context, o *clientOptions, model string) []*routeEntry {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	resp, err := ask(ctx, o, func(ctx context.Context, c *client) (*adminv1.GetResponse, error) {
		return c.Get(ctx, &adminv1.GetRequest{Model: model})
	})
	if err != nil {
		return nil
	}
	return resp.GetRoutes()
}

// completeVersionFlag completes --version with the versions of the model that is the
// command's argument.
func completeVersionFlag(cmd *cobra.Command, o *clientOptions) {
	versions := completeModelThenVersions(o, "")
	_ = cmd.RegisterFlagCompletionFunc("version", func(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp // of which model?
		}
		return versions(cmd, args[:1], text)
	}) // fails for an unknown flag only
}

// completeRevisions completes a revision that the model, or all routes, can return to, the
// latest first.
func completeRevisions(o *clientOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		resp, err := ask(ctx, o, func(ctx context.Context, c *client) (*adminv1.HistoryResponse, error) {
			return c.History(ctx, &adminv1.HistoryRequest{Model: modelOf(args), Limit: 20, Documents: 1})
		})
		if err != nil {
			return nil, directive
		}
		var revisions []cobra.Completion
		for _, c := range resp.GetChanges() {
			revisions = append(revisions, cobra.CompletionWithDesc(fmt.Sprint(c.GetRevision()),
				visible(c.GetActor(), 40)+": "+reasonOrDash(c, reasonWidth)))
		}
		return revisions, directive
	}
}
