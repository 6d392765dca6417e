package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/proto/sluice/admin/v1"
)

func newStatusCommand() *cobra.Command {
	var o clientOptions
	var output format
	var probe bool
	cmd := &cobra.Command{
		Use:   "status [MODEL]",
		Short: "Show how a gateway stands with its store and the models' servers",
		Example: `  sluice status
  sluice status fraud --probe`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModel(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask(cmd.Context(), &o, func(ctx context.Context, c *client) (*adminv1.StatusResponse, error) {
				return c.Status(ctx, &adminv1.StatusRequest{Model: modelOf(args), Probe: probe})
			})
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), resp, func(out io.Writer) { writeStatus(out, resp, probe) })
		},
	}
	o.register(cmd)
	output.register(cmd)
	cmd.Flags().BoolVar(&probe, "probe", false, "ask the endpoints now, instead of saying what calls and probes have found out")
	return cmd
}

func writeStatus(out io.Writer, resp *adminv1.StatusResponse, probed bool) {
	ready := "ready"
	if !resp.GetReady() {
		ready = alarm.Render("not ready")
	}
	store := resp.GetStore()
	field := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	field("gateway", "%s, version %s, up %s", ready, resp.GetVersion(), time.Since(resp.GetStarted().AsTime()).Round(time.Second))
	field("revision", "%d, changed %s, %s", store.GetRevision(), moment(store.GetChanged()), plural(int(resp.GetModels()), "model"))
	field("store", "%s", standing(store))
	for _, p := range store.GetProblems() {
		field("problem", "%s", alarm.Render(visible(p, 500)))
	}
	if d := store.GetDiffering(); len(d) > 0 {
		field("file", "differed from the store at the start in %s; the store wins (try: sluice apply -f FILE)", strings.Join(d, ", "))
	}
	if store.GetCache() != "" {
		field("cache", "%s %s", store.GetCache(), alarm.Render(visible(store.GetCacheProblem(), 200)))
	}
	if len(resp.GetVersions()) == 0 {
		return
	}
	fmt.Fprintln(out)
	endpointsTable(resp.GetVersions(), probed).write(out)
}

// standing says in a line how a gateway stands with its store.
func standing(s *adminv1.StoreStatus) string {
	age := s.GetAge().AsDuration()
	precision := time.Second
	if age < time.Second {
		precision = time.Millisecond
	}
	switch {
	case s.GetSource() == "none":
		return fmt.Sprintf("%s, %s", s.GetName(), alarm.Render("no routing state"))
	case s.GetFollowing():
		return fmt.Sprintf("%s, followed, confirmed %s ago", s.GetName(), age.Round(precision))
	}
	return fmt.Sprintf("%s, %s: serving what the %s said %s ago", s.GetName(), alarm.Render("not followed"), s.GetSource(), age.Round(precision))
}

// mostEndpoints bounds the rows of a table.
const mostEndpoints = 500

func endpointsTable(versions []*adminv1.VersionStatus, probed bool) *table {
	t := newTable("MODEL", "VERSION", ">WEIGHT", "ENDPOINT", ">IN FLIGHT", "STATE")
	for _, v := range versions {
		if len(v.GetEndpoints()) == 0 {
			t.add(v.GetModel(), v.GetVersion(), fmt.Sprint(v.GetWeight()), "-", "-", alarm.Render("no address known"))
		}
		for _, e := range v.GetEndpoints() {
			if len(t.rows) > mostEndpoints {
				t.add("...", "", "", "", "", "there are more; try: sluice status MODEL")
				return t
			}
			t.add(v.GetModel(), v.GetVersion(), fmt.Sprint(v.GetWeight()), e.GetAddress(), fmt.Sprint(e.GetInFlight()), endpointState(e, probed))
		}
	}
	return t
}

// endpointState is what is known of an endpoint. Connections are made when calls
// come, so of one that is neither called nor asked there is nothing to know.
func endpointState(e *adminv1.Endpoint, probed bool) string {
	switch {
	case e.GetSince() != nil:
		return alarm.Render(fmt.Sprintf("%s, since %s", visible(e.GetProblem(), 80), moment(e.GetSince())))
	case !e.GetHealthy():
		return alarm.Render(visible(e.GetProblem(), 80))
	case probed:
		return "answers"
	case e.GetShare() > 0 && e.GetShare() < 1:
		return fmt.Sprintf("has come back, gets %.0f %% of its share", 100*e.GetShare())
	case e.GetProblem() != "":
		return visible(e.GetProblem(), 80)
	case e.GetHealth() == "healthy":
		return "healthy"
	case e.GetConnections() > 0:
		return "connected"
	}
	return faint.Render("no calls yet")
}
