package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
	"sluice/telemetry/incident"
)

func newPostmortemCommand() *cobra.Command {
	var o clientOptions
	var output format
	var req adminv1.AnnotateIncidentRequest
	cmd := &cobra.Command{
		Use:   "postmortem INCIDENT",
		Short: "Tell an incident's story in Markdown",
		Long: `Tell an incident's story in Markdown: what callers noticed, what happened in which order, what was
changed by whom and why, calls to look at, and what is to be done. It blames nobody.

The beginning of an incident's id will do, if it is the only one. With --action, something is added to
what is to be done; with --done it is ticked off.`,
		Example: `  sluice postmortem 20260504-120004 > postmortem.md
  sluice postmortem 20260504 --action "test v8 with empty tensors"
  sluice postmortem 20260504 --done 1`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeIncident(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.AddAction != "" || req.CompleteAction != 0 {
				req.Id, req.Actor = args[0], cmp.Or(req.Actor, whoAmI())
				if _, err := askToDo(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.AnnotateIncidentResponse, error) {
					return c.AnnotateIncident(ctx, &req)
				}); err != nil {
					return err
				}
			}
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.GetIncidentResponse, error) {
				return c.GetIncident(ctx, &adminv1.GetIncidentRequest{Id: args[0]})
			})
			switch {
			case err != nil && req.Id != "":
				return fmt.Errorf("it is noted, but the story cannot be told: %w", err)
			case err != nil:
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) {
				fmt.Fprint(out, postmortem(resp, time.Now()))
			})
		},
	}
	o.register(cmd)
	output.register(cmd)
	f := cmd.Flags()
	f.StringVar(&req.AddAction, "action", "", "add `text` to what is to be done")
	f.Uint32Var(&req.CompleteAction, "done", 0, "tick the action item of that `number` off")
	f.StringVar(&req.Actor, "actor", "", "who adds it (default $USER@HOST)")
	return cmd
}

// postmortem writes an incident's story, with the changes around it in words.
func postmortem(resp *adminv1.GetIncidentResponse, now time.Time) string {
	var changes []*adminv1.IncidentEvent
	for _, c := range resp.GetChanges() {
		changes = append(changes, changeEvent(c, resp.GetIncident().GetModel()))
	}
	return visibleText(incident.Postmortem(resp.GetIncident(), changes, now))
}

// changeEvent says what a change did to a model, and why.
func changeEvent(c *routingv1.Change, model string) *adminv1.IncidentEvent {
	e := &adminv1.IncidentEvent{Time: c.GetTime(), Kind: "change", Actor: c.GetActor(), Revision: c.GetRevision()}
	for _, r := range c.GetRoutes() {
		if r.GetModel() == model {
			e.Text = inWords(r)
		}
	}
	if c.GetReason() != "" {
		e.Text += ": " + c.GetReason()
	}
	return e
}

// completeIncident completes the id of an incident.
func completeIncident(o *clientOptions) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		resp, err := ask(cmd.Context(), o, func(ctx context.Context, c *client) (*adminv1.ListIncidentsResponse, error) {
			return c.ListIncidents(ctx, &adminv1.ListIncidentsRequest{Limit: 50})
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var ids []cobra.Completion
		for _, in := range resp.GetIncidents() {
			ids = append(ids, cobra.CompletionWithDesc(in.GetId(), in.GetModel()))
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
