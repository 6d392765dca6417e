package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

func newHistoryCommand() *cobra.Command {
	var o clientOptions
	var output format
	var limit uint32
	var before uint64
	cmd := &cobra.Command{
		Use:   "history [MODEL]",
		Short: "Show who changed what, when and why",
		Long: `Show who changed what, when and why, the newest first.

With -o json or yaml it has the documents before and after every change.`,
		Example: `  sluice history fraud
  sluice history --limit 5 -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &adminv1.HistoryRequest{Model: modelOf(args), Limit: limit, Before: before}
			if output == asTable {
				req.Documents = mostInHistory // more are not shown
			}
			resp, err := askHistory(cmd.Context(), &o, req)
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) {
				if len(resp.GetChanges()) == 0 {
					fmt.Fprintln(out, "no changes")
					return
				}
				historyTable(resp.GetChanges(), modelOf(args)).write(out)
			})
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().Uint32Var(&limit, "limit", 20, "the most `changes` to show, up to 1000")
	cmd.Flags().Uint64Var(&before, "before", 0, "show changes below that `revision`")
	return cmd
}

// askHistory asks page by page, where the gateway does not send all at once. Of a model
// without changes it makes sure that it is known.
func askHistory(ctx context.Context, o *clientOptions, req *adminv1.HistoryRequest) (*adminv1.HistoryResponse, error) {
	all := new(adminv1.HistoryResponse)
	for {
		resp, err := ask(ctx, o, func(ctx context.Context, c *client) (*adminv1.HistoryResponse, error) {
			resp, err := c.History(ctx, req)
			if err == nil && len(resp.GetChanges()) == 0 && len(all.Changes) == 0 && req.GetModel() != "" {
				_, err = c.Get(ctx, &adminv1.GetRequest{Model: req.GetModel()})
			}
			return resp, err
		})
		if err != nil {
			return nil, err
		}
		all.Changes = append(all.Changes, resp.GetChanges()...)
		if resp.GetNext() == 0 || req.Limit != 0 && len(resp.GetChanges()) >= int(req.Limit) {
			return all, nil
		}
		req.Before = resp.GetNext()
		if req.Limit != 0 {
			req.Limit -= uint32(len(resp.GetChanges()))
		}
	}
}

// mostInHistory bounds how many routes of one change a table shows, and
// reasonWidth how much of its reason.
const (
	mostInHistory = 3
	reasonWidth   = 60
)

// historyTable has a row for every route of every change.
func historyTable(changes []*routingv1.Change, model string) *table {
	t := newTable(">REVISION", "TIME", "ACTOR", "MODEL", "CHANGE", "REASON")
	for _, c := range changes {
		cells := []string{fmt.Sprint(c.GetRevision()), moment(c.GetTime()), visible(c.GetActor(), 40), reasonOrDash(c, reasonWidth)}
		for _, what := range whatChanged(c, model) {
			t.add(cells[0], cells[1], cells[2], what.model, what.words, cells[3])
			cells = []string{"", "", "", ""}
		}
	}
	return t
}

// changed is a model and what became of it.
type changed struct{ model, words string }

// whatChanged lists what a change did, of one model or of all.
func whatChanged(c *routingv1.Change, model string) []changed {
	var all []changed
	for _, r := range c.GetRoutes() {
		if model == "" || r.GetModel() == model {
			all = append(all, changed{r.GetModel(), visible(inWords(r), 120)})
		}
	}
	if n := len(all); n > mostInHistory {
		all = append(all[:mostInHistory-1], changed{fmt.Sprintf("and %d more", n-mostInHistory+1), ""})
	}
	if n := len(c.GetLost()); n > 0 {
		all = append(all, changed{"-", fmt.Sprintf("the store has lost %s", plural(n, "change"))})
	}
	if len(all) == 0 {
		all = append(all, changed{"-", "-"})
	}
	return all
}
