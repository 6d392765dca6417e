package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

// routeEntry is a route and the revision of its last change.
type routeEntry = routingv1.StoredRoute

func newGetCommand() *cobra.Command {
	var o clientOptions
	var output format
	var watch bool
	cmd := &cobra.Command{
		Use:   "get [MODEL]",
		Short: "Show routes and their splits",
		Long: `Show routes and their splits, as the gateway serves them now.

With -o yaml it writes a file of routes, which sluice apply reads. With --watch it goes
on and shows every change: what, by whom and why.`,
		Example: `  sluice get
  sluice get fraud -o yaml > fraud.yaml
  sluice get --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return runWatch(cmd, &o, output, modelOf(args))
			}
			return get(cmd, &o, output, modelOf(args))
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on, and show every change")
	return cmd
}

// modelOf is the argument of commands that may do without.
func modelOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func get(cmd *cobra.Command, o *clientOptions, output format, model string) error {
	resp, err := ask(cmd.Context(), o, func(ctx context.Context, c *client) (*adminv1.GetResponse, error) {
		return c.Get(ctx, &adminv1.GetRequest{Model: model})
	})
	if err != nil {
		return err
	}
	if output == asYAML {
		return writeDocument(cmd.OutOrStdout(), resp)
	}
	return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) {
		fmt.Fprintf(out, "revision %d, %s\n", resp.GetRevision(), plural(len(resp.GetRoutes()), "model"))
		if len(resp.GetRoutes()) > 0 {
			routesTable(resp.GetRoutes()).write(out)
		}
	})
}

// writeDocument writes a file of routes.
func writeDocument(out io.Writer, resp *adminv1.GetResponse) error {
	doc := new(routingv1.Document)
	for _, r := range resp.GetRoutes() {
		doc.Routes = append(doc.Routes, r.GetRoute())
	}
	text, err := toYAML(doc)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "# revision %d\n%s", resp.GetRevision(), text)
	return err
}

// routesTable has a row for every version.
func routesTable(routes []*routeEntry) *table {
	t := newTable("MODEL", "VERSION", ">WEIGHT", ">SHARE", ">SINCE", "ENDPOINTS")
	for _, entry := range routes {
		model, since := entry.GetModel(), fmt.Sprint(entry.GetRevision())
		for _, v := range entry.GetRoute().GetVersions() {
			t.add(model, v.GetName(), fmt.Sprint(entry.GetRoute().GetWeights()[v.GetName()]),
				share(entry.GetRoute(), v.GetName()), since, endpointsInShort(v))
			model, since = "", ""
		}
	}
	return t
}

func endpointsInShort(v *routingv1.Version) string {
	const shown = 2
	text := ""
	for i, e := range v.GetEndpoints() {
		if i == shown {
			return text + fmt.Sprintf(" +%d", len(v.GetEndpoints())-shown)
		}
		if i > 0 {
			text += " "
		}
		text += e
	}
	return text
}
